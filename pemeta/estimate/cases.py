"""Cases whose cost is estimated: a step of priming or of fine-tuning, and the changes that make it lighter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

from pemeta.data.sentences import Split
from pemeta.estimate.counter import Work
from pemeta.estimate.fake import Shape
from pemeta.estimate.findings import Memory, Passes, Step
from pemeta.estimate.steps import EVALUATED, evaluation_passes, finetuning_step, priming_step
from pemeta.estimate.tokens import Layout
from pemeta.methods.base import PEMethod
from pemeta.priming.algorithms import PrimingAlgorithm
from pemeta.training.finetuning_settings import FineTuning
from pemeta.training.hidden_state_cache import MEMORY
from pemeta.utils.digests import config_digest

FLOAT = 4
"""Bytes of a parameter or a gradient."""

RATES = ("lr", "outer_lr", "inner_lr", "weight_decay", "warmup_steps")
"""Keys that change results but not costs."""


@dataclass(frozen=True)
class PrimingCase:
    """One outer step of a setting's priming.

    Attributes:
        shape: sizes that the step depends on.
        method: the setting's method.
        algorithm: the setting's priming algorithm.
        tasks: number of source tasks that one process has in the step.
        sources: number of all source tasks; by default these.
    """

    shape: Shape
    method: PEMethod
    algorithm: PrimingAlgorithm
    tasks: int
    sources: int | None = None

    @property
    def key(self) -> str:
        """A key that cases of equal cost share."""
        algorithm = _without_rates(self.algorithm.to_config())
        return config_digest([self.method.to_config(), algorithm, self.tasks, self.sources])

    @cached_property
    def step(self) -> Step:
        """The step's cost, with validation as a phase: fine-tuning has moments of its own beside priming's."""
        step = _with_passing(self.runs, self._step)
        if self.validation is None:
            return step
        own, priming = self.validation.step.memory, step.memory
        held = replace(own, weights=priming.weights, optimizer=own.optimizer + priming.optimizer)
        return replace(step, phases={**step.phases, "validation": held})

    @cached_property
    def runs(self) -> Shape:
        """The shape with batches as they run in priming."""
        return self.shape.running(self.algorithm.padding, (self.method,))

    @property
    def examples(self) -> int:
        """Number of sentences of a task's largest batch."""
        outer = self.algorithm.examples_in_gradient
        return max(self.algorithm.support_size, min(outer, self.algorithm.micro_batch_size or outer))

    @property
    def layout(self) -> Layout:
        """What that batch consists of."""
        return self.runs.layout

    def _step(self, shape: Shape) -> Step:
        return priming_step(shape, self.method, self.algorithm, self.tasks, self.sources or self.tasks)

    @cached_property
    def validation(self) -> TuningCase | None:
        """The fine-tuning on a validation task; None without validation."""
        if self.algorithm.validate_every is None:
            return None
        methods = dict.fromkeys([self.method, self.algorithm.adapted_method or self.method])
        return TuningCase(self.shape, tuple(methods), self.algorithm.validation_finetuning)

    def lighter(self) -> Iterator[tuple[str, PrimingCase]]:
        """Possible changes, as keys of a configuration, and the case after each."""
        for words, shape in _lighter_shapes(self.shape):
            yield words, replace(self, shape=shape)
        for words, algorithm in self.algorithm.lighter():
            yield words, replace(self, algorithm=algorithm)


@dataclass(frozen=True)
class TuningCase:
    """One step of a setting's fine-tuning.

    Attributes:
        shape: sizes that the step depends on.
        methods: the attached methods; the first is the setting's.
        settings: settings of fine-tuning.
    """

    shape: Shape
    methods: tuple[PEMethod, ...]
    settings: FineTuning

    @property
    def key(self) -> str:
        """A key that cases of equal cost share."""
        methods = [method.to_config() for method in self.methods]
        return config_digest([methods, _without_rates(self.settings.model_dump(mode="json"))])

    @cached_property
    def step(self) -> Step:
        """The step's cost, with evaluation as a phase: it holds the optimiser's moments and the last gradients too."""
        step = _with_passing(self.runs, lambda shape: finetuning_step(shape, self.methods, self.settings))
        evaluation = replace(step.memory, activations=self.passes.held)
        return replace(step, phases={**step.phases, "evaluation": evaluation})

    @cached_property
    def passes(self) -> Passes:
        """The cost of passes outside of the steps."""
        return evaluation_passes(self.runs, self.methods, self.settings)

    @cached_property
    def runs(self) -> Shape:
        """The shape with batches as they run in fine-tuning."""
        return self.shape.running(self.settings.padding, self.methods)

    @property
    def examples(self) -> int:
        """Number of sentences of a training batch."""
        most = self.settings.max_tokens
        return self.settings.batch_size if most is None else self.runs.layout.examples(most)

    @property
    def layout(self) -> Layout:
        """What a training batch consists of; one whose hidden states are kept is padded."""
        found = self.runs.layout
        return replace(found, padding="padded") if self.passes.keeps_train else found

    def of_run(self, sizes: Mapping[Split, int], cost: Callable[[Work], float]) -> float:
        """The cost of a whole run: its steps, validation after each epoch, the test, and passes shared by all epochs.

        Args:
            sizes: number of sentences in each split.
            cost: the cost of some work.
        """
        passes, epochs = self.passes, self.settings.epochs
        kept = sizes["validation"] + sizes["train"] * passes.keeps_train
        once = cost(passes.below) * _batches(kept) + cost(passes.whole) * _batches(sizes["test"])
        validated = cost(passes.above) * epochs * _batches(sizes["validation"])
        return once + validated + cost(self.step.work) * self.steps(sizes)

    def steps(self, sizes: Mapping[Split, int]) -> int:
        """Number of steps of a run, given the number of sentences in each split."""
        return self.settings.epochs * -(-sizes["train"] // self.examples)

    def copies(self, sizes: Mapping[Split, int], streaming: bool) -> int:
        """Bytes outside the device: the values that runs start from, the best ones so far, and cached hidden states.

        Those of streamed data are in a file.
        """
        kept = self.passes.kept * (sizes["validation"] + sizes["train"] * self.passes.keeps_train)
        numbers = self.step.parameters
        return FLOAT * (numbers.whole + numbers.theta_a + numbers.theta_h) + (0 if streaming else min(kept, MEMORY))

    def lighter(self) -> Iterator[tuple[str, TuningCase]]:
        """Possible changes, as keys of a configuration, and the case after each."""
        for words, shape in _lighter_shapes(self.shape):
            yield words, replace(self, shape=shape)
        examples = self.settings.micro_batch_size or self.examples
        if examples > 1:
            smaller = self.settings.model_copy(update={"micro_batch_size": examples // 2})
            yield f"micro_batch_size: {examples // 2}", replace(self, settings=smaller)
        key = "batch_size" if self.settings.max_tokens is None else "max_tokens"
        half = (self.settings.batch_size if self.settings.max_tokens is None else self.settings.max_tokens) // 2
        if half:
            yield f"{key}: {half}", replace(self, settings=self.settings.model_copy(update={key: half}))


def _with_passing(shape: Shape, step: Callable[[Shape], Step]) -> Step:
    """A step, with what its checkpointed layers free and make again; that matters on a CPU (:class:`Memory`)."""
    found = step(shape)
    if not shape.checkpoint_layers or shape.gpu:
        return found
    whole = step(replace(shape, checkpoint_layers=False)).memory.activations
    phases = {
        name: replace(memory, passing=max(0, whole - memory.activations)) for name, memory in found.phases.items()
    }
    return replace(found, phases=phases)


def _batches(sentences: int) -> int:
    """Number of batches in which sentences are evaluated."""
    return -(-sentences // EVALUATED)


Case: TypeAlias = PrimingCase | TuningCase


@dataclass(frozen=True)
class Remedy:
    """A change of a configuration, and the memory of a step after it."""

    change: str
    memory: Memory


def remedies(case: Case) -> tuple[Remedy, ...]:
    """Changes that noticeably reduce a step's memory, the best first."""
    now = case.step.memory.total
    found = [Remedy(words, other.step.memory) for words, other in case.lighter()]
    return tuple(sorted((one for one in found if one.memory.total < 0.99 * now), key=lambda one: one.memory.total))


def _lighter_shapes(shape: Shape) -> Iterator[tuple[str, Shape]]:
    if not shape.checkpoint_layers:
        yield "checkpoint_layers: true", replace(shape, checkpoint_layers=True)
    if shape.precision in ("fp32", "tf32"):
        yield "precision: bf16", replace(shape, precision="bf16")
    if shape.length > 8:
        yield f"max_length: {shape.length // 2}", replace(shape, length=shape.length // 2)


def _without_rates(config: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in config.items() if key not in RATES}
