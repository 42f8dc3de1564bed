"""What is found of a step: parameters, operations, and what is held at its fullest moment."""

from __future__ import annotations

from dataclasses import dataclass

from pemeta.estimate.tracker import Work


@dataclass(frozen=True)
class Memory:
    """Bytes that are held at the fullest moment of a phase.

    Attributes:
        weights: all parameters.
        optimizer: AdamW's two moments of what it moves.
        gradients: of what it moves.
        clone: the inner loop's own θ_a and θ_h.
        kept: hidden states that all inner steps share; in exact second order with the graph that made them.
        activations: what the backward pass needs, in second order the inner loop's graph too, and what is in between.
    """

    weights: int = 0
    optimizer: int = 0
    gradients: int = 0
    clone: int = 0
    kept: int = 0
    activations: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.optimizer + self.gradients + self.clone + self.kept + self.activations


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters.

    Attributes:
        theta_p: pretrained ones that fine-tuning leaves.
        theta_a: those that the method adapts.
        theta_h: of one task's head.
        trained: those that the optimiser of this stage moves.
    """

    theta_p: int
    theta_a: int
    theta_h: int
    trained: int

    @property
    def whole(self) -> int:
        """Of the model with one head."""
        return self.theta_p + self.theta_a + self.theta_h

    @property
    def stored(self) -> float:
        """The share that a task keeps for itself."""
        return (self.theta_a + self.theta_h) / self.whole


@dataclass(frozen=True)
class Step:
    """A step of an optimiser.

    Attributes:
        parameters: of the model.
        work: operations.
        phases: the fullest moment of each.
    """

    parameters: Parameters
    work: Work
    phases: dict[str, Memory]

    @property
    def fullest(self) -> str:
        """The phase that needs most memory."""
        return max(self.phases, key=lambda phase: self.phases[phase].total)

    @property
    def memory(self) -> Memory:
        """At the fullest moment of all."""
        return self.phases[self.fullest]


@dataclass(frozen=True)
class Passes:
    """Passes over a batch of sentences, without gradients.

    Attributes:
        whole: a prediction by the whole model.
        below: what θ_a does not reach; nothing where it is not kept.
        above: a prediction from what is kept; the whole where nothing is.
        kept: bytes of the hidden states that are kept of one sentence.
        keeps_train: whether those of training sentences are kept, and not of validation sentences alone.
        held: the most bytes that any holds beside the weights.
    """

    whole: Work
    below: Work
    above: Work
    kept: int
    keeps_train: bool
    held: int
