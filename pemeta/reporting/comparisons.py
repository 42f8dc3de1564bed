"""Tables of paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from pemeta.reporting.bootstrap import Difference, paired_difference
from pemeta.reporting.grid import Grid
from pemeta.reporting.spec import Comparison
from pemeta.reporting.tables import MISSING, Cell, Row, Table, interval, listed, points

Found: TypeAlias = list[tuple[str, Difference | None]]

COLUMNS = ("Difference", "95 % interval", "Ahead", "Targets", "Seeds", "Unseen", "Unseen, 95 %")
DIFFERENCE = (
    "Difference: F1 of the first minus F1 of the second, in points; the mean over targets of the mean over the seeds "
    "that both have. Ahead: (target, seed) pairs in which the first has the higher F1. Unseen: on unseen sentences "
    "only."
)
INTERVALS = (
    "Intervals: over seeds, by their sample variance and Student's t, and over the sentences of each target, by the "
    "paired bootstrap. They hold for these targets. If the true difference is zero, one interval in twenty excludes it."
)


def comparison_tables(grid: Grid, comparisons: Sequence[Comparison]) -> tuple[Table, Table] | None:
    """The tables of differences overall and on each target; None if there is nothing to compare."""
    if not comparisons:
        return None
    found: Found = []
    for comparison in comparisons:
        sides = [grid.records.get(name, ()) for name in (comparison.first, comparison.second)]
        found.append((comparison.title, paired_difference(sides[0], sides[1], comparison.targets)))
    rows = [Row("", title, _cells(difference)) for title, difference in found]
    notes = (DIFFERENCE, INTERVALS, *_notes(found))
    whole = Table("Paired differences of F1, in points", COLUMNS, tuple(rows), notes, "Comparison")
    return whole, _target_table(grid, found)


def _cells(difference: Difference | None) -> tuple[Cell, ...]:
    if difference is None:
        return tuple(Cell(MISSING) for _ in COLUMNS)
    whole, unseen = difference.whole, difference.unseen
    texts = [
        points(whole.mean),
        interval(whole.low, whole.high),
        f"{difference.ahead} of {difference.pairs}" + (f", {difference.equal} equal" if difference.equal else ""),
        str(len(difference.by_target)),
        str(len(difference.seeds)),
        MISSING if unseen is None else points(unseen.mean),
        MISSING if unseen is None else interval(unseen.low, unseen.high),
    ]
    return tuple(map(Cell, texts))


def _notes(found: Found) -> list[str]:
    notes = []
    if single := [title for title, difference in found if difference and len(difference.seeds) == 1]:
        notes.append(f"One seed, so the interval covers sentences only: {listed(single)}.")
    if lacking := [title for title, difference in found if difference is None]:
        notes.append(f"The two settings have no run in common yet: {listed(lacking)}.")
    return notes


def _target_table(grid: Grid, found: Found) -> Table:
    known = [(title, difference) for title, difference in found if difference is not None]
    targets = [target for target in grid.targets if any(target in one.by_target for _, one in known)]
    rows = []
    for title, difference in known:
        estimates = [difference.by_target.get(target) for target in targets]
        cells = [Cell(MISSING if e is None else f"{points(e.mean)} [{interval(e.low, e.high)}]") for e in estimates]
        rows.append(Row("", title, tuple(cells)))
    title = "Paired differences on each target, in points"
    return Table(title, tuple(targets), tuple(rows), ("In brackets: 95 % intervals, as above.",), "Comparison")
