"""What happened in a priming run, and what of it a user should know."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pemeta.priming.algorithms import StepLosses

EXPLODED = 2.0
"""A support loss grown by more than this factor within an inner loop is told of; our choice."""


@dataclass
class PrimingHistory:
    """What happened in a priming run.

    Attributes:
        losses: of each outer step that was taken.
        seconds: wall time, over all the sessions that the run took.
        sentences: support and query sentences seen.
        skipped: outer steps, counted from 1, that were left out because something was not finite.
    """

    losses: list[StepLosses] = field(default_factory=list)
    seconds: float = 0.0
    sentences: int = 0
    skipped: list[int] = field(default_factory=list)

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
                f"in {self.exploded} of {total} outer steps the inner loop more than doubled the support loss; lower "
                "inner_lr"
            )
        if self.skipped:
            found.append(f"{len(self.skipped)} of {total} outer steps were left out: something was not finite")
        return found

    def to_json(self) -> dict[str, Any]:
        """A JSON value that :meth:`from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> PrimingHistory:
        """The inverse of :meth:`to_json`."""
        losses = [StepLosses(tuple(step["inner"]), step["outer"]) for step in value["losses"]]
        return cls(losses, value["seconds"], value["sentences"], list(value.get("skipped", ())))
