"""The training loop's extension point: a callback, and the state that its events hand it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["running", "finished", "stopped early", "interrupted", "failed"]


@dataclass(frozen=True)
class StepReport:
    """One step of the optimiser.

    Attributes:
        number: The step, counted from 1.
        losses: Losses by name: ``outer`` and ``inner/1`` to ``inner/S`` (before each inner step) in priming, ``train``
            in fine-tuning; empty if the step was skipped.
        learning_rate: The rate that the step was taken with.
        gradient_norm: Norm of the gradient before clipping; None if the step was skipped.
        seconds: Wall time of the step.
        examples: Examples that were seen, in all processes.
        tokens: Their tokens, without padding.
        memory: Peak bytes: of PyTorch's allocator on CUDA, of the whole process elsewhere; 0 if unknown.
        phases: Seconds in each phase that the algorithm marks (:func:`pemeta.utils.phases.phase`).
        skipped: Why the step was skipped (``not_finite: skip``); None if it was taken.
    """

    number: int
    losses: Mapping[str, float]
    learning_rate: float
    gradient_norm: float | None
    seconds: float
    examples: int
    tokens: int
    memory: int
    phases: Mapping[str, float] = field(default_factory=dict)
    skipped: str | None = None

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second of the step, without padding."""
        return self.tokens / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Validation:
    """One validation.

    Attributes:
        step: Steps that were done before it.
        score: The main score, higher being better.
        summary: The metric's name and value, as the progress bar shows them.
        values: Every metric by name, such as ``f1``; in priming the main score of each validation task.
    """

    step: int
    score: float
    summary: str = ""
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass
class TrainingState:
    """A training run as its callbacks see it; only the loop, its job and :class:`Checkpointer` write to it.

    Attributes:
        kind: ``priming`` or ``fine-tuning``.
        name: The run's name, such as ``fine-tuning nl``.
        unit: The word for a step on the progress bar.
        total: Steps of the whole run.
        settings: Settings of the run as a JSON mapping.
        writes: Whether this process is the one that writes files and messages for all.
        step: Steps done, skipped ones included.
        seconds: Wall time over all sessions of the run.
        skipped: Numbers of the skipped steps.
        last: The last step; None before the first one of this session.
        summary: The last step's losses as the progress bar shows them.
        validations: All validations so far, those of earlier sessions included.
        outcome: How the run ended, at :meth:`Callback.on_end`; ``running`` before.
        saved: The file of the last checkpoint, and None before there is one.
        saves: Checkpoints that were written in this session.
        stop_reason: Why the run is to stop early; None to go on.
        checkpoint_requested: Whether a checkpoint is to be saved after this event.
    """

    kind: Literal["priming", "fine-tuning"]
    name: str
    unit: str
    total: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    writes: bool = True
    step: int = 0
    seconds: float = 0.0
    skipped: list[int] = field(default_factory=list)
    last: StepReport | None = None
    summary: str = ""
    validations: list[Validation] = field(default_factory=list)
    outcome: Outcome = "running"
    saved: Path | None = None
    saves: int = 0
    stop_reason: str | None = None
    checkpoint_requested: bool = False

    @property
    def best(self) -> Validation | None:
        """The first validation with the highest score; None before any."""
        return max(self.validations, key=lambda one: one.score, default=None)

    def request_stop(self, reason: str) -> None:
        """End the run after this event, as if it had no further steps; what was best so far is kept.

        Fine-tuning that has not validated yet does so first.
        """
        self.stop_reason = reason

    def request_checkpoint(self) -> None:
        """Save a checkpoint after this step or validation, if the run has a file for one.

        What is requested at another event is saved after the next step or validation.
        """
        self.checkpoint_requested = True


class Callback:
    """What happens beside training, one concern each; every method does nothing unless a subclass defines it.

    Give callbacks to :func:`pemeta.prime` and :func:`pemeta.finetune`. An error that one raises ends the run. Where
    several processes train together every one of them calls its callbacks: check ``state.writes`` before writing. A
    stop or a checkpoint that is requested in one process, and an error that is raised in one, count for all.

    Example:
        >>> class Patience(Callback):
        ...     def on_step(self, state: TrainingState) -> None:
        ...         if state.seconds > 3600:
        ...             state.request_stop("an hour has passed")
    """

    def on_start(self, state: TrainingState) -> None:
        """The run starts, or continues from a checkpoint, which has been read."""

    def on_step(self, state: TrainingState) -> None:
        """A step was taken or skipped: ``state.last``."""

    def on_validation(self, state: TrainingState) -> None:
        """Validation data was scored: ``state.validations[-1]``."""

    def on_checkpoint(self, state: TrainingState) -> None:
        """A checkpoint was written to ``state.saved``; of several processes, by the first one."""

    def on_end(self, state: TrainingState) -> None:
        """The run ended, however it did: ``state.outcome``. The model holds the values that are kept."""
