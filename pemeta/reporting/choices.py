"""The table of what a search chose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pemeta.reporting.grid import Grid
from pemeta.reporting.scale import Scale, metric_named
from pemeta.reporting.tables import MISSING, Cell, Row, Table, listed


@dataclass(frozen=True)
class Choice:
    """The outcome of a search for one setting.

    Attributes:
        setting: the setting.
        values: the best values, by dotted key.
        metric: the metric of validation examples, by its name.
        scores: its mean over the runs of each candidate that has all of them, best first.
        diverged: candidates without a score because their training diverged.
        at_edge: keys whose best value is the smallest or largest of three or more, so that values beyond it may be
            better.
    """

    setting: str
    values: dict[str, Any]
    metric: str
    scores: dict[str, float]
    at_edge: tuple[str, ...]
    diverged: tuple[str, ...] = ()

    def describe(self) -> str:
        """The outcome in one line, for the terminal."""
        values = ", ".join(f"{key} {value}" for key, value in self.values.items())
        edge = f"; {', '.join(self.at_edge)} at the edge of what was tried" if self.at_edge else ""
        scale = self.scale
        best = scale.shown(next(iter(self.scores.values())))
        return f"{self.setting}: {values} ({scale.label} {best} on validation data{edge})"

    @property
    def scale(self) -> Scale:
        """How its scores are shown."""
        return Scale(metric_named(self.metric))


def choice_tables(grid: Grid, choices: Mapping[str, Choice]) -> list[Table]:
    """The table of choices by each metric, for the settings that have records; empty without a search."""
    rows: dict[Scale, list[Row]] = {}
    for group, first, _ in grid.rows():
        choice = choices.get(first.setting)
        if choice is None:
            continue
        scale = choice.scale
        best, second, *_ = [*map(scale.shown, choice.scores.values()), MISSING, MISSING]
        tried = str(len(choice.scores) + len(choice.diverged))
        diverged = f" ({len(choice.diverged)} diverged)" if choice.diverged else ""
        values = listed(f"{key} {_short(value)}" for key, value in choice.values.items())
        texts = (tried + diverged, best, second, values, listed(choice.at_edge) or MISSING)
        rows.setdefault(scale, []).append(Row(group, first.label, tuple(map(Cell, texts))))
    return [_choice_table(grid.units, *item) for item in rows.items()]


def _choice_table(units: str, scale: Scale, rows: Sequence[Row]) -> Table:
    columns = ("Tried", f"Best {scale.label}", "Second", "Chosen", "At the edge")
    note = (
        f"The candidate with the {scale.best} mean {scale.label} on validation {units}{scale.in_percent}, over seeds "
        f"that are not used for the results; test {units} played no part. At the edge: the best value is the smallest "
        "or largest of three or more, so values beyond it may be better."
    )
    return Table("What the search chose", columns, tuple(rows), (note,))


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
