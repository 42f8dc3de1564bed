"""The phases of an outer step: an algorithm marks those that it declares, and `pemeta plan` lists them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import TASKS, tiny, with_heads

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "plan"))

import check
from check import Case

from pemeta.estimate.fake import Shape, fake_tensors
from pemeta.estimate.monitor import StepMonitor
from pemeta.methods import PEMethod
from pemeta.priming.algorithms import (
    FineTunePriming,
    MetaPriming,
    PhaseMemory,
    PrimingAlgorithm,
)
from pemeta.tasks.episodes import EpisodeSampler
from pemeta.utils.modules import only_trainable
from pemeta.utils.phases import observed, phase

ROOT = Path(__file__).parents[2]
SMALL = Case("tiny", sentences=4, length=16, inner_steps=2)
FEW = {"support_size": 3, "query_size": 4}
META = ["support passes below θ_a", "query passes below θ_a", "inner loop", "query pass"]
ALGORITHMS: dict[str, PrimingAlgorithm] = {
    "first order": MetaPriming(**FEW, inner_steps=2),
    "second order": MetaPriming(**FEW, inner_steps=2, first_order=False),
    "tasks as one batch": MetaPriming(**FEW, inner_steps=2, batch_tasks=True),
    "every loss": MetaPriming(**FEW, inner_steps=2, outer_loss="mean"),
    "fine-tuning": FineTunePriming(**FEW),
}
# The defaults of every algorithm that there is.
ALGORITHMS |= {name: kind(support_size=3) for name, kind in PrimingAlgorithm.members().items()}


def step(algorithm: PrimingAlgorithm, method: str) -> list[str]:
    """Names of the phases of a step on two tasks, in the order in which they begin."""
    seen: list[str] = []

    @contextmanager
    def observer(name: str) -> Iterator[None]:
        seen.append(name)
        yield

    model = with_heads(tiny(PEMethod.parse(check.METHODS[method])))
    algorithm.prepare(model, 0)
    algorithm.make_heads(model, TASKS[:2], 0)
    sampler = EpisodeSampler(TASKS[:2], algorithm.support_size, min(algorithm.query_size, 4))
    with only_trainable(model, algorithm.trained(model)), observed(observer):
        algorithm.accumulate(model, sampler[0])
    return seen


@pytest.mark.parametrize("method", ["adapter", "lora"])
@pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS)
def test_an_algorithm_marks_the_phases_that_it_declares(algorithm: PrimingAlgorithm, method: str) -> None:
    assert set(step(algorithm, method)) == set(algorithm.phases) > set()


def test_phases_follow_one_another_as_the_algorithm_does() -> None:
    below, above, last = META[:2], META[2:], ["backward pass below θ_a"]

    assert step(ALGORITHMS["first order"], "adapter") == (below + above + last) * 2
    assert step(ALGORITHMS["tasks as one batch"], "adapter") == below + above + last
    assert step(ALGORITHMS["fine-tuning"], "adapter") == ["forward and backward pass"] * 2


@pytest.mark.parametrize("method", ["adapter", "lora"])
@pytest.mark.parametrize("changed", [{}, {"order": "second"}, {"batch_tasks": True}], ids=str)
def test_the_estimate_lists_every_phase_of_meta_learning(method: str, changed: dict[str, Any]) -> None:
    phases = replace(SMALL, method=method, **changed).priced.step.phases

    assert list(phases) == ["passes and gradients", *META, "optimiser's step"]


def test_the_estimate_of_priming_by_fine_tuning_has_one_phase_before_the_optimiser() -> None:
    assert list(replace(SMALL, order="plain").priced.step.phases) == ["passes and gradients", "optimiser's step"]


def test_kept_states_and_the_clone_are_those_of_the_phases_that_have_them() -> None:
    step = replace(SMALL, method="adapter").priced.step
    sentences = 3 * 4 * 16 * 8  # names, sentences, tokens, bytes of an integer
    states = 4 * 16 * 64 * 4  # sentences, tokens, hidden size, bytes of a number
    mask = 4 * 16 * 16 * (1 + 4)  # sentences, tokens, tokens; a boolean each, and the number that is added for it

    for name, memory in step.phases.items():
        inside = name in ("inner loop", "query pass")
        assert memory.clone == (4 * (step.parameters.theta_a + step.parameters.theta_h) if inside else 0)
        assert memory.kept == (sentences + states + mask if inside else 0)


def test_a_phase_that_is_not_declared_is_listed_without_a_clone() -> None:
    shape = Shape(SMALL.configuration, 16)
    model = shape.model([PEMethod.parse("adapter")], [shape.task("a")])

    declared = {"hidden": PhaseMemory(listed=False), "with a clone": PhaseMemory(cloned=True)}
    names = model.partition().theta_a
    with fake_tensors(model), StepMonitor(model, names, False, names, declared) as monitor, observed(monitor.observe):
        monitor.counter.begin()
        for name in ("hidden", "with a clone", "new"):
            with phase(name):
                torch.zeros(10**6)
        found = monitor.memory()

    assert list(found) == ["with a clone", "new"]
    assert (found["with a clone"].clone > 0, found["new"].clone) == (True, 0)
    assert found["new"].activations >= 4 * 10**6


def test_the_profiler_sees_the_phases_of_a_step() -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        step(ALGORITHMS["second order"], "adapter")
    ranges = [event.name for event in profiler.events() if event.name.startswith("pemeta: ")]

    assert set(ranges) == {f"pemeta: {name}" for name in MetaPriming.phases}
    assert ranges.count("pemeta: inner loop") == 2  # one for each task


def test_the_docs_list_every_phase() -> None:
    text = (ROOT / "docs" / "concepts" / "speed.md").read_text(encoding="utf-8")
    table = text.split("| range | work |")[1].split("\n\n")[0]

    declared = {name for algorithm in PrimingAlgorithm.members().values() for name in algorithm.phases}
    assert sorted(re.findall(r"^\| `(.*?)` \|", table, flags=re.MULTILINE)) == sorted(declared)


def test_what_makes_a_step_lighter_is_what_the_algorithm_declares() -> None:
    heavy = MetaPriming(**FEW, first_order=False, batch_tasks=True)
    smaller = "support_size: 1 and query_size: 2"
    found = dict(heavy.lighter())

    assert found == {
        "batch_tasks: false": heavy.model_copy(update={"batch_tasks": False}),
        "first_order: true": heavy.model_copy(update={"first_order": True}),
        smaller: heavy.model_copy(update={"support_size": 1, "query_size": 2}),
        **{words: way for words, way in found.items() if words.startswith("micro_batch_size")},
    }
    assert [words for words, _ in FineTunePriming(**FEW).lighter()] == [smaller, "micro_batch_size: 3"]
    assert [words for words, _ in FineTunePriming(support_size=1, query_size=1).lighter()] == ["micro_batch_size: 1"]


@pytest.mark.parametrize("source_heads", ["fresh", "zero"])
def test_heads_that_would_be_redrawn_stay(source_heads: Any) -> None:
    assert MetaPriming(**FEW, source_heads=source_heads).with_carried_heads() == MetaPriming(**FEW)
    assert FineTunePriming(**FEW).with_carried_heads() == FineTunePriming(**FEW)
