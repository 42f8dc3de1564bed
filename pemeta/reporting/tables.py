"""Tables of results: cells and rows, and the formatting of numbers."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

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


def seeds_cell(scores: Sequence[float]) -> Cell:
    """The mean of F1 from 0 to 1 over seeds, in percent, with its standard error."""
    return _score_cell(statistics.fmean(scores), scores) if scores else Cell(MISSING)


def mean_cell(scores: Mapping[tuple[str, int], float], targets: Sequence[str]) -> Cell:
    """The mean over targets of F1 by (target, seed), in percent.

    It is missing unless every target has a score: rows would not be comparable otherwise.
    """
    by_target = [[value for (name, _), value in scores.items() if name == target] for target in targets]
    if not by_target or not all(by_target):
        return Cell(MISSING)
    seeds = sorted({seed for _, seed in scores})
    complete = [seed for seed in seeds if all((target, seed) in scores for target in targets)]
    seed_means = [statistics.fmean(scores[target, seed] for target in targets) for seed in complete]
    return _score_cell(statistics.fmean(map(statistics.fmean, by_target)), seed_means)


def _score_cell(mean: float, samples: Sequence[float]) -> Cell:
    """A mean and its standard error over seeds, in percent."""
    if len(samples) < 2:
        return Cell(f"{100 * mean:.1f}", 100 * mean)
    error = 100 * statistics.stdev(samples) / math.sqrt(len(samples))
    return Cell(f"{100 * mean:.1f} ± {error:.1f}", 100 * mean, error)


def with_best(rows: Sequence[Row], comparable: Collection[tuple[str, int]] | None = None) -> tuple[Row, ...]:
    """Mark the highest cell of each group and column; cells that are displayed as equal tie, and one alone is not best.

    Args:
        rows: The rows of a table.
        comparable: The (group, column) pairs in which a cell may be marked; None for all.
    """
    scores: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        for column, cell in enumerate(row.cells):
            if cell.mean is not None:
                scores.setdefault((row.group, column), []).append(_shown(cell))

    def marked(row: Row, column: int, cell: Cell) -> Cell:
        others = scores.get((row.group, column), [])
        compared = cell.mean is not None and (comparable is None or (row.group, column) in comparable)
        return replace(cell, best=compared and len(others) > 1 and _shown(cell) == max(others))

    return tuple(replace(row, cells=tuple(marked(row, *item) for item in enumerate(row.cells))) for row in rows)


def _shown(cell: Cell) -> float:
    return float(f"{cell.mean:.1f}")


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


def points(difference: float) -> str:
    """Format a difference of two F1 from 0 to 1, in points, with its sign.

    >>> points(0.0234), points(-0.01), points(-0.0001)
    ('+2.3', '−1.0', '0.0')
    """
    text = f"{100 * difference:+.1f}"
    return "0.0" if text[1:] == "0.0" else text.replace("-", "−")


def interval(low: float, high: float) -> str:
    """Format an interval of F1 differences, rounded outwards so that the text contains the interval.

    >>> interval(-0.01, 0.034), interval(-0.0004, 0.0301)
    ('−1.0 to +3.4', '−0.1 to +3.1')
    """
    outwards = math.floor(round(1000 * low, 6)), math.ceil(round(1000 * high, 6))
    return " to ".join(points(end / 1000) for end in outwards)


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
