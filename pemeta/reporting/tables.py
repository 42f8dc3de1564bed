"""Tables of results: cells and rows, and the formatting of numbers."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from pemeta.reporting.scale import Scale

MISSING = "–"
"""The text of a cell without a number."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text and, for a score, the numbers behind it, in the unit of the text."""

    text: str
    mean: float | None = None
    error: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Row:
    """A row of a table: its group (empty for none), its label, and a cell for each column."""

    group: str
    label: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """Rows × columns, with the rows of a group next to each other; ``head`` is the header of the labels."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    head: str = "Setting"

    @property
    def groups(self) -> list[tuple[str, list[Row]]]:
        """The rows by group, in order."""
        return [(name, list(rows)) for name, rows in itertools.groupby(self.rows, key=lambda row: row.group)]


def seeds_cell(scores: Sequence[float], scale: Scale) -> Cell:
    """The mean of scores over seeds, with its standard error."""
    return _score_cell(statistics.fmean(scores), scores, scale) if scores else Cell(MISSING)


def mean_cell(scores: Mapping[tuple[str, int], float], targets: Sequence[str], scale: Scale) -> Cell:
    """The mean over targets of scores by (target, seed).

    It is missing unless every target has a score: rows would not be comparable otherwise.
    """
    by_target = [[value for (name, _), value in scores.items() if name == target] for target in targets]
    if not by_target or not all(by_target):
        return Cell(MISSING)
    seeds = sorted({seed for _, seed in scores})
    complete = [seed for seed in seeds if all((target, seed) in scores for target in targets)]
    seed_means = [statistics.fmean(scores[target, seed] for target in targets) for seed in complete]
    return _score_cell(statistics.fmean(map(statistics.fmean, by_target)), seed_means, scale)


def _score_cell(mean: float, samples: Sequence[float], scale: Scale) -> Cell:
    """A mean and its standard error over seeds."""
    if len(samples) < 2:
        return Cell(scale.shown(mean), scale.factor * mean)
    error = statistics.stdev(samples) / math.sqrt(len(samples))
    return Cell(f"{scale.shown(mean)} ± {scale.shown(error)}", scale.factor * mean, scale.factor * error)


def with_best(
    rows: Sequence[Row], scale: Scale, comparable: Collection[tuple[str, int]] | None = None
) -> tuple[Row, ...]:
    """Mark the best cell of each group and column; cells that are displayed as equal tie, and one alone is not best.

    Args:
        rows: The rows of a table.
        scale: Of the scores, which says whether the highest or the lowest is the best.
        comparable: The (group, column) pairs in which a cell may be marked; None for all.
    """
    scores: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        for column, cell in enumerate(row.cells):
            if cell.mean is not None:
                scores.setdefault((row.group, column), []).append(number_shown(cell))

    def marked(row: Row, column: int, cell: Cell) -> Cell:
        others = scores.get((row.group, column), [])
        compared = cell.mean is not None and (comparable is None or (row.group, column) in comparable)
        return replace(cell, best=compared and len(others) > 1 and number_shown(cell) == scale.best_of(others))

    return tuple(replace(row, cells=tuple(marked(row, *item) for item in enumerate(row.cells))) for row in rows)


def number_shown(cell: Cell) -> float:
    """The number of a score's cell as it is displayed, without its error.

    >>> number_shown(Cell("−3.1 ± 0.2", -3.12))
    -3.1
    """
    return float(cell.text.partition(" ")[0].replace("−", "-"))


def two_digits(value: float) -> str:
    """Format a number with two significant digits, without an exponent.

    >>> two_digits(0.0618), two_digits(100.0), two_digits(0.00001)
    ('0.062', '100', '0.00001')
    """
    return format(Decimal(f"{value:.2g}"), "f")


def seconds(values: Sequence[float]) -> str:
    """The median of durations, which depends less on other work of the machine than their mean.

    >>> seconds([1.0, 2.0, 9.0]), seconds([4000.0]), seconds([])
    ('2.0', '4,000', '–')
    """
    if not values:
        return MISSING
    middle = statistics.median(values)
    return f"{middle:.1f}" if middle < 10 else f"{middle:,.0f}"


def span(values: Iterable[int]) -> str:
    """Format a number, or the range of several.

    >>> span([3, 3]), span([3, 1]), span([])
    ('3', '1–3', '–')
    """
    numbers = list(values)
    if not numbers:
        return MISSING
    low, high = f"{min(numbers):,}", f"{max(numbers):,}"
    return low if low == high else f"{low}{MISSING}{high}"


def listed(values: Iterable[object]) -> str:
    """Values separated by commas."""
    return ", ".join(map(str, values))


def variants(mappings: Sequence[Mapping[str, str | int]]) -> str:
    """Format each key with its value, or with all of its values if the mappings differ.

    >>> variants([{"torch": "2.4"}, {"torch": "2.5"}])
    'torch 2.4 / 2.5 (runs differ)'
    """
    parts = []
    for key in dict.fromkeys(key for mapping in mappings for key in mapping):
        values = sorted({str(mapping.get(key, "unknown")) for mapping in mappings})
        parts.append(f"{key} {values[0]}" if len(values) == 1 else f"{key} {' / '.join(values)} (runs differ)")
    return ", ".join(parts)


def decimals(values: Iterable[float | None]) -> int:
    """The most decimals that any of the values has; YAML reads 84.10 as 84.1.

    >>> decimals([83.0, 84.1, 81.25, None])
    2
    """
    return max((len(f"{value:g}".partition(".")[2]) for value in values if value is not None), default=0)
