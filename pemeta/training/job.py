"""What the training loop trains: priming and fine-tuning describe themselves, and only their step, by a job."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pemeta.training.callbacks.base import StepReport, TrainingState, Validation
from pemeta.training.optimizer import Optimization
from pemeta.typing import State


@dataclass(frozen=True)
class Gradient:
    """What a step's gradient was taken of.

    Attributes:
        losses: By name, as :class:`~pemeta.training.callbacks.StepReport` has them.
        examples: Number of examples, in all processes.
        tokens: Number of their tokens, without padding.
    """

    losses: Mapping[str, float]
    examples: int
    tokens: int


class Job(ABC):
    """A training run without its loop.

    Attributes:
        name: What messages call it.
        total: Steps of the whole run.
        optimization: Optimiser, schedule and loss scale of what is trained.
        state: The run's state, which the loop keeps.
    """

    kind: ClassVar[Literal["priming", "fine-tuning"]]
    unit: ClassVar[str]
    name: str
    total: int
    optimization: Optimization
    state: TrainingState

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Everything that must not change between a checkpoint and its continuation, as a JSON mapping."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The run's settings for trackers, as a JSON mapping."""

    @abstractmethod
    def values(self) -> State:
        """The values that a checkpoint holds."""

    @abstractmethod
    def progress(self) -> dict[str, Any]:
        """A JSON mapping that a checkpoint holds beside them."""

    @abstractmethod
    def restore(self, values: State, progress: Mapping[str, Any]) -> None:
        """Put back :meth:`values` and :meth:`progress`.

        Raises:
            ModelError: They belong to another model.
            ValueError: They make no sense; so for KeyError and TypeError.
        """

    def before_step(self) -> State:
        """Values that :meth:`gradient` changes, to undo a step that fails."""
        return {}

    def undo(self, values: State) -> None:  # noqa: B027 - most jobs have nothing to undo
        """Put back what :meth:`before_step` gave."""

    @abstractmethod
    def gradient(self, number: int) -> Gradient:
        """Add the gradient of a step, counted from 0, to the parameters.

        Raises:
            NotFiniteError: A loss is not finite.
        """

    @abstractmethod
    def taken(self, gradient: Gradient) -> None:
        """Take note of a step whose update was made."""

    @abstractmethod
    def where(self, number: int) -> str:
        """The place of a step, counted from 0, in a message, such as ``priming, step 3``."""

    @abstractmethod
    def summary(self, report: StepReport) -> str:
        """The losses of a step as the progress bar shows them."""

    @abstractmethod
    def end(self) -> None:
        """Put the values in the model that are kept; called however the run ends."""

    @abstractmethod
    def validation_due(self) -> bool:
        """Whether validation stands before the next step."""

    @abstractmethod
    def validate(self) -> Validation:
        """Score validation data, and keep the values if they are the best.

        Raises:
            NotFiniteError: The score is not finite.
        """
