"""θ_p in autocast's type for an inner loop: copied once, and everything else as if there were no copies."""

from contextlib import nullcontext

import pytest
import torch
from architectures import backbone, batch
from tiny_models import ADAPTER, METHODS, TASKS, shaken, tiny, with_heads
from torch.utils._python_dispatch import TorchDispatchMode

from pemeta import LoRA, MetaPriming, PEModel, PrimingLearner, prime
from pemeta.priming import learner as module
from pemeta.priming import task_groups

LORA, STEPS = LoRA(rank=2), 4
ALGORITHM = {"outer_steps": 3, "support_size": 2, "query_size": 3, "inner_steps": STEPS}


class Casts(TorchDispatchMode):
    """Counts copies in bfloat16 of parameters of θ_p, of several at once too."""

    def __init__(self, model):
        super().__init__()
        parameters = dict(model.named_parameters())
        self._places = {parameters[name].untyped_storage().data_ptr() for name in model.partition().theta_p}
        self.alone = self.together = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._to_copy.default and (kwargs or {}).get("dtype") is torch.bfloat16:
            self.alone += args[0].untyped_storage().data_ptr() in self._places
        if func is torch.ops.aten._foreach_copy_.default:
            self.together += sum(one.untyped_storage().data_ptr() in self._places for one in args[1])
        return func(*args, **(kwargs or {}))


def in_bfloat16(method, architecture="bert", attention="sdpa"):
    model = with_heads(shaken(PEModel(backbone(architecture, attention), method))).float()
    model.autocast_dtype = torch.bfloat16
    return model


def without_copies(monkeypatch):
    for one, name in ((module, "narrow_for"), (task_groups, "narrow_once")):
        monkeypatch.setattr(one, name, lambda *_: nullcontext())


def adapted(model, architecture="bert", kind=PrimingLearner):
    """Values and losses after an inner loop, and the casts in it; the first inner loop tries what may be copied."""
    given, learner = model.placed(batch(architecture, 1)), kind(model, 0.1)
    learner.clone("en").adapt_to([given] * STEPS, "en")
    clone = learner.clone("en")
    with Casts(model) as casts:
        losses = clone.adapt_to([given] * STEPS, "en")
    return losses, clone.adapted_parameters(), casts


OTHERS = [pytest.param(name, marks=pytest.mark.long) for name in ("modernbert", "qwen3", "distilbert", "electra")]


@pytest.mark.parametrize("architecture", ["bert", "gpt2", "t5", *OTHERS])
def test_an_inner_loop_copies_theta_p_once(architecture, monkeypatch):
    model = in_bfloat16(LORA, architecture)
    losses, values, casts = adapted(model, architecture)
    assert casts.together >= 8  # four maps in each of two layers, and biases
    assert casts.alone == 0
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    without_copies(monkeypatch)
    others, expected, before = adapted(model, architecture)
    assert losses == others
    assert all(torch.equal(values[name], expected[name]) for name in expected)
    assert before.alone == STEPS * casts.together


SETTINGS = [{"batch_tasks": True}, {"inner_dropout": True}, {}, {"fresh_support": True}, {"padding": "packed"}]


@pytest.mark.parametrize("settings", SETTINGS[:2], ids=str)
def test_priming_is_the_same_to_the_bit(settings, monkeypatch):
    check_priming("lora", settings, monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_priming_of_every_method_is_the_same_to_the_bit(name, settings, monkeypatch):
    """DoRA looks at weights, which therefore stay as they are."""
    check_priming(name, settings, monkeypatch)


def check_priming(name, settings, monkeypatch):
    results = []
    for copies in (True, False):
        if not copies:
            without_copies(monkeypatch)
        model = tiny(METHODS[name][0], dropout=0.1).float()
        model.autocast_dtype = torch.bfloat16
        history = prime(model, TASKS, MetaPriming(**ALGORITHM, **settings), progress=False)
        results.append((history.losses, list(model.parameters())))
    assert results[0][0] == results[1][0]
    assert all(map(torch.equal, results[0][1], results[1][1]))


@pytest.mark.parametrize("together", [True, False])
def test_an_outer_step_copies_once_for_each_inner_loop_and_query_pass(together):
    model = in_bfloat16(LORA)
    algorithm = MetaPriming(**ALGORITHM, batch_tasks=together)
    episodes = algorithm.sampler(TASKS, 0)[0]
    algorithm.accumulate(model, episodes)
    with Casts(model) as casts:
        algorithm.accumulate(model, episodes)
    assert casts.alone == casts.together >= 24 * (1 if together else len(TASKS))


def test_a_query_pass_still_has_the_gradient_of_theta_p():
    model = in_bfloat16(LORA)
    given, clone = model.placed(batch("bert", 1)), PrimingLearner(model, 0.1).clone("en")
    clone.adapt_to([given] * STEPS, "en")
    clone.module.loss(given, "en").backward()
    reached = [name for name in model.partition().theta_p if model.get_parameter(name).grad is not None]
    assert len(reached) > 20


@pytest.mark.parametrize("case", ["float32", "second order", "checkpointed", "one step", "output adapter"])
def test_elsewhere_nothing_is_copied(case):
    model = in_bfloat16(ADAPTER if case == "output adapter" else LORA)
    if case == "float32":
        model.autocast_dtype = None
    if case == "checkpointed":
        model.checkpoint_layers()
    given = [model.placed(batch("bert", 1))] * (1 if case == "one step" else STEPS)
    learner = PrimingLearner(model, 0.1, first_order=case != "second order")
    with Casts(model) as casts:
        learner.clone("en").adapt_to(given, "en")
    assert casts.together == 0


def test_a_weight_that_a_pass_looks_at_is_not_copied():
    """By its values in float32 within a pass, or by its type, which only the comparison sees."""
    model = in_bfloat16(LORA)
    layers = model.backbone.encoder.layer
    look = layers[0].output.dense
    look.register_forward_hook(lambda part, _, output: output + part.weight.sum().to(output.dtype))
    *_, casts = adapted(model)
    assert casts.together > 10
    assert casts.alone == STEPS  # of this weight

    wide = layers[1].output.dense
    wide.register_forward_hook(lambda part, _, output: output * (2 if part.bias.dtype is torch.bfloat16 else 1))
    *_, casts = adapted(model)
    assert casts.together == 0


class Watching(PrimingLearner):
    def loss(self, batch, task):
        return super().loss(batch, task) + 0.1 * self.shared.backbone.encoder.layer[0].output.dense.weight.sum()


def test_a_loss_of_ones_own_may_look_at_a_weight(monkeypatch):
    losses, values, casts = adapted(in_bfloat16(LORA), kind=Watching)
    assert casts.together > 10
    assert casts.alone == STEPS
    without_copies(monkeypatch)
    others, expected, _ = adapted(in_bfloat16(LORA), kind=Watching)
    assert losses == others
    assert all(torch.equal(values[name], expected[name]) for name in expected)
