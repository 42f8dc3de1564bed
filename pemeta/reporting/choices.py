"""The table of what a search chose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pemeta.reporting.grid import Grid
from pemeta.reporting.tables import MISSING, Cell, Row, Table, listed

COLUMNS = ("Tried", "Best F1", "Second", "Chosen", "At the edge")
NOTE = (
    "The candidate with the highest mean F1 on validation sentences, in percent, over seeds that are not used for the "
    "results; test sentences played no part. At the edge: the best value is the smallest or largest of three or more, "
    "so values beyond it may be better."
)


@dataclass(frozen=True)
class Choice:
    """The outcome of a search for one setting.

    Attributes:
        setting: the setting.
        values: the best values, by dotted key.
        f1: mean F1 on validation data, from 0 to 1, of each candidate with all its runs, best first.
        diverged: candidates without a score because their training diverged.
        at_edge: keys whose best value is the smallest or largest of three or more, so that values beyond it may be
            better.
    """

    setting: str
    values: dict[str, Any]
    f1: dict[str, float]
    at_edge: tuple[str, ...]
    diverged: tuple[str, ...] = ()

    def describe(self) -> str:
        """The outcome in one line, for the terminal."""
        values = ", ".join(f"{key} {value}" for key, value in self.values.items())
        edge = f"; {', '.join(self.at_edge)} at the edge of what was tried" if self.at_edge else ""
        return f"{self.setting}: {values} (F1 {100 * next(iter(self.f1.values())):.1f} on validation data{edge})"


def choice_tables(grid: Grid, choices: Mapping[str, Choice]) -> list[Table]:
    """The table of choices, for the settings that have records; empty without a search."""
    rows = []
    for group, first, _ in grid.rows():
        choice = choices.get(first.setting)
        if choice is None:
            continue
        best, second, *_ = [*(f"{100 * f1:.1f}" for f1 in choice.f1.values()), MISSING, MISSING]
        tried = str(len(choice.f1) + len(choice.diverged))
        diverged = f" ({len(choice.diverged)} diverged)" if choice.diverged else ""
        values = listed(f"{key} {_short(value)}" for key, value in choice.values.items())
        texts = (tried + diverged, best, second, values, listed(choice.at_edge) or MISSING)
        rows.append(Row(group, first.label, tuple(map(Cell, texts))))
    if not rows:
        return []
    return [Table("What the search chose", COLUMNS, tuple(rows), (NOTE,))]


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
