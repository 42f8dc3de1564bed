"""Inner rules against PyTorch's optimisers (values), an explicit unroll, and finite differences (meta-gradients)."""

import copy
import math

import pytest
import torch
from learner_models import batch, tied, tiny_model
from torch import nn
from torch.func import functional_call

from pemeta import Adapter, LoRA, MetaPriming, PrimingLearner
from pemeta.errors import ConfigError
from pemeta.priming.inner_rules import SGD, Adam, AdamW, InnerRule, Momentum

LR, STEPS = 0.05, 4
RULES = {
    "sgd": (SGD(), lambda p: torch.optim.SGD(p, LR)),
    "momentum": (Momentum(momentum=0.7), lambda p: torch.optim.SGD(p, LR, momentum=0.7)),
    "adam": (Adam(beta1=0.8, beta2=0.9), lambda p: torch.optim.Adam(p, LR, betas=(0.8, 0.9))),
    "adamw": (AdamW(weight_decay=0.3), lambda p: torch.optim.AdamW(p, LR, weight_decay=0.3)),
}
CHANGES = {"plain": {}, "clipped": {"max_grad_norm": 0.02}, "warmed up": {"warmup_steps": 3}}
METHODS = {"adapter": Adapter(bottleneck=4), "lora": LoRA(rank=2)}
each_rule = pytest.mark.parametrize("name", RULES)
each_change = pytest.mark.parametrize("change", CHANGES)


def rule(name, change="plain"):
    return RULES[name][0].model_copy(update=CHANGES[change])


def adapted(model, own, first_order=True, steps=STEPS):
    clone = PrimingLearner(model, LR, rule=own, first_order=first_order).clone("en")
    for _ in range(steps):
        clone.adapt(clone.loss(batch(1), "en"))
    return clone


def test_every_rule_is_tested():
    assert set(RULES) == set(InnerRule.members())


@each_rule
@each_change
def test_the_values_are_those_of_pytorchs_optimiser(name, change):
    model = tiny_model(METHODS["adapter"])
    clone = adapted(model, rule(name, change))
    plain = copy.deepcopy(model)
    own = {n: p for n, p in plain.named_parameters() if n in clone.adapted_parameters()}
    optimiser = RULES[name][1](own.values())
    for step in range(STEPS):
        optimiser.zero_grad()
        plain.loss(batch(1), "en").backward()
        if change == "clipped":
            norm = math.sqrt(sum(float(p.grad.square().sum()) for p in own.values()))
            assert norm > 0.02
            for parameter in own.values():
                parameter.grad *= 0.02 / norm
        elif change == "warmed up":
            optimiser.param_groups[0]["lr"] = LR * min(1, (step + 1) / 3)
        optimiser.step()
    for parameter, value in clone.adapted_parameters().items():
        torch.testing.assert_close(value.detach(), own[parameter].detach(), rtol=0, atol=1e-12)


def by_hand(name, change, value, gradients, moments, step):
    """The rules once more, each written out for one parameter."""
    rate = LR * min(1, (step + 1) / 3) if change == "warmed up" else LR
    g = gradients
    if name == "sgd":
        return value - rate * g
    if name == "momentum":
        moments["m"] = g if step == 0 else 0.7 * moments["m"] + g
        return value - rate * moments["m"]
    b1, b2 = (0.8, 0.9) if name == "adam" else (0.9, 0.999)
    moments["m"] = (1 - b1) * g if step == 0 else b1 * moments["m"] + (1 - b1) * g
    moments["v"] = (1 - b2) * g**2 if step == 0 else b2 * moments["v"] + (1 - b2) * g**2
    top, below = moments["m"] / (1 - b1 ** (step + 1)), moments["v"] / (1 - b2 ** (step + 1))
    zero = below == 0
    root = torch.where(zero, 0.0, (below + zero).sqrt())
    decayed = value - rate * 0.3 * value if name == "adamw" else value
    return decayed - rate * top / (root + 1e-8)


def unrolled(model, name, change, first_order):
    """Meta-gradients of θ_p and θ_a by an explicit unroll."""
    parts, heads = model.partition(), model.head_names("en")
    oracle = copy.deepcopy(model)
    start = {n: p.detach().clone().requires_grad_(n not in heads) for n, p in model.named_parameters()}
    values = {n: (p.detach().clone().requires_grad_() if n in heads else p) for n, p in start.items()}
    names, moments = (*parts.theta_a, *heads), {n: {} for n in start}

    def loss(data):
        logits = functional_call(oracle, values, (data, "en"))
        return nn.functional.cross_entropy(logits.flatten(0, 1), data["labels"].flatten(), ignore_index=-100)

    for step in range(STEPS):
        found = torch.autograd.grad(loss(batch(1)), [values[n] for n in names], create_graph=not first_order)
        if change == "clipped":
            norm = torch.sqrt(sum(g.square().sum() for g in found))
            found = [g * torch.clamp(0.02 / norm, max=1.0) for g in found]
        for n, g in zip(names, found, strict=True):
            values[n] = by_hand(name, change, values[n], g, moments[n], step)
    outer = [n for n in start if n not in parts.theta_h]
    return dict(
        zip(outer, torch.autograd.grad(loss(batch(2)), [start[n] for n in outer], allow_unused=True), strict=True)
    )


@pytest.mark.parametrize("first_order", [True, False])
@pytest.mark.parametrize("method", METHODS)
@each_rule
@each_change
def test_meta_gradients_equal_the_explicit_unroll(name, change, method, first_order):
    model = tiny_model(METHODS[method])
    expected = unrolled(model, name, change, first_order)
    clone = adapted(model, rule(name, change), first_order)
    clone.loss(batch(2), "en").backward()
    moved = 0.0
    for parameter, value in expected.items():
        found = model.get_parameter(parameter).grad
        if value is None:
            assert found is None
        else:
            torch.testing.assert_close(found, value, rtol=0, atol=1e-10, msg=parameter)
            moved += float(value.abs().sum())
    assert moved > 1e-6


@pytest.mark.parametrize("name", ["momentum", "adam", "adamw"])
def test_second_order_equals_finite_differences(name):
    module, partition = tied()
    x, y = torch.randn(4, 3).double(), torch.randn(4, 3).double()

    def query_loss():
        learner = PrimingLearner(module, LR, partition=partition, first_order=False, rule=rule(name, "clipped"))
        clone = learner.clone()
        for _ in range(3):
            clone.adapt(clone(x).square().mean())
        return clone(y).square().mean()

    query_loss().backward()
    for parameter in (module.one.weight, module.low.weight):
        original, eps, ends = parameter[2, 1].item(), 1e-6, []
        for sign in (1, -1):
            with torch.no_grad():
                parameter[2, 1] = original + sign * eps
            ends.append(query_loss().item())
        with torch.no_grad():
            parameter[2, 1] = original
        assert parameter.grad[2, 1].item() == pytest.approx((ends[0] - ends[1]) / (2 * eps), abs=1e-7)


@each_rule
@each_change
def test_a_gradient_of_zero_does_no_harm(name, change):
    """In second order too, where the derivative of a root at zero would be infinite."""
    module, partition = tied()
    learner = PrimingLearner(module, LR, partition=partition, first_order=False, rule=rule(name, change))
    clone = learner.clone()
    clone.adapt(0 * clone(torch.ones(2, 3).double()).sum())
    clone(torch.ones(2, 3).double()).square().mean().backward()
    assert all(torch.isfinite(value).all() for value in clone.adapted_parameters().values())
    assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)


@each_rule
def test_moments_are_a_clones_own(name):
    model = tiny_model(METHODS["adapter"])
    learner = PrimingLearner(model, LR, rule=rule(name))
    clones = [learner.clone("en") for _ in range(2)]
    for _ in range(2):
        clones[0].adapt(clones[0].loss(batch(1), "en"))
    copied = copy.copy(clones[0])
    for clone in (clones[0], copied):  # each goes its own way, and the copy from where the other was
        clone.adapt(clone.loss(batch(1), "en"))
    for _ in range(3):
        clones[1].adapt(clones[1].loss(batch(1), "en"))
    expected = clones[0].adapted_parameters()
    for other in (copied, clones[1]):
        assert all(torch.equal(value, expected[n]) for n, value in other.adapted_parameters().items())


@each_rule
def test_a_configuration_names_a_rule(name):
    algorithm = MetaPriming(inner_rule=name)
    assert type(algorithm.inner_rule) is type(RULES[name][0])
    assert MetaPriming.parse(algorithm.to_config()) == algorithm
    given = MetaPriming(inner_rule={"name": name, "max_grad_norm": 1.0, "warmup_steps": 2})
    assert given.inner_rule.warmup_steps == 2


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("adamm", "unknown inner rule 'adamm'; did you mean 'adam'"),
        ({"name": "momentum", "momentum": 1.0}, "momentum: input should be less than 1; found 1.0"),
        ({"name": "sgd", "beta1": 0.9}, "beta1: unknown key 'beta1'"),
    ],
)
def test_a_rule_that_there_is_not(given, says):
    with pytest.raises(ConfigError, match=says):
        MetaPriming.parse({"name": "meta", "inner_rule": given})
