"""LoRA's pair and the map beside it as one map, in the passes of an inner loop: equal, or not done."""

import pytest
import torch
from architectures import backbone, batch
from tiny_models import shaken
from torch import nn

from pemeta import LoRA, PEModel
from pemeta.methods import merged_maps
from pemeta.methods.low_rank import LowRank

EVERY = LoRA(rank=2, targets="all-linear")


@pytest.fixture
def merged(monkeypatch):
    """Whether a pair was in the product, for each product of the kind."""
    found, apply = [], merged_maps._Merged.apply
    monkeypatch.setattr(
        merged_maps._Merged, "apply", lambda *given: found.append(given[4] is not None) or apply(*given)
    )
    return found


def model_of(method=EVERY, architecture="bert"):
    model = shaken(PEModel(backbone(architecture), method))
    theta_a = set(model.partition().theta_a)
    return model.eval(), {n: p.requires_grad_(n in theta_a) for n, p in model.named_parameters()}


def derivatives(model, values, given, order):
    own = [value for value in values.values() if value.requires_grad]
    loss = model.hidden_states(given).pow(3).mean()
    first = torch.autograd.grad(loss, own, create_graph=order == "second")
    if order == "first":
        return [loss, *first]
    return [loss, *first, *torch.autograd.grad(sum(g.square().sum() for g in first), own)]


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize(
    ("method", "architecture"),
    [(LoRA(rank=2), "bert"), (EVERY, "bert"), (EVERY, "qwen3"), (EVERY, "t5"), (LoRA(rank=2, dropout=0.5), "bert")],
    ids=["two", "bert", "qwen3", "t5", "dropout-off"],
)
def test_one_map_has_the_derivatives_of_two(method, architecture, order, merged):
    model, values = model_of(method, architecture)
    given = batch(architecture, 1)
    expected = derivatives(model, values, given, order)
    assert not merged
    with method.inner_passes(model.backbone):
        found = derivatives(model, values, given, order)
    assert any(merged)
    near = 1e-10 if architecture == "t5" else 1e-12  # its norms round to float32
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=near, atol=near)
    assert not any("forward" in vars(part) for part in model.backbone.modules())


def trained_weights(model, values):
    for value in values.values():
        value.requires_grad_()


def dropout(model, values):
    model.train()


def half(model, values):
    model.to(torch.bfloat16)


def hook(model, values):
    for part in model.backbone.modules():
        if isinstance(part, nn.Linear):
            part.register_forward_hook(lambda part, given, output: output * 2)


def hook_of_a_pair(model, values):
    for part in model.backbone.modules():
        if isinstance(part, LowRank):
            part.register_forward_hook(lambda part, given, output: output * 2)


def few_tokens(model, values):
    for part in model.backbone.modules():
        if isinstance(part, nn.Linear):
            part.in_features = part.out_features = 10**6  # as if; the product does not ask


CHANGES = [trained_weights, dropout, half, hook, hook_of_a_pair, few_tokens]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_is_not_certain_runs_as_two(change, merged):
    method = LoRA(rank=2, dropout=0.5)
    model, values = model_of(method)
    change(model, values)
    passes = []
    for block in (torch.enable_grad(), method.inner_passes(model.backbone)):
        torch.manual_seed(0)
        with block:
            passes.append(derivatives(model, values, batch("bert", 1), "first"))
    assert not any(merged)
    for one, other in zip(*passes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("setting", ["autocast", "tf32"])
def test_numbers_that_would_lose_a_small_pair_are_not_added(setting, merged):
    model, values = model_of()
    model.float()
    block = torch.autocast("cpu", torch.bfloat16, enabled=setting == "autocast")
    try:
        torch.set_float32_matmul_precision("high" if setting == "tf32" else "highest")
        with block, EVERY.inner_passes(model.backbone):
            derivatives(model, values, batch("bert", 1), "first")
    finally:
        torch.set_float32_matmul_precision("highest")
    assert not any(merged)


def test_an_input_that_was_changed_in_place_is_another_one():
    torch.manual_seed(0)
    part = nn.Module()
    part.a, part.b = nn.Linear(3, 2), nn.Linear(3, 2)
    outer = nn.Sequential(part).double().requires_grad_(False)
    part.a.add_module("pair", nn.Identity())

    def gradient():
        start = torch.arange(12.0, dtype=torch.float64).view(4, 3).requires_grad_()
        x = start * 1
        total = part.b(x).sum()
        x.mul_(3)
        return torch.autograd.grad(total + part.b(x).square().sum(), start)[0]

    expected = gradient()
    with merged_maps.merged_maps(outer, "pair"):
        assert torch.equal(gradient(), expected)


def test_what_a_map_gives_may_be_changed_in_place():
    torch.manual_seed(0)
    part = nn.Module()
    part.query = nn.Linear(3, 4).double().requires_grad_(False)
    part.query.add_module("pair", LowRank(3, 4, 2, 0.5, 0.0).double())
    torch.nn.init.normal_(part.query.pair.up.weight)

    def hook(*_):
        return None

    hook.child = "pair"  # as that of a method, which adds what the pair gives
    part.query.register_forward_hook(hook)
    outer = nn.Sequential(part)
    x = torch.randn(8, 5, 3, dtype=torch.float64, requires_grad=True)

    def gradients():
        out = part.query(x)
        if not merged_maps.includes(out, part.query.pair):
            out = out + part.query.pair(x)
        out /= 2
        own = list(part.query.pair.parameters())
        return torch.autograd.grad(out.square().sum(), [x, *own])

    expected = gradients()
    with merged_maps.merged_maps(outer, "pair"):
        assert merged_maps.includes(part.query(x), part.query.pair)
        for one, other in zip(gradients(), expected, strict=True):
            torch.testing.assert_close(one, other)
