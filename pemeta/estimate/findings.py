"""Findings about a step: its parameters, its operations, and its memory at the fullest moment."""

from __future__ import annotations

from dataclasses import dataclass

from pemeta.estimate.counter import Work


@dataclass(frozen=True)
class Memory:
    """Bytes held at the fullest moment of a phase.

    Attributes:
        weights: all parameters.
        optimizer: AdamW's two moments of the parameters that it moves, and float32 values of those in half precision.
        gradients: gradients of these parameters.
        clone: the inner loop's own θ_a and θ_h.
        kept: hidden states that all inner steps share, in exact second order with their graph.
        activations: tensors for the backward pass (in second order also the inner loop's graph), and temporary ones.
        passing: what checkpointed layers free and make again, on a CPU: what would be held in addition without
            checkpointing. It is no part of the total, but the C library keeps much of it for the process.
        vocabulary: the part of all this that is as large as the vocabulary, of a language model: word embeddings and
            output matrix, their gradients and moments, and logits; None for other heads.
    """

    weights: int = 0
    optimizer: int = 0
    gradients: int = 0
    clone: int = 0
    kept: int = 0
    activations: int = 0
    passing: int = 0
    vocabulary: Memory | None = None

    @property
    def total(self) -> int:
        """Sum of all parts."""
        return self.weights + self.optimizer + self.gradients + self.clone + self.kept + self.activations


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters.

    Attributes:
        theta_p: pretrained parameters that fine-tuning leaves unchanged.
        theta_a: parameters that the method adapts.
        theta_h: parameters of one task's head.
        trained: parameters that the optimiser of this stage moves.
    """

    theta_p: int
    theta_a: int
    theta_h: int
    trained: int

    @property
    def whole(self) -> int:
        """Number of parameters of the model with one head."""
        return self.theta_p + self.theta_a + self.theta_h

    @property
    def stored(self) -> float:
        """Share of the parameters that a task stores of its own."""
        return (self.theta_a + self.theta_h) / self.whole


@dataclass(frozen=True)
class Step:
    """A step of an optimiser.

    Attributes:
        parameters: the model's numbers of parameters.
        work: its operations.
        phases: the memory of each phase at its fullest moment.
    """

    parameters: Parameters
    work: Work
    phases: dict[str, Memory]

    @property
    def fullest(self) -> str:
        """The phase that needs the most memory."""
        return max(self.phases, key=lambda phase: self.phases[phase].total)

    @property
    def memory(self) -> Memory:
        """The memory at the fullest moment of the step."""
        return self.phases[self.fullest]


@dataclass(frozen=True)
class Passes:
    """Passes over a batch of sentences, without gradients.

    Attributes:
        whole: a prediction by the whole model.
        below: the layers that θ_a does not reach; empty if their output is not cached.
        above: a prediction from the cached output; the whole model if nothing is cached.
        kept: bytes of hidden states that are cached per sentence.
        keeps_train: whether training sentences are cached too, and not only validation sentences.
        held: the most bytes that any pass holds in addition to the weights.
    """

    whole: Work
    below: Work
    above: Work
    kept: int
    keeps_train: bool
    held: int
