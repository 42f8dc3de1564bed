"""The inner loop against an explicit unroll by ``torch.func.functional_call``, in float64."""

import copy
import sys

import pytest
import torch
from learner_models import ADAPTER, INNER_LR, STEPS, batch, tied, tiny_model
from tiny_models import each_method
from torch import Tensor, nn
from torch.func import functional_call

from pemeta import Full, HeadOnly, Partition, PrimingLearner
from pemeta.errors import ConfigError, ModelError, TrainingError


def unroll(module, loss, support, query, partition, heads, first_order):
    """Meta-gradients of θ_p and θ_a, and the adapted values, written out by hand."""
    original = dict(module.named_parameters())
    start = {n: p.detach().clone().requires_grad_(n not in heads) for n, p in original.items()}
    values = {n: (p.detach().clone().requires_grad_() if n in heads else p) for n, p in start.items()}
    adapted = (*partition.theta_a, *heads)
    for _ in range(STEPS):
        gradients = torch.autograd.grad(
            loss(values, support), [values[n] for n in adapted], create_graph=not first_order
        )
        for name, gradient in zip(adapted, gradients, strict=True):
            values[name] = values[name] - INNER_LR * gradient
    outer = [n for n in start if n not in partition.theta_h]
    meta = torch.autograd.grad(loss(values, query), [start[n] for n in outer], allow_unused=True)
    return dict(zip(outer, meta, strict=True)), {n: values[n].detach() for n in adapted}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if value is None:
            assert found[name] is None, name
        else:
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-10, msg=name)


@pytest.mark.parametrize("first_order", [True, False])
@each_method
def test_meta_gradients_equal_the_explicit_unroll(method, first_order):
    model = tiny_model(method)
    partition, heads = model.partition(), model.head_names("en")
    oracle = copy.deepcopy(model)  # functional_call leaves other values in a module that has two names

    def loss(values, data):
        logits = functional_call(oracle, values, (data, "en"))
        return nn.functional.cross_entropy(logits.flatten(0, 1), data["labels"].flatten(), ignore_index=-100)

    expected, values = unroll(model, loss, batch(1), batch(2), partition, heads, first_order)
    clone = PrimingLearner(model, INNER_LR, first_order=first_order).clone("en")
    for _ in range(STEPS):
        clone.adapt(clone.loss(batch(1), "en"))
    clone.loss(batch(2), "en").backward()
    assert_same({n: model.get_parameter(n).grad for n in expected}, expected)
    assert_same({n: p.detach() for n, p in clone.adapted_parameters().items()}, values)
    assert any(g is not None and g.abs().sum() > 0 for g in expected.values())


def test_second_order_differs_from_first_order():
    gradients = []
    for first_order in (True, False):
        model = tiny_model(ADAPTER)
        clone = PrimingLearner(model, INNER_LR, first_order=first_order).clone("en")
        clone.adapt(clone.loss(batch(1), "en"))
        clone.loss(batch(2), "en").backward()
        gradients.append(model.get_parameter("backbone.pemeta_adapter.up.weight").grad)
    assert (gradients[0] - gradients[1]).abs().max() > 1e-6


@pytest.mark.parametrize("first_order", [True, False])
@pytest.mark.parametrize("alias", ["low.weight", "high.weight"])
def test_tied_and_unused_parameters(first_order, alias):
    module, _ = tied()
    partition = Partition.of(module, theta_a=[alias], theta_h=["head.weight", "head.bias"])
    x, y = torch.randn(4, 3).double(), torch.randn(4, 3).double()

    def loss(values, data):
        return functional_call(module, values, (data,), tie_weights=True).square().mean()

    expected, values = unroll(module, loss, x, y, partition, partition.theta_h, first_order)
    clone = PrimingLearner(module, INNER_LR, partition=partition, first_order=first_order).clone()
    for _ in range(STEPS):
        clone.adapt(clone(x).square().mean())
    clone(y).square().mean().backward()
    assert clone.module.low.weight is clone.module.high.weight
    assert_same({n: module.get_parameter(n).grad for n in expected}, expected)
    assert_same({n: p.detach() for n, p in clone.adapted_parameters().items()}, values)
    assert module.unused.grad is None


def test_second_order_equals_finite_differences():
    module, partition = tied()
    x, y = torch.randn(4, 3).double(), torch.randn(4, 3).double()

    def adapted_query_loss() -> Tensor:
        clone = PrimingLearner(module, INNER_LR, partition=partition, first_order=False).clone()
        for _ in range(STEPS):
            clone.adapt(clone(x).square().mean())
        return clone(y).square().mean()

    adapted_query_loss().backward()
    for parameter in (module.one.weight, module.low.weight):
        with torch.no_grad():
            for index in ((0, 0), (2, 1)):
                original, eps = parameter[index].item(), 1e-6
                ends = []
                for sign in (1, -1):
                    parameter[index] = original + sign * eps
                    with torch.enable_grad():
                        ends.append(adapted_query_loss().item())
                parameter[index] = original
                assert parameter.grad[index].item() == pytest.approx((ends[0] - ends[1]) / (2 * eps), abs=1e-8)


@each_method
def test_a_clone_shares_theta_p_and_owns_the_rest(method):
    model = tiny_model(method)
    before = copy.deepcopy(model.state())
    partition = model.partition()
    clone = PrimingLearner(model, INNER_LR).clone("en")
    of_clone = dict(clone.module.named_parameters())
    for name, parameter in model.named_parameters():
        shared = name in partition.theta_p or name in model.head_names("es")
        assert (of_clone[name] is parameter) == shared, name
    other = PrimingLearner(model, INNER_LR).clone("en")
    for _ in range(STEPS):
        clone.adapt(clone.loss(batch(1), "en"))
    assert_same(model.state(), before)  # the original did not move
    assert_same(other.module.state(), before)  # nor did another clone
    moved = {n for n, p in clone.module.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {*partition.theta_a, *model.head_names("en")} - _keys_biases(moved, partition)


def _keys_biases(moved, partition):
    """A key's bias shifts all scores of a query alike, so its exact gradient is 0: rounding may leave it in place."""
    return {n for n in partition.theta_a if n.endswith("key.bias")} - moved


def test_clone_without_a_task_adapts_the_head_that_the_loss_uses():
    model = tiny_model(ADAPTER)
    clone = PrimingLearner(model, INNER_LR).clone()
    clone.adapt(clone.loss(batch(1), "es"))
    values = dict(clone.module.named_parameters())
    assert torch.equal(values["heads.task_en.classifier.weight"], model.head("en").classifier.weight)
    assert not torch.equal(values["heads.task_es.classifier.weight"], model.head("es").classifier.weight)


def test_inner_method_of_its_own():
    model = tiny_model(ADAPTER)
    with pytest.raises(ModelError, match=r"Full\(\) is not attached to this model; attach it first"):
        PrimingLearner(model, INNER_LR, method=Full())
    model.attach(Full())
    learner = PrimingLearner(model, INNER_LR, method=Full())
    assert learner.partition.theta_p == ()
    assert "backbone.pemeta_adapter.up.weight" in learner.partition.theta_a


def test_theta_a_without_gradient_is_reported_by_name():
    module, _ = tied()
    partition = Partition.of(module, theta_a=["low.weight", "unused"], theta_h=["head.weight", "head.bias"])
    clone = PrimingLearner(module, INNER_LR, partition=partition).clone()
    with pytest.raises(ModelError, match=r"θ_a without a gradient: unused"):
        clone.adapt(clone(torch.ones(1, 3).double()).sum())


def test_a_loss_that_does_not_reach_the_head_of_the_clone_is_an_error():
    model = tiny_model(HeadOnly())
    clone = PrimingLearner(model).clone("en")
    with pytest.raises(ModelError, match=r"does not depend on the clone's head \(heads\.task_en"):
        clone.adapt(clone.loss(batch(1), "es"))
    every = PrimingLearner(model).clone()
    with pytest.raises(ModelError, match="does not depend on the clone's head"):
        every.adapt(model.loss(batch(1), "en"))


def test_a_non_finite_loss_is_reported_with_its_step():
    clone = PrimingLearner(tiny_model(ADAPTER), 1e300).clone("en")
    with pytest.raises(TrainingError, match=r"the inner loss of step 2 is (nan|inf); lower inner_lr \(now 1e\+300\)"):
        clone.adapt_to([batch(1)] * 3, "en")
    module, partition = tied()
    clone = PrimingLearner(module, INNER_LR, partition=partition).clone()
    with pytest.raises(TrainingError, match=r"the inner loss is nan; lower inner_lr \(now 0.1\)"):
        clone.adapt(clone(torch.full((1, 3), torch.nan).double()).sum())


def test_wrong_arguments():
    module, partition = tied()
    with pytest.raises(ConfigError, match="inner_lr must be positive; found 0"):
        PrimingLearner(module, 0, partition=partition)
    with pytest.raises(ConfigError, match="a Tied does not declare θ_a"):
        PrimingLearner(module)
    with pytest.raises(ConfigError, match="a Tied has no tasks; call adapt with a loss for each step"):
        PrimingLearner(module, partition=partition).clone().adapt_to([batch(1)], "en")


def test_modules_whose_clones_would_use_the_original_are_refused():
    model = tiny_model(ADAPTER)
    layer = model.backbone.encoder.layer[0]
    layer.forward = layer.forward  # what accelerate's hooks do
    with pytest.raises(ModelError, match=r"backbone\.encoder\.layer\.0 has a forward of its own"):
        PrimingLearner(model)


def test_modes_are_those_of_the_shared_module():
    model = tiny_model(ADAPTER).train()
    model.backbone.eval()
    clone = PrimingLearner(model).clone("en")
    assert clone.module.training
    assert not clone.module.backbone.training
    clone.module.eval()
    assert not model.training
    clone.module.train()
    assert model.backbone.training


def test_learn2learn_itself_is_not_imported():
    assert "gym" not in sys.modules
    assert "learn2learn.algorithms.base_learner" in sys.modules
    assert "learn2learn" not in sys.modules


def test_missing_learn2learn_names_the_command(monkeypatch):
    import importlib.util

    import pemeta
    from pemeta.errors import MissingLearn2LearnError
    from pemeta.priming._learn2learn import _load

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingLearn2LearnError, match="run `pemeta setup-learn2learn`"):
        _load("utils")
    # What a user sees: the public name raises it, the rest of the library works.
    for name in ("pemeta.priming._learn2learn", "pemeta.priming.learner"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(vars(pemeta), "PrimingLearner", raising=False)
    with pytest.raises(ImportError, match="run `pemeta setup-learn2learn`"):
        from pemeta import PrimingLearner  # noqa: F401
    assert pemeta.Adapter().bottleneck == 64
