"""Tables of all settings: scores, times, and training data and rates."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from pemeta.errors import counted
from pemeta.reporting.grid import Grid
from pemeta.reporting.records import Record
from pemeta.reporting.scale import capitalised
from pemeta.reporting.spec import Reference, TableSpec
from pemeta.reporting.tables import (
    MISSING,
    Cell,
    Row,
    Table,
    decimals,
    listed,
    mean_cell,
    seconds,
    seeds_cell,
    span,
    two_digits,
    with_best,
)

MAX_LISTED = 8
"""The number of incomplete cells that a note names; it counts the rest."""


def main_tables(whole: Grid, spec: TableSpec) -> list[Table]:
    """The table of scores, settings × targets and their mean, and of what a task stores; one for each metric."""
    parts = whole.part(spec.settings, spec.targets).by_metric()
    return [_main_table(grid, spec, alone=len(parts) == 1) for grid in parts]


def _main_table(grid: Grid, spec: TableSpec, alone: bool) -> Table:
    scale = grid.scale
    title = f"{scale.title} on all {grid.split} {grid.units}{scale.in_percent}"
    if spec.title:
        title = spec.title if alone else f"{spec.title}: {scale.label}{scale.in_percent}"
    scores = _score_table(grid, title, lambda record: record.score)
    stored = [Cell(_fractions(records)) for _, _, records in grid.rows()]
    rows = [Row(row.group, row.label, (cell, *row.cells)) for row, cell in zip(scores.rows, stored, strict=True)]
    notes = ["Stored: the share of all parameters that must be kept for each task.", *_gaps(grid), *spec.notes]
    return Table(scores.title, ("Stored", *scores.columns), tuple(rows), tuple(notes))


def reference_table(reference: Reference) -> Table:
    """The table of published numbers, unchanged, and their mean."""
    rows = []
    digits = decimals(score for numbers in reference.rows.values() for score in numbers)
    for label, numbers in reference.rows.items():
        mean = None if None in numbers else sum(score for score in numbers if score is not None) / len(numbers)
        cells = [Cell(MISSING if score is None else f"{score:.{digits}f}") for score in (*numbers, mean)]
        rows.append(Row("Published, not from this run", label, tuple(cells)))
    notes = (
        reference.note or "Other model, other data: not directly comparable.",
        "The means were computed here.",
    )
    return Table(f"For comparison: {reference.title}", (*reference.columns, "Mean"), tuple(rows), notes)


def unseen_tables(whole: Grid, spec: TableSpec) -> list[Table]:
    """The table of scores on examples that are not also training examples, for each metric.

    A run without any has no score.
    """
    return [_unseen_table(grid, spec) for grid in whole.part(spec.settings, spec.targets).by_metric()]


def _unseen_table(grid: Grid, spec: TableSpec) -> Table:
    scale, units, unit = grid.scale, grid.units, grid.unit
    title = f"{of_table(spec)}{scale.title} on unseen {grid.split} {units}{scale.in_percent}"
    scored = _score_table(grid, title, lambda record: record.score_unseen, unseen=True)
    counts = example_counts(grid, lambda record: record.num_unseen)
    # Tags do not tell two sentences apart.
    what = "sentences whose words are" if unit == "sentence" else f"{units} that are"
    note = f"Unseen: {what} not also a training {unit} of the target or a source: {counts}."
    return Table(scored.title, scored.columns, scored.rows, (note,))


def of_table(spec: TableSpec) -> str:
    """The prefix of the titles of a table's details."""
    return f"{spec.title}: " if spec.title else ""


def _score_table(grid: Grid, title: str, score: Callable[[Record], float | None], unseen: bool = False) -> Table:
    """Scores of each setting on each target; the best of a group is marked if all of its rows have the same runs.

    With ``unseen``, they must also have been scored on the same unseen examples.
    """
    rows, scale = [], grid.scale
    for group, first, records in grid.rows():
        scores = {(record.target, record.seed): value for record in records if (value := score(record)) is not None}
        cells = [seeds_cell([scores[run] for run in scores if run[0] == target], scale) for target in grid.targets]
        rows.append(Row(group, first.label, (*cells, mean_cell(scores, grid.targets, scale))))
    columns = [*((target,) for target in grid.targets), grid.targets]
    return Table(title, (*grid.targets, "Mean"), with_best(rows, scale, _comparable(grid, columns, unseen)))


def _comparable(grid: Grid, columns: Sequence[Collection[str]], unseen: bool = False) -> set[tuple[str, int]]:
    """The (group, column) pairs in which all rows have the same runs; ``columns`` holds each column's targets."""
    bases: dict[tuple[str, int], set[object]] = {}
    for group, _, records in grid.rows():
        for column, targets in enumerate(columns):
            runs = [record for record in records if record.target in targets]
            if {record.target for record in runs} == set(targets):
                basis = frozenset((r.target, r.seed, r.unseen if unseen else ()) for r in runs)
                bases.setdefault((group, column), set()).add(basis)
    return {place for place, found in bases.items() if len(found) == 1}


def parts_tables(whole: Grid, spec: TableSpec) -> list[Table]:
    """The table of scores by class, entity type or other part of the examples; one for each kind of them."""
    tables = []
    for grid in whole.part(spec.settings, spec.targets).by_metric():
        kinds = dict.fromkeys(record.by for record in grid.all_records() if record.scores_by)
        tables += [_parts_table(grid, spec, by) for by in kinds]
    return tables


def _parts_table(grid: Grid, spec: TableSpec, by: str) -> Table:
    scored: dict[str, set[str]] = {}
    for record in grid.all_records():
        for name in record.scores_by if record.by == by else ():
            scored.setdefault(name, set()).add(record.target)
    names, scale = sorted(scored), grid.scale
    rows = []
    for group, first, records in grid.rows():
        cells = []
        for name in names:
            runs = [record for record in records if name in record.scores_by]
            scores = {(record.target, record.seed): record.scores_by[name] for record in runs}
            cells.append(mean_cell(scores, sorted(scored[name]), scale))
        rows.append(Row(group, first.label, tuple(cells)))
    best = with_best(rows, scale, _comparable(grid, [scored[name] for name in names]))
    word = by.split()[-1] if by else "part"
    note = f"Mean over the targets that have the {word}; none if a setting has no result on one of them."
    title = capitalised(by) if by else f"{scale.title} by part"
    return Table(f"{of_table(spec)}{title}{scale.in_percent}", tuple(names), best, (note,))


def seconds_table(grid: Grid) -> Table:
    """The table of median wall times."""
    rows = []
    for group, first, records in grid.rows():
        cells = (Cell(_priming_seconds(records)), Cell(seconds([record.seconds for record in records])))
        rows.append(Row(group, first.label, cells))
    return Table("Median seconds of a run", ("Priming", "Fine-tuning and evaluation"), tuple(rows))


def seen_table(grid: Grid) -> Table:
    """The table of each setting's training data, steps and rates, which shows what a comparison compares."""
    rows = []
    for group, first, records in grid.rows():
        examples = [record.gradient_sentences for record in records if record.gradient_sentences is not None]
        steps = [record.steps_per_epoch * len(record.validation_curve) for record in records]
        texts = [
            span(examples) if first.priming is not None else "0",
            _priming_seconds(records),
            _in_config(first, "priming.outer_steps"),
            _in_config(first, "priming.outer_lr"),
            _text(first.inner_steps),
            _in_config(first, "priming.inner_lr"),
            _in_config(first, "finetuning.lr"),
            span(record.num_train for record in records),
            span(steps),
        ]
        rows.append(Row(group, first.label, tuple(map(Cell, texts))))
    units = grid.units
    columns = (f"Gradient {units}", "Priming, s", "Outer steps", "Outer lr", "S", "Inner lr")
    note = (
        f"Gradient {units}: source {units} whose loss contributed to θ_p's gradient in priming, counted as often as "
        f"seen. S: inner steps. Training {units} and steps: for fine-tuning on a target; a range over targets."
    )
    names = (*columns, "Fine-tuning lr", f"Training {units}", "Fine-tuning steps")
    return Table("What each setting saw", names, tuple(rows), (note,))


def _priming_seconds(records: Sequence[Record]) -> str:
    if records[0].priming is None:
        return "0"
    return seconds([record.priming_seconds for record in records if record.priming_seconds is not None])


def _in_config(record: Record, path: str) -> str:
    """A key of a record's configuration, as text.

    Learning rates and outer steps are not fields of a record. They are only displayed, and a configuration without
    such a key shows none, so that nothing else depends on a configuration's layout.
    """
    value: Any = record.config
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return _text(value)


def _text(value: object) -> str:
    return MISSING if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _fractions(records: Sequence[Record]) -> str:
    """The share of parameters stored per task: a percentage, or a range over targets."""
    values = [record.fraction_adapted for record in records]
    shown = dict.fromkeys(two_digits(100 * value) for value in (min(values), max(values)))
    return f"{MISSING.join(shown)} %"


def _gaps(grid: Grid) -> Iterator[str]:
    """Yield notes on the runs, settings and seeds that the table lacks."""
    total = sum(map(len, grid.runs.values()))
    present = sum(map(len, grid.records.values()))
    if present < total:
        yield f"{total - present} of {counted(total, 'run')} missing."
    if absent := [name for name in grid.settings if name not in grid.records and grid.runs.get(name)]:
        yield f"Omitted because none of their runs has finished: {listed(absent)}."
    if partial := list(_partial(grid)):
        more = f"; and {counted(len(partial) - MAX_LISTED, 'more cell')}" if len(partial) > MAX_LISTED else ""
        yield f"Some cells lack seeds: {'; '.join(partial[:MAX_LISTED])}{more}."
    with_seeds: dict[tuple[int, ...], list[str]] = {}
    for _, first, records in grid.rows():
        with_seeds.setdefault(tuple(sorted({record.seed for record in records})), []).append(first.label)
    if len(with_seeds) > 1:
        parts = [f"{listed(seeds)} of {listed(labels)}" for seeds, labels in with_seeds.items()]
        yield f"Seeds differ: {'; '.join(parts)}. Best scores are marked where all rows of a group have the same."


def _partial(grid: Grid) -> Iterator[str]:
    """Yield the cells that have some but not all of their expected seeds."""
    for _, first, records in grid.rows():
        for target in grid.targets:
            seeds = sorted(record.seed for record in records if record.target == target)
            meant = sorted(seed for name, seed in grid.runs[first.setting] if name == target)
            if seeds and len(seeds) < len(meant):
                yield f"{first.label} on {target} has {listed(seeds)} of {listed(meant)}"


def example_counts(grid: Grid, count: Callable[[Record], int]) -> str:
    """Counts of each target's test examples: a range where runs differ, and given once if all targets agree."""
    parts = {}
    for target in grid.targets:
        records = [record for record in grid.all_records() if record.target == target]
        if records:
            parts[target] = f"{span(map(count, records))} of {span(record.num_test for record in records)}"
    if len(parts) > 1 and len(set(parts.values())) == 1:
        return f"{parts.popitem()[1]} on each target"
    return ", ".join(f"{target} {text}" for target, text in parts.items())
