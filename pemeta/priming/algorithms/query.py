"""What an algorithm with an inner loop takes its outer gradient of, and the names of its phases."""

from __future__ import annotations

from dataclasses import dataclass

from pemeta.priming.algorithms.base import OuterStep
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
    """

    task: str
    batch: Batch
    step: OuterStep
