"""Inner rules against PyTorch's optimisers (values) and finite differences; test_algorithms has the unroll."""

import copy
import math

import pytest
import torch
from learner_models import batch, tied, tiny_model

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
