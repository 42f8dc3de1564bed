"""Tables of paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from pemeta.reporting.bootstrap import Difference, paired_difference
from pemeta.reporting.grid import Grid, scale_of, unit_of
from pemeta.reporting.records import Record
from pemeta.reporting.scale import Scale
from pemeta.reporting.spec import Comparison
from pemeta.reporting.tables import MISSING, Cell, Row, Table, listed

Found: TypeAlias = list[tuple[str, Difference | None]]

COLUMNS = ("Difference", "95 % interval", "Ahead", "Targets", "Seeds", "Unseen", "Unseen, 95 %")


def comparison_tables(grid: Grid, comparisons: Sequence[Comparison]) -> tuple[list[Table], list[Table]]:
    """The tables of differences overall and on each target, one for each metric."""
    found: dict[Scale, Found] = {}
    units: dict[Scale, set[str]] = {}
    for comparison in comparisons:
        first, second = (grid.records.get(name, ()) for name in (comparison.first, comparison.second))
        records: list[Record] = [*first, *second]
        scale = scale_of(records or grid.all_records()[:1])
        found.setdefault(scale, []).append((comparison.title, paired_difference(first, second, comparison.targets)))
        units.setdefault(scale, set()).add(unit_of(records or grid.all_records()))
    whole = [_whole_table(scale, sorted(units[scale]), rows) for scale, rows in found.items()]
    return whole, [_target_table(grid, scale, rows, len(found) > 1) for scale, rows in found.items()]


def _whole_table(scale: Scale, units: Sequence[str], found: Found) -> Table:
    label, examples = scale.label, f"{units[0] if len(units) == 1 else 'example'}s"
    points = scale.in_points
    sign = "" if scale.metric.higher_is_better else " below zero where the first is better;"
    difference = (
        f"Difference: {label} of the first minus {label} of the second{points};{sign} the mean over targets of the "
        "mean over the seeds that both have. Ahead: (target, seed) pairs in which the first has the "
        f"{scale.better} {label}. Unseen: on unseen {examples} only."
    )
    intervals = (
        f"Intervals: over seeds, by their sample variance and Student's t, and over the {examples} of each target, by "
        "the paired bootstrap. They hold for these targets. If the true difference is zero, one interval in twenty "
        "excludes it."
    )
    rows = [Row("", title, _cells(difference, scale)) for title, difference in found]
    notes = (difference, intervals, *_notes(found, examples))
    return Table(f"Paired differences of {label}{points}", COLUMNS, tuple(rows), notes, "Comparison")


def _cells(difference: Difference | None, scale: Scale) -> tuple[Cell, ...]:
    if difference is None:
        return tuple(Cell(MISSING) for _ in COLUMNS)
    whole, unseen = difference.whole, difference.unseen
    texts = [
        scale.signed(whole.mean),
        scale.interval(whole.low, whole.high),
        f"{difference.ahead} of {difference.pairs}" + (f", {difference.equal} equal" if difference.equal else ""),
        str(len(difference.by_target)),
        str(len(difference.seeds)),
        MISSING if unseen is None else scale.signed(unseen.mean),
        MISSING if unseen is None else scale.interval(unseen.low, unseen.high),
    ]
    return tuple(map(Cell, texts))


def _notes(found: Found, examples: str) -> list[str]:
    notes = []
    if single := [title for title, difference in found if difference and len(difference.seeds) == 1]:
        notes.append(f"One seed, so the interval covers {examples} only: {listed(single)}.")
    if lacking := [title for title, difference in found if difference is None]:
        notes.append(f"The two settings have no run in common yet: {listed(lacking)}.")
    return notes


def _target_table(grid: Grid, scale: Scale, found: Found, several: bool) -> Table:
    what = f" of {scale.label}" if several else ""
    known = [(title, difference) for title, difference in found if difference is not None]
    targets = [target for target in grid.targets if any(target in one.by_target for _, one in known)]
    rows = []
    for title, difference in known:
        estimates = [difference.by_target.get(target) for target in targets]
        cells = [
            Cell(MISSING if e is None else f"{scale.signed(e.mean)} [{scale.interval(e.low, e.high)}]")
            for e in estimates
        ]
        rows.append(Row("", title, tuple(cells)))
    title = f"Paired differences{what} on each target{scale.in_points}"
    return Table(title, tuple(targets), tuple(rows), ("In brackets: 95 % intervals, as above.",), "Comparison")
