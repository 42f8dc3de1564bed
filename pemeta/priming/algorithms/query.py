"""What an algorithm with an inner loop takes its outer gradient of, and the names of its phases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pemeta.priming.algorithms.base import OuterStep
from pemeta.training.micro_batches import Part
from pemeta.typing import Batch

SUPPORT_BELOW = "support passes below θ_a"
QUERY_BELOW = "query passes below θ_a"
INNER_LOOP = "inner loop"
QUERY_PASS = "query pass"
BACKWARD_BELOW = "backward pass below θ_a"


@dataclass(frozen=True)
class Query:
    """What a task's outer gradient is taken of.

    Attributes:
        task: name of the task.
        batch: the examples of the outer loss, on the model's device; empty for an algorithm without an outer loss.
        step: the outer step.
        parts: the same examples in parts that are to run one after the other; none if they are to run at once.
    """

    task: str
    batch: Batch
    step: OuterStep
    parts: Sequence[Part] = ()

    @property
    def passes(self) -> Sequence[Part]:
        """What runs, one after the other."""
        return self.parts or (Part(self.batch, 1.0),)
