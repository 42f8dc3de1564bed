"""What a run's stages are to the calculator: a step and the ways to make it lighter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

from pemeta.data.sentences import Split
from pemeta.estimate.fake import Shape
from pemeta.estimate.findings import Memory, Passes, Step
from pemeta.estimate.steps import EVALUATED, evaluation_passes, finetuning_step, priming_step
from pemeta.estimate.tracker import Work
from pemeta.methods.base import PEMethod
from pemeta.priming.algorithms import PrimingAlgorithm
from pemeta.training.finetuning_settings import FineTuning
from pemeta.training.hidden_state_cache import MEMORY
from pemeta.utils.digests import config_digest

FLOAT = 4
"""Bytes of a parameter or a gradient."""

RATES = ("lr", "outer_lr", "inner_lr", "weight_decay", "warmup_steps")
"""Keys that change what comes out, and not what it takes."""


@dataclass(frozen=True)
class PrimingCase:
    """One outer step of a setting's priming.

    Attributes:
        shape: of the run.
        method: of the setting.
        algorithm: of the setting.
        tasks: source tasks that one process has in it.
    """

    shape: Shape
    method: PEMethod
    algorithm: PrimingAlgorithm
    tasks: int

    @property
    def key(self) -> str:
        """The same for cases that cost the same."""
        return config_digest([self.method.to_config(), _without_rates(self.algorithm.to_config()), self.tasks])

    @cached_property
    def step(self) -> Step:
        """The step."""
        return priming_step(self.shape, self.method, self.algorithm, self.tasks)

    def lighter(self) -> Iterator[tuple[str, PrimingCase]]:
        """What could be changed, as keys of a configuration, and what then is to be done."""
        for words, shape in _lighter(self.shape):
            yield words, replace(self, shape=shape)
        for words, algorithm in self.algorithm.lighter():
            yield words, replace(self, algorithm=algorithm)


@dataclass(frozen=True)
class TuningCase:
    """One step of a setting's fine-tuning.

    Attributes:
        shape: of the run.
        methods: that are attached; the first is the setting's.
        settings: of fine-tuning.
    """

    shape: Shape
    methods: tuple[PEMethod, ...]
    settings: FineTuning

    @property
    def key(self) -> str:
        """The same for cases that cost the same."""
        methods = [method.to_config() for method in self.methods]
        return config_digest([methods, _without_rates(self.settings.model_dump(mode="json"))])

    @cached_property
    def step(self) -> Step:
        """The step, with evaluation as a phase: the optimiser's moments and the last gradients are there meanwhile."""
        step = finetuning_step(self.shape, self.methods, self.settings)
        evaluation = replace(step.memory, activations=self.passes.held)
        return replace(step, phases={**step.phases, "evaluation": evaluation})

    @cached_property
    def passes(self) -> Passes:
        """What is done beside the steps."""
        return evaluation_passes(self.shape, self.methods, self.settings)

    def of_cell(self, sizes: Mapping[Split, int], cost: Callable[[Work], float]) -> float:
        """What a cell costs: its steps, validation after each epoch, the test, and what is run once for all epochs.

        Args:
            sizes: sentences in each split.
            cost: of some work.
        """
        passes, epochs = self.passes, self.settings.epochs
        kept = sizes["validation"] + sizes["train"] * passes.keeps_train
        once = cost(passes.below) * _batches(kept) + cost(passes.whole) * _batches(sizes["test"])
        validated = cost(passes.above) * epochs * _batches(sizes["validation"])
        return once + validated + cost(self.step.work) * self.steps(sizes)

    def steps(self, sizes: Mapping[Split, int]) -> int:
        """Of a cell with so many sentences."""
        return self.settings.epochs * self.settings.steps_per_epoch(sizes["train"])

    def copies(self, sizes: Mapping[Split, int]) -> int:
        """Bytes beside the device's: values that cells start from, the best ones so far, and kept hidden states."""
        kept = self.passes.kept * (sizes["validation"] + sizes["train"] * self.passes.keeps_train)
        numbers = self.step.parameters
        return FLOAT * (numbers.whole + numbers.theta_a + numbers.theta_h) + min(kept, MEMORY)

    def lighter(self) -> Iterator[tuple[str, TuningCase]]:
        """What could be changed, as keys of a configuration, and what then is to be done."""
        for words, shape in _lighter(self.shape):
            yield words, replace(self, shape=shape)
        half = self.settings.batch_size // 2
        if half:
            yield f"batch_size: {half}", replace(self, settings=self.settings.model_copy(update={"batch_size": half}))


def _batches(sentences: int) -> int:
    """In which they are evaluated."""
    return -(-sentences // EVALUATED)


Case: TypeAlias = PrimingCase | TuningCase


@dataclass(frozen=True)
class Remedy:
    """A change of a configuration, and what a step holds with it."""

    change: str
    memory: Memory


def remedies(case: Case) -> tuple[Remedy, ...]:
    """Every change that makes a step hold less, the best first."""
    now = case.step.memory.total
    found = [Remedy(words, other.step.memory) for words, other in case.lighter()]
    return tuple(sorted((one for one in found if one.memory.total < 0.99 * now), key=lambda one: one.memory.total))


def _lighter(shape: Shape) -> Iterator[tuple[str, Shape]]:
    if not shape.checkpoint_layers:
        yield "checkpoint_layers: true", replace(shape, checkpoint_layers=True)
    if shape.precision == "fp32":
        yield "precision: bf16", replace(shape, precision="bf16")
    if shape.length > 8:
        yield f"max_length: {shape.length // 2}", replace(shape, length=shape.length // 2)


def _without_rates(config: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in config.items() if key not in RATES}
