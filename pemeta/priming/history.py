"""The history of a priming run, and warnings about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pemeta.errors import counted
from pemeta.priming.algorithms import StepLosses

EXPLODED = 2.0
"""Growth of the support loss within an inner loop above which a warning is given."""


@dataclass
class PrimingHistory:
    """The history of a priming run.

    Attributes:
        losses: Losses of each outer step that was taken.
        seconds: Wall time over all sessions of the run.
        sentences: Number of support and query sentences seen.
        skipped: Outer steps, counted from 1, that were skipped because something was not finite.
        validation_scores: Step and mean score of each validation (``validate_every``).
        best_step: The step whose values are kept; None without validation, which keeps the last ones.
        packed: Whether batches ran without padding, in rows, as the algorithm's ``padding`` allowed.
    """

    losses: list[StepLosses] = field(default_factory=list)
    seconds: float = 0.0
    sentences: int = 0
    skipped: list[int] = field(default_factory=list)
    validation_scores: list[tuple[int, float]] = field(default_factory=list)
    best_step: int | None = None
    packed: bool = False

    @property
    def exploded(self) -> int:
        """Outer steps in which the inner loop more than doubled the support loss that it is to lower."""
        inner = (step.inner for step in self.losses)
        return sum(bool(losses) and losses[-1] > EXPLODED * losses[0] for losses in inner)

    def warnings(self) -> list[str]:
        """What a user should know of how it went, a line each."""
        total, found = len(self.losses) + len(self.skipped), []
        if self.exploded:
            found.append(
                f"in {self.exploded} of {counted(total, 'outer step')} the inner loop more than doubled the support "
                "loss; lower inner_lr"
            )
        if self.skipped:
            steps = counted(total, "outer step")
            found.append(f"{len(self.skipped)} of {steps} skipped, because something was not finite")
        return found

    def to_json(self) -> dict[str, Any]:
        """A JSON value that :meth:`from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PrimingHistory:
        """The inverse of :meth:`to_json`."""
        losses = [StepLosses(tuple(step["inner"]), step["outer"]) for step in value["losses"]]
        scores = [(int(step), float(score)) for step, score in value.get("validation_scores", ())]
        skipped = list(value.get("skipped", ()))
        sizes = value["seconds"], value["sentences"]
        return cls(losses, *sizes, skipped, scores, value.get("best_step"), value.get("packed", False))
