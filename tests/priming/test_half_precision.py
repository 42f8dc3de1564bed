"""Priming with parameters in half precision: small updates count, in the inner loop and in the outer one."""

import copy
import pickle

import pytest
import torch
from architectures import ARCHITECTURES, batch
from half_models import HALF, half_model, in_float32, moved, outer_steps
from learner_models import tied
from tiny_models import METHODS, TASKS, tiny
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from unroll import meta

from pemeta import FineTunePriming, FineTuning, PersistentPriming, PrimingLearner, ReptilePriming, finetune, prime
from pemeta.methods import BitFit, Full, LoRA
from pemeta.priming.inner_rules import Adam
from pemeta.training.master_values import MasterAdamW

each_dtype = pytest.mark.parametrize("dtype", HALF, ids=["bf16", "fp16"])
OWN_PARAMETERS = ("bitfit", "layer_norm", "full")  # which adapt the backbone's own, in half precision
LR, STEPS = 0.03, 3


def unrolled(model, first_order):
    """θ_a and head after the inner loop, in float32, and the gradient of the query loss: no clone, no hook of ours.

    The model computes with each value rounded to the type of its parameter.
    """
    start = {name: parameter.detach().clone().requires_grad_() for name, parameter in model.named_parameters()}
    oracle, parts = copy.deepcopy(model), model.partition()
    adapted = [*parts.theta_a, *model.head_names("en")]
    values = {name: start[name].float() for name in adapted}

    def loss(values, data):
        rounded = {name: value.to(start[name].dtype) for name, value in values.items()}
        logits = functional_call(oracle, {**start, **rounded}, (data, "en"))
        return cross_entropy(logits.flatten(0, 1), data["labels"].flatten(), ignore_index=-100)

    for _ in range(STEPS):
        found = torch.autograd.grad(loss(values, batch("bert", 1)), list(values.values()), create_graph=not first_order)
        values = {name: value - LR * g for (name, value), g in zip(values.items(), found, strict=True)}
    names = [*parts.theta_p, *parts.theta_a]
    gradients = torch.autograd.grad(loss(values, batch("bert", 2)), [start[n] for n in names], allow_unused=True)
    return values, {name: g for name, g in zip(names, gradients, strict=True) if g is not None}


@pytest.mark.parametrize("first_order", [True, False], ids=["first", "second"])
@pytest.mark.parametrize("name", ["adapter", "lora", "ia3", "prefix", "bitfit", "full"])
def test_the_inner_loop_is_an_unroll_in_float32_on_passes_in_half_precision(name, first_order):
    model = half_model(METHODS[name][0])
    expected, gradients = unrolled(model, first_order)
    clone = PrimingLearner(model, LR, first_order=first_order).clone("en")
    for _ in range(STEPS):
        clone.adapt(clone.loss(batch("bert", 1), "en"))
    found = clone.adapted_parameters()
    assert found.keys() == expected.keys()
    for parameter, value in expected.items():
        assert found[parameter].dtype == torch.float32
        torch.testing.assert_close(found[parameter], value, rtol=0, atol=1e-7, msg=parameter)

    clone.loss(batch("bert", 2), "en").backward()
    whole = sum(float(g.float().square().sum()) for g in gradients.values()) ** 0.5
    for parameter, gradient in gradients.items():
        error = (model.get_parameter(parameter).grad.float() - gradient.float()).norm()
        assert error < 0.005 * whole, parameter


@each_dtype
@pytest.mark.parametrize("name", METHODS)
def test_no_entry_stays_for_being_small(name, dtype):
    """As many entries of θ_a and the head move in the inner loop as in float32, and the losses are nearly the same."""
    shares, losses = [], []
    model = half_model(METHODS[name][0], dtype=dtype)
    for each in (in_float32(model), model):
        clone = PrimingLearner(each, 1e-4).clone("en")
        before = {key: value.detach().clone() for key, value in clone.adapted_parameters().items()}
        losses.append(clone.adapt_to([batch("bert", 1)] * 3, "en"))
        after = clone.adapted_parameters()
        shares.append(
            sum(int((after[n] != before[n]).sum()) for n in before) / sum(value.numel() for value in before.values())
        )
    assert shares[1] == pytest.approx(shares[0], abs=0.03)
    assert losses[1] == pytest.approx(losses[0], rel=0.03)


def check_as_many_parameters_move(architecture, method, dtype=torch.bfloat16):
    """Of θ_p as many as float32's values, rounded at the end, and of θ_a as many as in float32."""
    model = half_model(method, architecture, dtype)
    other, parts = in_float32(model), model.partition()
    before, algorithm = model.state(), meta("first", inner_lr=0.03)
    for each in (model, other):
        outer_steps(each, algorithm, 12, architecture, lr=2e-4)
    for names in (parts.theta_p, parts.theta_a):
        if names:
            assert moved(before, model, names, dtype) == pytest.approx(moved(before, other, names, dtype), abs=0.05)
    if added := [name for name in parts.theta_a if ".pemeta_" in name]:
        assert moved(before, model, added) == pytest.approx(moved(before, other, added), abs=0.03)
    data = batch(architecture, 5)
    with torch.no_grad():
        difference = (model(data, "en") - other(data, "en")).norm() / other(data, "en").norm()
    assert difference < 0.05


SOME = ("bert", "gpt2", "llama", "vit")


@pytest.mark.parametrize("architecture", ["bert", *(pytest.param(one, marks=pytest.mark.long) for one in SOME[1:])])
def test_as_many_parameters_move_as_in_float32(architecture):
    check_as_many_parameters_move(architecture, LoRA(rank=2))


@pytest.mark.long
@pytest.mark.parametrize("method", ["adapter", "lora", "prompt", "layer_norm"])
@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_on_every_architecture_as_many_parameters_move_as_in_float32(architecture, method):
    check_as_many_parameters_move(architecture, METHODS[method][0])


def test_in_float16_as_many_parameters_move_as_in_float32():
    """Its gradients are scaled against underflow, as under autocast."""
    check_as_many_parameters_move("bert", LoRA(rank=2), torch.float16)


def primed(model, algorithm, **options):
    return prime(model, TASKS, algorithm, progress=False, **options)


SMALL = {"outer_steps": 6, "outer_lr": 1e-4, "support_size": 3, "query_size": 3}


def half(method):
    return tiny(method, dropout=0.0).to(torch.bfloat16)


@pytest.mark.parametrize(
    ("method", "algorithm"),
    [
        (LoRA(rank=2), FineTunePriming(**SMALL)),
        (BitFit(), PersistentPriming(**SMALL, start="mean")),
        (LoRA(rank=2), ReptilePriming(**SMALL | {"query_size": 0, "inner_lr": 1e-3})),
        (BitFit(), meta("first", **SMALL, inner_rule={"name": "adam", "moments": "outer"}, inner_lr=1e-4)),
        (LoRA(rank=2), meta("second", **SMALL, outer_loss="mean", interpolate=0.9)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_every_algorithm_moves_as_much_as_in_float32(method, algorithm):
    model, shares = half(method), []
    before, other = model.state(), copy.deepcopy(model).float()
    for each in (model, other):
        primed(each, algorithm)
        shares.append(moved(before, each, each.partition().theta_p, torch.bfloat16))
    assert shares[0] == pytest.approx(shares[1], abs=0.06)
    assert shares[0] > 0.1
    assert {p.dtype for n, p in model.named_parameters() if n.startswith("heads.")} == {torch.float32}


def test_nothing_of_what_was_primed_remains_where_interpolation_leaves_nothing():
    model = half(LoRA(rank=2))
    before = model.state()
    primed(model, FineTunePriming(**SMALL, interpolate=0.0))
    assert moved(before, model, model.partition().theta_p) == 0
    assert moved(before, model, model.partition().theta_a) > 0.5


def test_validation_leaves_the_values_in_float32_as_they_are():
    """Its fine-tuning moves θ_a, and puts it back."""
    found, tasks = [], [(TASKS[1], TASKS[1].train)]
    for validated in (False, True):
        model = half(BitFit())
        often = {"validate_every": 2, "validation_finetuning": FineTuning(epochs=1)} if validated else {}
        given = {"validation_tasks": tasks} if validated else {}
        history = prime(model, TASKS[:1], meta("first", **SMALL, **often), progress=False, **given)
        found.append([step.outer for step in history.losses])
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["lora", *OWN_PARAMETERS])
def test_fine_tuning_moves_as_much_as_in_float32(name):
    model = half(METHODS[name][0])
    before, other = model.state(), copy.deepcopy(model).float()
    shares = []
    for each in (model, other):
        finetune(each, TASKS[0], TASKS[1].train, FineTuning(epochs=6, batch_size=4, lr=1e-4), progress=False)
        shares.append(moved(before, each, each.partition().theta_a, torch.bfloat16))
    assert shares[0] == pytest.approx(shares[1], abs=0.06)


# Clones


def test_a_clone_adapts_where_no_gradients_are_recorded_outside():
    clone = PrimingLearner(half_model(BitFit()), LR).clone("en")
    with torch.no_grad():
        clone.adapt(clone.loss(batch("bert", 1), "en"))
    with torch.inference_mode():
        clone.adapt(clone.loss(batch("bert", 1), "en"))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda clone: pickle.loads(pickle.dumps(clone))])
def test_a_copied_clone_computes_what_the_clone_does(copied):
    clone = PrimingLearner(half_model(BitFit()), LR).clone("en")
    clone.adapt(clone.loss(batch("bert", 1), "en"))
    assert torch.equal(copied(clone).loss(batch("bert", 2), "en"), clone.loss(batch("bert", 2), "en"))


def test_a_tied_parameter_stays_tied_in_a_pass():
    module, partition = tied()
    module.to(torch.bfloat16)
    clone = PrimingLearner(module, LR, partition=partition).clone()
    clone.adapt(clone(torch.ones(2, 3, dtype=torch.bfloat16)).square().mean())
    with clone.placed():
        assert module.low.weight is module.high.weight
        assert module.low.weight.dtype == torch.bfloat16
    assert clone.adapted_parameters()["low.weight"].dtype == torch.float32


def test_a_clone_of_a_clone_starts_from_its_values_in_float32():
    clone = PrimingLearner(half_model(BitFit()), 1e-5).clone("en")
    clone.adapt(clone.loss(batch("bert", 1), "en"))
    again = clone.clone("en")
    assert all(torch.equal(value, again.adapted_parameters()[n]) for n, value in clone.adapted_parameters().items())


def test_a_rule_starts_from_the_moments_of_the_values_in_float32(monkeypatch):
    model, given = half_model(BitFit()), []
    optimizer = outer_steps(model, meta("first"), 2).optimizer
    monkeypatch.setattr(Adam, "initial", lambda self, outer: given.append(outer) or {})
    PrimingLearner(model, LR, rule=Adam(moments="outer"), optimizer=optimizer).clone("en")
    assert isinstance(optimizer, MasterAdamW)
    assert given[0].keys() == set(model.partition().theta_a)
    assert {state["exp_avg"].dtype for state in given[0].values()} == {torch.float32}
    assert all(state["exp_avg"].any() for name, state in given[0].items() if ".key." not in name)


def test_the_inner_loop_of_maml_moves_the_whole_backbone():
    model = half_model(Full())
    assert not model.partition().theta_p
    clone = PrimingLearner(model, 1e-6).clone("en")
    before = clone.adapted_parameters()
    clone.adapt(clone.loss(batch("bert", 1), "en"))
    after = clone.adapted_parameters()
    stayed = [name for name in before if name.endswith("dense.weight") and torch.equal(before[name], after[name])]
    assert not stayed


@pytest.mark.parametrize("first_order", [True, False], ids=["first", "second"])
@pytest.mark.parametrize("name", ["lora", "bitfit"])
def test_checkpointed_layers_run_again_with_the_rounded_values_of_their_pass(name, first_order):
    found = []
    for checkpoints in (False, True):
        model = half_model(METHODS[name][0])
        model.checkpoint_layers(checkpoints)
        clone = PrimingLearner(model, LR, first_order=first_order).clone("en")
        for _ in range(2):
            clone.adapt(clone.loss(batch("bert", 1), "en"))
        clone.loss(batch("bert", 2), "en").backward()
        found.append({n: p.grad.float() for n, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    whole = sum(float(g.square().sum()) for g in found[0].values()) ** 0.5
    assert all((found[1][n] - gradient).norm() < 0.005 * whole for n, gradient in found[0].items())
