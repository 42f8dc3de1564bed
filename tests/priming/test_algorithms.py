"""Every algorithm, rule, order, objective and set that is primed, against an explicit unroll in float64."""

from __future__ import annotations

import copy
import itertools
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from algorithm_cases import OBJECTIVES, OTHERS, PE, RULES, SETS, SMALL, STEP, error_of_a_step
from tiny_models import METHODS, TASKS, tiny
from unroll import episodes, largest_error, model_of

from pemeta import (
    Adapter,
    BitFit,
    FineTunePriming,
    Full,
    HeadOnly,
    LoRA,
    MetaPriming,
    PEModel,
    PersistentPriming,
    ReptilePriming,
    prime,
)
from pemeta.errors import ConfigError, ModelError
from pemeta.priming.algorithms import OuterStep, PrimingAlgorithm
from pemeta.priming.algorithms.presets import PRESETS
from pemeta.priming.inner_rules import InnerRule
from pemeta.priming.job import PrimingJob
from pemeta.training.callbacks import Callback, TrainingState
from pemeta.utils.distributed import Processes
from pemeta.utils.modules import only_trainable
from pemeta.utils.neutral import without_neutral

FEW: dict[str, Any] = {"support_size": 2, "query_size": 2}


def agrees(algorithm: PrimingAlgorithm, method: str, model: PEModel | None = None) -> None:
    assert error_of_a_step(algorithm, model or model_of(PE[method], "bert"), "bert") < 1e-10


# With LoRA, which reaches into the layers; `make faults` has the adapter too.


@pytest.mark.parametrize("first_order", [True, False])
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_order_and_objective(rule: str, objective: str, first_order: bool) -> None:
    agrees(MetaPriming(**SMALL, **OBJECTIVES[objective], inner_rule=RULES[rule], first_order=first_order), "lora")


@pytest.mark.parametrize("first_order", [True, pytest.param(False, marks=pytest.mark.long)])  # the rules have it above
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("primed", SETS)
def test_every_set_and_objective(primed: str, objective: str, first_order: bool) -> None:
    agrees(MetaPriming(**SMALL, **OBJECTIVES[objective], **SETS[primed], first_order=first_order), "lora")


@pytest.mark.parametrize("name", OTHERS)
def test_every_algorithm(name: str) -> None:
    algorithm, method = OTHERS[name]
    agrees(algorithm, method)


def test_every_algorithm_and_rule_is_tested() -> None:
    tested = {type(algorithm) for algorithm, _ in OTHERS.values()}
    assert tested == set(PrimingAlgorithm.members().values())
    assert {rule["name"] for rule in RULES.values()} == set(InnerRule.members())
    assert {"anil", "maml", "fomaml", "multi_step_loss"} == set(PRESETS)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("method", ["head_only", "full", "prefix", "prompt", "compose"])
def test_every_algorithm_with_methods_of_every_kind(name: str, method: str) -> None:
    """Methods without θ_a, with θ_a in the embeddings, with all of it: one step, and nothing that is not finite."""
    algorithm = OTHERS[name][0].model_copy(update={"outer_steps": 1, "support_size": 2, "query_size": 2})
    if algorithm.name == "reptile":
        algorithm = algorithm.model_copy(update={"query_size": 0})
    model = tiny(METHODS[method][0])
    primes = algorithm.primes
    nothing = {
        "full": "theta_a" not in primes,
        "head_only": "theta_a" in primes and "theta_p" not in primes,
    }
    if algorithm.adapted_method is None and nothing.get(method):
        with pytest.raises(ConfigError, match="primes"):
            prime(model, TASKS, algorithm, progress=False)
        return
    history = prime(model, TASKS, algorithm, progress=False)
    assert len(history.losses) == 1
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert not any(".theta_a." in n for n, _ in model.named_parameters())


# Layers below θ_a that run once, checkpointed layers, lower precision

REUSING = {"output": Adapter(bottleneck=4), "top": LoRA(rank=2, top_layers=1)}


@pytest.mark.parametrize("first_order", [True, False])
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("method", REUSING)
@pytest.mark.parametrize("together", [True, False])
def test_hidden_states_are_reused_exactly(method: str, objective: str, first_order: bool, together: bool) -> None:
    model = model_of(REUSING[method], "bert")
    algorithm = MetaPriming(**SMALL, **OBJECTIVES[objective], first_order=first_order, batch_tasks=together)
    assert largest_error(model, algorithm, copy.deepcopy(model), episodes("bert"), 2) < 1e-10


@pytest.mark.parametrize("name", OTHERS)
def test_checkpointed_layers_change_nothing(name: str) -> None:
    algorithm, method = OTHERS[name]
    assert error_of_a_step(algorithm, model_of(PE[method], "bert"), "bert", checkpointed=True) < 1e-10


def test_all_losses_share_one_pass_below_theta_a() -> None:
    model = model_of(Adapter(bottleneck=4), "bert")
    passes = []
    model.backbone.register_forward_hook(lambda *_: passes.append(1))
    MetaPriming(**SMALL, outer_loss="mean").accumulate(model, episodes("bert"))
    assert len(passes) == 4  # support and query of two tasks


@pytest.mark.parametrize("name", OTHERS)
def test_in_bfloat16_it_is_close(name: str) -> None:
    algorithm, method = OTHERS[name]
    found = []
    for dtype in (None, torch.bfloat16):
        model = model_of(PE[method], "bert").float()
        algorithm.make_heads(model, TASKS, 0)
        algorithm.prepare(model, 0)
        model.autocast_dtype = dtype
        drawn = episodes("bert", 3 if getattr(algorithm, "fresh_support", False) else 1)
        algorithm.accumulate(model, drawn, OuterStep(STEP))
        found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert found[0].shape == found[1].shape
    assert torch.nn.functional.cosine_similarity(*found, dim=0) > 0.95


# What the algorithms are to each other


def gradients(algorithm: PrimingAlgorithm, drawn: Any, method: str = "lora", number: int = 0) -> dict[str, Any]:
    model = model_of(PE[method], "bert")
    algorithm.prepare(model, 0)
    algorithm.accumulate(model, drawn, OuterStep(number))
    parts = model.partition()
    return {n: model.get_parameter(n).grad for n in parts.theta_p + parts.theta_a}


def same(one: dict[str, Any], other: dict[str, Any], tolerance: float = 1e-12) -> bool:
    return all(
        (a is None) == (b is None) and (a is None or torch.allclose(a, b, rtol=0, atol=tolerance))
        for a, b in zip(one.values(), other.values(), strict=True)
    )


def test_relations_that_the_docs_state() -> None:
    drawn = episodes("bert")
    once = {**SMALL, "inner_steps": 1}
    plain = gradients(FineTunePriming(outer_dropout=False), drawn)
    # Hybrid: a plain step is one of fine-tuning.
    assert same(gradients(MetaPriming(**SMALL, hybrid=0.5), drawn, number=1), plain)
    # Persistent: while all θ_a are equal, θ_p's gradient is that of fine-tuning.
    model = model_of(PE["lora"], "bert")
    PersistentPriming().make_heads(model, TASKS, 0)
    PersistentPriming(outer_dropout=False).accumulate(model, drawn)
    own = {n: model.get_parameter(n).grad for n in model.partition().theta_p}
    assert same(own, {n: plain[n] for n in own})
    # Reptile with one step: the gradient on the support set.
    support = [type(e)(e.task, e.all_supports, e.support) for e in drawn]
    one = gradients(ReptilePriming(**once), drawn)
    assert same(one, gradients(FineTunePriming(outer_dropout=False, sentences="query"), support), 1e-9)
    # With one inner step all outer losses are the last.
    last = gradients(MetaPriming(**once), drawn)
    assert all(same(gradients(MetaPriming(**once, outer_loss=how), drawn), last) for how in ("mean", "annealed"))
    # The annealed loss begins as the mean and ends as the last.
    for number, how in ((0, "mean"), (9, "last"), (99, "last")):
        annealed = MetaPriming(**SMALL, outer_loss="annealed", annealing_steps=9)
        assert same(gradients(annealed, drawn, number=number), gradients(MetaPriming(**SMALL, outer_loss=how), drawn))
    # With θ_a alone in `primes` its gradient is what it is with θ_p.
    alone = gradients(MetaPriming(**SMALL, primes=("theta_a",)), drawn)
    both = gradients(MetaPriming(**SMALL), drawn)
    theta_a = model.partition().theta_a
    assert same({n: alone[n] for n in theta_a}, {n: both[n] for n in theta_a})


@pytest.mark.parametrize("first_order", [True, False])
def test_relations_of_a_small_inner_rate(first_order: bool) -> None:
    """As α goes to 0, meta's gradient is that of fine-tuning on the same sentences."""
    drawn = episodes("bert")
    for sentences in ("query", "both"):
        found = gradients(
            MetaPriming(**{**SMALL, "inner_lr": 1e-12}, sentences=sentences, first_order=first_order), drawn
        )
        assert same(found, gradients(FineTunePriming(outer_dropout=False, sentences=sentences), drawn), 1e-9)


def test_relations_of_reptile() -> None:
    """With SGD it is the sum of the inner gradients, of which first-order MAML on the support set takes the last."""
    drawn = [type(e)(e.task, e.all_supports, e.support) for e in episodes("bert")]
    fewer = {**SMALL, "inner_steps": SMALL["inner_steps"] - 1}
    whole, but_one = (gradients(ReptilePriming(**steps), drawn) for steps in (SMALL, fewer))
    last = gradients(PrimingAlgorithm.parse({"name": "fomaml", **fewer}), drawn)
    assert same(whole, {name: but_one[name] + last[name] for name in whole}, 1e-9)
    # Without an inner method of its own it moves what `meta` moves with `primes: [theta_a]`.
    own, meta = ReptilePriming(inner_method=None), MetaPriming(primes=("theta_a",))
    model = model_of(PE["lora"], "bert")
    assert own.trained(model) == meta.trained(model) == model.partition().theta_a


def test_relations_of_momentum() -> None:
    drawn, once = episodes("bert"), {**SMALL, "inner_steps": 1}
    assert same(
        gradients(MetaPriming(**once, inner_rule=RULES["momentum"]), drawn), gradients(MetaPriming(**once), drawn)
    )


@pytest.mark.parametrize(
    ("method", "tasks", "start"), [(LoRA(rank=2), TASKS[:1], "mean"), (HeadOnly(), TASKS, "fresh")]
)
def test_relations_of_persistent(method: Any, tasks: Any, start: Any) -> None:
    """With one task, or without θ_a, it is fine-tuning."""
    few: dict[str, Any] = {"outer_steps": 3, "outer_lr": 0.01, "support_size": 2, "query_size": 2}
    one, other = tiny(method), tiny(method)
    prime(one, tasks, PersistentPriming(**few, start=start), progress=False)
    prime(other, tasks, FineTunePriming(**few), progress=False)
    assert one.state().keys() == other.state().keys()
    for name, value in one.state().items():
        torch.testing.assert_close(value, other.state()[name], rtol=0, atol=1e-9)


def test_what_primes_omits_does_not_change_the_gradient_of_what_it_lists() -> None:
    drawn = episodes("bert")
    whole = gradients(MetaPriming(**SMALL), drawn)
    for primed in ("theta_p", "a layer"):
        algorithm = MetaPriming(**SMALL, **SETS[primed])
        listed = algorithm.trained(model_of(PE["lora"], "bert"))
        part = gradients(algorithm, drawn)
        assert same({n: part[n] for n in listed}, {n: whole[n] for n in listed})


@pytest.mark.parametrize(
    ("hybrid", "plain"), [(0.5, [1, 3, 5, 7, 9]), (0.3, [3, 6, 9]), (0.0, []), (0.9, range(1, 10))]
)
def test_plain_steps_are_spread_evenly(hybrid: float, plain: Any) -> None:
    algorithm = MetaPriming(hybrid=hybrid)
    assert [step for step in range(10) if algorithm.is_plain(step)] == list(plain)


@pytest.mark.parametrize("outer_loss", ["last", "mean", "annealed"])
def test_weights_of_losses_sum_to_one(outer_loss: str) -> None:
    for steps, number in itertools.product((1, 2, 5), (0, 3, 10, 50)):
        weights = MetaPriming(inner_steps=steps, outer_loss=outer_loss, outer_steps=20).loss_weights(number)
        assert len(weights) == steps
        assert sum(weights) == pytest.approx(1)
        assert min(weights) >= 0


# Moments of the outer optimiser


@pytest.mark.parametrize("first_order", [True, False])
def test_moments_start_from_the_outer_optimisers(first_order: bool) -> None:
    """One inner step is then a step of the outer AdamW's own rule, from its state; the second goes on from there."""
    rule = {"name": "adam", "moments": "outer"}
    model = model_of(PE["lora"], "bert")
    names = model.partition().theta_a
    outer = torch.optim.AdamW([model.get_parameter(n) for n in names], lr=0.01, weight_decay=0)
    for seed in range(3):
        outer.zero_grad()
        model.loss(episodes("bert", 3)[0].all_supports[seed], "en").backward()
        outer.step()
    outer.zero_grad()
    learner = MetaPriming(**SMALL, inner_rule=rule, first_order=first_order).make_learner(
        model, OuterStep(3, 1.0, outer)
    )
    clone, other = learner.clone("en"), learner.clone("en")
    state, before = copy.deepcopy(outer.state_dict()), str(outer.state_dict())
    plain = copy.deepcopy(model)
    same_optimizer = torch.optim.AdamW([plain.get_parameter(n) for n in names], lr=0.05, weight_decay=0)
    same_optimizer.load_state_dict({**state, "param_groups": same_optimizer.state_dict()["param_groups"]})
    head = torch.optim.Adam([plain.get_parameter(n) for n in plain.head_names("en")], lr=0.05)
    for _ in range(2):
        data = episodes("bert")[0].support
        clone.adapt(clone.loss(data, "en"))
        for optimizer in (same_optimizer, head):
            optimizer.zero_grad()
        plain.loss(data, "en").backward()
        for optimizer in (same_optimizer, head):
            optimizer.step()
    for name, value in clone.adapted_parameters().items():
        torch.testing.assert_close(value.detach(), plain.get_parameter(name).detach(), rtol=0, atol=1e-10)
    assert str(outer.state_dict()) == before  # nothing of it has changed
    assert all(torch.equal(v, model.get_parameter(n)) for n, v in other.adapted_parameters().items())


# Sets that are primed


def test_the_order_of_primes_has_no_meaning() -> None:
    one, other = MetaPriming(primes=("theta_h", "theta_a", "theta_p")), MetaPriming(primes=SETS["all"]["primes"])
    assert one == other
    assert without_neutral(MetaPriming(primes=("theta_a", "theta_p"))) == without_neutral(MetaPriming())
    parts = [MetaPriming(primes=primes) for primes in (("b.*", "a.*", "theta_a"), ("theta_a", "a.*", "b.*"))]
    assert parts[0] == parts[1] != one


def test_what_is_not_primed_keeps_its_values_and_has_no_optimiser_state() -> None:
    model = tiny(LoRA(rank=2))
    model.requires_grad_(False)
    for name in model.partition().theta_a:
        model.get_parameter(name).requires_grad_(True)
    before = model.state(model.partition().theta_p)
    algorithm = MetaPriming(outer_steps=2, outer_lr=0.01, primes=("theta_a",), support_size=2, query_size=2)
    prime(model, TASKS, algorithm, progress=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state(tuple(before)).items())
    assert algorithm.trained(model) == model.partition().theta_a


def test_what_priming_should_move_must_not_be_frozen() -> None:
    model = tiny(LoRA(rank=2))
    model.get_parameter("backbone.encoder.layer.0.output.dense.weight").requires_grad_(False)
    algorithm = MetaPriming(outer_steps=1, support_size=2, query_size=2)
    with pytest.raises(
        ModelError,
        match=r"moves backbone\.encoder\.layer\.0\.output\.dense\.weight, but it is frozen; call requires_grad_",
    ):
        prime(model, TASKS, algorithm, progress=False)
    prime(model, TASKS, algorithm.model_copy(update={"primes": ("theta_a",)}), progress=False)


def test_the_heads_start_is_primed_and_stays_the_start() -> None:
    algorithm = MetaPriming(
        outer_steps=30,
        outer_lr=0.02,
        inner_steps=1,
        inner_lr=0.1,
        primes=("theta_p", "theta_h"),
        support_size=4,
        query_size=4,
        outer_dropout=False,
    )
    model = tiny(HeadOnly(), dropout=0.0)
    history = prime(model, TASKS, algorithm, progress=False)
    assert (
        history.losses[-1].inner[0] < history.losses[0].inner[0]
    )  # the start has learned, with no adapted value in it


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_interpolation_between_the_values_before_and_after(share: float) -> None:
    few: dict[str, Any] = {"outer_steps": 3, "outer_lr": 0.01, "support_size": 2, "query_size": 2}
    whole, mixed = tiny(LoRA(rank=2)), tiny(LoRA(rank=2))
    before = whole.state()
    prime(whole, TASKS, MetaPriming(**few), progress=False)
    prime(mixed, TASKS, MetaPriming(**few, interpolate=share), progress=False)
    theta_p = set(whole.partition().theta_p)
    for name, after in whole.state().items():
        if name in before:
            expected = (1 - share) * before[name] + share * after if name in theta_p else after
            torch.testing.assert_close(mixed.state()[name], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("method", "algorithm"),
    [
        (Full(), MetaPriming(interpolate=0.5, support_size=2, query_size=2)),
        (LoRA(rank=2), FineTunePriming(interpolate=0.5, primes=("theta_a",), support_size=2, query_size=2)),
    ],
)
def test_interpolation_of_what_does_not_move_is_refused(method: Any, algorithm: PrimingAlgorithm) -> None:
    with pytest.raises(
        ConfigError, match=r"interpolate: 0\.5 is between values of θ_p, but priming moves nothing of θ_p"
    ):
        prime(tiny(method), TASKS, algorithm, progress=False)


# Heads that tasks share


def test_shared_heads_are_one_head_that_all_tasks_move() -> None:
    model = tiny(LoRA(rank=2))
    algorithm = MetaPriming(
        outer_steps=2,
        outer_lr=0.01,
        primes=("theta_p", "theta_a", "theta_h"),
        source_heads="shared",
        support_size=2,
        query_size=2,
    )
    prime(model, TASKS, algorithm, progress=False)
    assert model.tasks == ("en", "es")
    assert model.head("en") is model.head("es")
    assert model.head_names("es") == model.head_names("en")
    assert len([name for name, _ in model.named_parameters() if name.startswith("heads.")]) == 2
    model.drop_head("en")  # the other one keeps it
    assert model.tasks == ("es",)
    assert model.head_spec("es").labels == TASKS[1].train.outputs
    model.drop_head("es")
    assert model.tasks == ()


def test_a_shared_head_cannot_be_given_to_its_task_alone_again() -> None:
    model = tiny()
    model.add_head("en", TASKS[0].make_head)
    model.share_head("es", "en")
    head = model.head("en")
    with pytest.raises(ModelError, match="the head of task 'en' shares a parameter with the backbone or another head"):
        model.add_head("en", lambda width: head)
    assert model.head("es") is model.head("en") is head
    model.drop_head("es")
    model.add_head("en", lambda width: head)  # no other task has it any more
    with pytest.raises(ModelError, match="a task needs a name"):
        model.share_head("", "en")


def test_persistent_priming_needs_a_head_for_each_task() -> None:
    """Tasks with one head would have one θ_a too."""
    model = tiny(LoRA(rank=2))
    for task in TASKS:
        model.add_head(task.name, task.make_head)
    model.share_head("es", "en")
    algorithm = PersistentPriming(outer_steps=1, support_size=2, query_size=2)
    with pytest.raises(ConfigError, match=r"'es' uses that of 'en'; remove it with drop_head\('es'\) before"):
        prime(model, TASKS, algorithm, progress=False)
    model.drop_head("es")
    prime(model, TASKS, algorithm, progress=False)
    assert model.head("es") is not model.head("en")


def test_persistent_priming_needs_a_model_that_computes_with_a_tasks_values() -> None:
    model = tiny(LoRA(rank=2))
    layer = model.backbone.encoder.layer[0]
    layer.forward = layer.forward  # what accelerate's hooks do
    with pytest.raises(ModelError, match=r"encoder\.layer\.0 has a forward of its own"):
        prime(model, TASKS, PersistentPriming(**FEW), progress=False)


def test_gradients_of_a_shared_head_equal_the_unroll() -> None:
    algorithm = MetaPriming(**SMALL, primes=("theta_p", "theta_a", "theta_h"), source_heads="shared", first_order=False)
    model = model_of(PE["lora"], "bert")
    model.share_head("es", "en")
    agrees(algorithm, "lora", model=model)


def test_tasks_with_different_labels_share_no_head() -> None:
    from pemeta import Task
    from pemeta.heads import TokenClassification

    other = Task("ru", TASKS[1].train, TokenClassification(labels=("O", "B-X", "I-X")))
    algorithm = MetaPriming(primes=("theta_a", "theta_h"), source_heads="shared", support_size=2, query_size=2)
    with pytest.raises(
        ConfigError, match="shared needs tasks with equal labels, but all of en, ru have different ones"
    ):
        prime(tiny(), [TASKS[0], other], algorithm, progress=False)


class Interrupt(Callback):
    """Ctrl-C after the first step."""

    def on_step(self, state: TrainingState) -> None:
        raise KeyboardInterrupt


# Resume

RESUMED: dict[str, PrimingAlgorithm] = {
    **{name: algorithm for name, (algorithm, _) in OTHERS.items()},
    "moments of the outer optimiser": MetaPriming(**SMALL, inner_rule={"name": "adam", "moments": "outer"}),
    "hybrid": MetaPriming(**SMALL, hybrid=0.5),
    "a shared head": MetaPriming(**SMALL, primes=("theta_p", "theta_a", "theta_h"), source_heads="shared"),
    "persistent, mean": PersistentPriming(start="mean"),
    "interpolated": FineTunePriming(interpolate=0.5),
}


class Signal(Callback):
    """Ctrl-C in the second step."""

    def on_step(self, state: TrainingState) -> None:
        if state.step == 2:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("name", RESUMED)
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(name: str, tmp_path: Path) -> None:
    sizes = {"outer_steps": 4, "outer_lr": 0.01, "support_size": 2, "query_size": 2, "outer_dropout": True}
    algorithm = RESUMED[name].model_copy(update=sizes)
    if algorithm.name == "reptile":
        algorithm = algorithm.model_copy(update={"query_size": 0})
    whole, parts, path = tiny(LoRA(rank=2)), tiny(LoRA(rank=2)), tmp_path / "checkpoint.safetensors"
    history = prime(whole, TASKS, algorithm, seed=3, progress=False)
    with pytest.raises(KeyboardInterrupt, match="priming stopped after step 2 of 4"):
        prime(parts, TASKS, algorithm, seed=3, progress=False, checkpoint=path, callbacks=[Signal()])
    torch.rand(100)  # whatever else happens between the two
    parts = tiny(LoRA(rank=2))
    again = prime(parts, TASKS, algorithm, seed=3, progress=False, checkpoint=path)
    assert again.losses == history.losses
    for (parameter, a), b in zip(whole.named_parameters(), parts.parameters(), strict=True):
        assert torch.equal(a, b), parameter


# θ_a of each task's own


@pytest.mark.parametrize("method", [LoRA(rank=2), BitFit()])
def test_what_fine_tuning_starts_from_after_persistent_priming(method: Any) -> None:
    few: dict[str, Any] = {"outer_steps": 3, "outer_lr": 0.01, "support_size": 2, "query_size": 2}
    fresh, mean = tiny(method), tiny(method)
    start = fresh.state(fresh.partition().theta_a)
    prime(fresh, TASKS, PersistentPriming(**few), progress=False)
    assert all(torch.equal(value, start[name]) for name, value in fresh.state(tuple(start)).items())
    kept: list[Any] = []
    original = PersistentPriming.conclude

    class Watched(PersistentPriming):
        def conclude(self, model: PEModel) -> None:
            original(self, model)
            kept.append([[p.detach().clone() for p in model.head(task.name).theta_a] for task in TASKS])

    try:
        prime(mean, TASKS, Watched(**few, start="mean"), progress=False)
    finally:
        PrimingAlgorithm._members["persistent"] = PersistentPriming
    (tasks,) = kept
    for name, one, other in zip(start, *tasks, strict=True):
        torch.testing.assert_close(mean.get_parameter(name).detach(), (one + other) / 2, rtol=0, atol=1e-12)
    assert any(not torch.equal(one, other) for one, other in zip(*tasks, strict=True))


@pytest.mark.parametrize(
    ("algorithm", "copied"),
    [
        (MetaPriming(**FEW), True),
        (MetaPriming(**FEW, primes=("theta_p", "theta_h")), False),
        (FineTunePriming(**FEW), False),
        (PersistentPriming(**FEW), False),
    ],
)
def test_only_heads_that_steps_assign_are_copied_before_each(algorithm: PrimingAlgorithm, copied: bool) -> None:
    """What the optimiser moves is as it was if a step fails, which for persistent priming may be several models."""
    model = tiny(LoRA(rank=2))
    algorithm.make_heads(model, TASKS, 0)
    with only_trainable(model, algorithm.trained(model)) as trained:
        job = PrimingJob(model, algorithm.sampler(TASKS, 0), algorithm, 0, trained.values(), None, Processes())
        assert set(job.before_step()) == (set(model.partition().theta_h) if copied else set())


def test_own_theta_a_is_removed_however_priming_ends() -> None:
    model = tiny()
    with pytest.raises(KeyboardInterrupt):
        prime(model, TASKS, PersistentPriming(outer_steps=2, support_size=2, query_size=2), callbacks=[Interrupt()])
    assert not any(".theta_a." in name for name, _ in model.named_parameters())


# Bad input


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"name": "meta", "primes": []}, "primes: .* at least 1 item"),
        ({"name": "meta", "primes": ["theta_q"]}, "unknown set of parameters 'theta_q'; did you mean 'theta_p'"),
        ({"name": "meta", "primes": ["theta_a", "theta_a"]}, "duplicate value in"),
        ({"name": "meta", "primes": ["theta_p", "*.11.*"]}, r"'\*\.11\.\*' is a part of theta_p, which is listed too"),
        (
            {"name": "meta", "primes": ["theta_h"], "source_heads": "fresh"},
            "source_heads: fresh gives each episode a new",
        ),
        ({"name": "meta", "source_heads": "shared"}, "shared needs the outer gradient, .*; add theta_h to primes"),
        (
            {"name": "meta", "primes": ["theta_p"], "inner_rule": {"name": "adam", "moments": "outer"}},
            "moments: outer needs parameters that the inner loop and the outer optimiser both move; add theta_a",
        ),
        ({"name": "meta", "hybrid": 0.5, "source_heads": "zero"}, "hybrid needs heads that have learned"),
        ({"name": "meta", "hybrid": 1}, "hybrid: input should be less than 1"),
        ({"name": "meta", "annealing_steps": 4}, "annealing_steps needs outer_loss: annealed; found outer_loss: last"),
        ({"name": "meta", "query_size": 0}, "query_size is 0, but the outer loss is that of the query set"),
        ({"name": "finetune", "query_size": 0, "sentences": "query"}, "query_size is 0, but the outer loss"),
        ({"name": "persistent", "query_size": 0, "sentences": "query"}, "query_size is 0, but the outer loss"),
        ({"name": "reptile", "query_size": 4}, "query_size: reptile has no outer loss, and so no query set; found 4"),
        ({"name": "reptile", "outer_loss": "mean"}, "outer_loss: unknown key 'outer_loss'"),
        ({"name": "meta", "interpolate": 1.5}, "interpolate: input should be less than or equal to 1"),
        ({"name": "persistent", "primes": ["theta_a"]}, "start: fresh keeps nothing of the tasks' θ_a"),
        ({"name": "persistent", "start": "zero"}, "start: input should be 'fresh' or 'mean'"),
        ({"name": "meta", "inner_rule": {"name": "sgd", "moments": "outer"}}, "moments: unknown key 'moments'"),
        ("reptil", "unknown priming algorithm 'reptil'; did you mean 'reptile'.*anil, .*fomaml, .*maml, meta"),
    ],
)
def test_settings_that_there_are_not(given: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        PrimingAlgorithm.parse(given)


@pytest.mark.parametrize("name", ["meta", "finetune", "persistent"])
def test_a_query_set_may_be_empty_where_none_is_needed(name: str) -> None:
    algorithm = PrimingAlgorithm.parse(
        {"name": name, "sentences": "both", "query_size": 0, "support_size": 4, "outer_steps": 1}
    )
    assert len(prime(tiny(), TASKS, algorithm, progress=False).losses) == 1


@pytest.mark.parametrize(
    ("method", "settings", "says"),
    [
        (HeadOnly(), {"primes": ("theta_a",)}, "primes lists theta_a, but the inner loop's method leaves θ_a empty"),
        (LoRA(), {"primes": ("theta_p",), "inner_method": "full"}, "primes lists theta_p, but .* leaves θ_p empty"),
        (LoRA(), {"primes": ("encoder.layers.*",)}, r"pattern 'encoder\.layers\.\*' matches no parameter of θ_p"),
        (
            LoRA(),
            {"name": "reptile", "inner_method": None, "primes": ("theta_p", "theta_a")},
            "reptile moves only what",
        ),
    ],
)
def test_sets_that_a_model_does_not_have(method: Any, settings: dict[str, Any], says: str) -> None:
    algorithm = PrimingAlgorithm.parse(
        {"name": "meta", "support_size": 2, "query_size": 0 if settings.get("name") == "reptile" else 2, **settings}
    )
    with pytest.raises(ConfigError, match=says):
        prime(tiny(method), TASKS, algorithm, progress=False)


# Presets


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_its_algorithms_full_values(name: str) -> None:
    algorithm = PrimingAlgorithm.parse({"name": name, "inner_steps": 7})
    assert algorithm.to_config() == {**MetaPriming().to_config(), **PRESETS[name], "inner_steps": 7} | {
        key: algorithm.to_config()[key] for key in ("inner_method", "name")
    }
    assert PrimingAlgorithm.parse(algorithm.to_config()) == algorithm
    assert MetaPriming.parse({"name": "maml", "first_order": True}) == MetaPriming.parse("fomaml")


# Cost


@pytest.mark.parametrize("name", OTHERS)
def test_the_number_of_passes_is_what_is_said(name: str) -> None:
    algorithm, _ = OTHERS[name]
    if algorithm.micro_batch_size or (algorithm.name == "meta" and algorithm.batch_tasks):
        pytest.skip("splits, or joins, the tasks' batches")
    model = model_of(PE["lora"], "bert")
    algorithm.make_heads(model, TASKS, 0)
    algorithm.prepare(model, 0)
    passes: list[int] = []
    model.backbone.register_forward_hook(lambda *_: passes.append(1))
    drawn = episodes("bert", 3 if getattr(algorithm, "fresh_support", False) else 1)
    algorithm.accumulate(model, drawn, OuterStep(2))
    reused = {"anil", "head_only"} & {name}  # its inner method reaches no layer
    assert len(passes) == 2 * (2 if reused else algorithm.passes)
