"""From records to a report: mean scores with standard errors, and what a reader must know to trust them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pemeta.errors import OutputError
from pemeta.files import write_text
from pemeta.report_formats import (
    MISSING,
    Cell,
    Report,
    Row,
    Table,
    listed,
    mean_cell,
    seconds,
    seeds_cell,
    span,
    to_html,
    to_markdown,
    to_terminal,
    two_digits,
    variants,
    with_best,
)
from pemeta.results import Record, read_records

__all__ = [
    "Cell",
    "Report",
    "Row",
    "Table",
    "build_report",
    "table",
    "to_html",
    "to_markdown",
    "to_terminal",
    "write_report",
]

GROUPS = ("Without priming", "With priming")
RUN_KEYS = ("target", "seed")
"""The only keys of a run's configuration that may differ within a setting."""
MAX_LISTED = 8
"""How many incomplete cells a note names before it only counts them."""


@dataclass(frozen=True)
class Grid:
    """Records by setting, with every setting, target and seed that a record or the given order names."""

    records: Mapping[str, tuple[Record, ...]]
    settings: tuple[str, ...]
    targets: tuple[str, ...]
    seeds: tuple[int, ...]

    def rows(self) -> Iterator[tuple[str, Record, tuple[Record, ...]]]:
        """(group, first record, all records) of each setting that has records, in the order of the tables."""
        for group, primed in zip(GROUPS, (False, True), strict=True):
            for name in self.settings:
                records = self.records.get(name, ())
                if records and (records[0].priming is not None) == primed:
                    yield group, records[0], records

    def all_records(self) -> list[Record]:
        """Every record, setting after setting."""
        return [record for records in self.records.values() for record in records]


def table(
    records: Sequence[Record],
    settings_order: Sequence[str] | None = None,
    targets_order: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> Table:
    """F1 in percent, settings × targets and their mean, as Table 1 of (Gheini et al., 2023).

    A cell is the mean ± its standard error over seeds, s / √n with s the sample standard deviation; with one
    seed there is no error. The last column is the mean of the targets' means; its error is that of the seeds'
    means, over the seeds that have every target.

    Args:
        records: One per (setting, target, seed).
        settings_order: Settings that come first in each group, in this order; the others follow by name. One
            without a record counts as missing.
        targets_order: The same for targets.
        seeds: Seeds that every cell is meant to have, besides those of the records.

    Raises:
        OutputError: records of one setting differ in more than target and seed, or two are of the same run.
    """
    return _main_table(_grid(records, settings_order, targets_order, seeds))


def build_report(
    records: Sequence[Record],
    title: str = "Results",
    settings_order: Sequence[str] | None = None,
    targets_order: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> Report:
    """All tables and facts on records; arguments and errors are those of :func:`table`."""
    grid = _grid(records, settings_order, targets_order, seeds)
    tables = (_main_table(grid), _type_table(grid), _unseen_table(grid), _seconds_table(grid))
    return Report(title, tuple(shown for shown in tables if shown.columns), _facts(grid))


def read_report(folder: Path) -> Report:
    """The report on the records of a run folder.

    Raises:
        OutputError: the folder, its records or its ``config.yaml`` cannot be read, or the records do not fit
            together (see :func:`table`).
    """
    if not folder.is_dir():
        raise OutputError(f"there is no folder {folder}; give the output folder of a run")
    return build_report(read_records(folder), f"Results: {folder.resolve().name}", **_order(folder / "config.yaml"))


def write_report(folder: Path, report: Report) -> None:
    """Write ``report.md`` and ``report.html`` into a folder.

    Raises:
        OutputError: the folder cannot be written.
    """
    write_text(folder / "report.md", to_markdown(report))
    write_text(folder / "report.html", to_html(report))


def _order(path: Path) -> dict[str, list[Any]]:
    """Orders that a run's configuration gives; what it does not give in the expected form is left out."""
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise OutputError(f"cannot read {path}: {reason}; repair it, or remove it to order rows by name") from None
    if not isinstance(config, dict):
        return {}
    settings, targets, seeds = (
        value if isinstance(value := config.get(key), list | dict) else [] for key in ("settings", "targets", "seeds")
    )
    return {
        "settings_order": [name for name in settings if isinstance(name, str)],
        "targets_order": [name for name in targets if isinstance(name, str)],
        "seeds": [seed for seed in seeds if type(seed) is int],
    }


def _grid(
    records: Sequence[Record],
    settings_order: Sequence[str] | None,
    targets_order: Sequence[str] | None,
    seeds: Sequence[int] | None,
) -> Grid:
    by_setting: dict[str, tuple[Record, ...]] = {}
    for record in records:
        by_setting[record.setting] = (*by_setting.get(record.setting, ()), record)
    for of_setting in by_setting.values():
        _check_same_setting(of_setting)
    return Grid(
        by_setting,
        _ordered(by_setting, settings_order),
        _ordered((record.target for record in records), targets_order),
        tuple(sorted({*(record.seed for record in records), *(seeds or ())})),
    )


def _ordered(found: Iterable[str], first: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*(first or ()), *sorted(found)]))


def _check_same_setting(records: Sequence[Record]) -> None:
    """Refuse records whose mean would not be that of one setting."""
    first, seen = records[0], set()
    expected = _shared_config(first)
    of_target: dict[str, Record] = {}
    for record in records:
        for path, one, other in _differences(expected, _shared_config(record)):
            raise OutputError(
                f"setting {first.setting!r} mixes configurations: {path} is {one} in {first.filename} and {other} in "
                f"{record.filename}; remove the records of one configuration, then run again what is missing"
            )
        other_seed = of_target.setdefault(record.target, record)
        if record.data_digest != other_seed.data_digest:
            raise OutputError(
                f"setting {first.setting!r} mixes data: that of {other_seed.filename} and {record.filename} differ; "
                "run the grid again, which does anew what is of other data than there is now"
            )
        if (run := (record.target, record.seed)) in seen:
            raise OutputError(
                f"setting {first.setting!r} has two records of target {record.target!r} with seed {record.seed}; "
                "remove one of them"
            )
        seen.add(run)


def _shared_config(record: Record) -> dict[str, Any]:
    return {key: value for key, value in record.config.items() if key not in RUN_KEYS}


def _differences(one: Any, other: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """(dotted path, value, other value) of whatever differs in two nested mappings."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            below = f"{path}.{key}" if path else str(key)
            if key in one and key in other:
                yield from _differences(one[key], other[key], below)
            else:
                yield below, repr(one[key]) if key in one else "absent", repr(other[key]) if key in other else "absent"
    elif one != other:
        yield path, repr(one), repr(other)


def _main_table(grid: Grid) -> Table:
    scores = _score_table(grid, "F1 on all test sentences, in percent", lambda record: record.f1)
    stored = [Cell(_fractions(records)) for _, _, records in grid.rows()]
    rows = [Row(row.group, row.label, (cell, *row.cells)) for row, cell in zip(scores.rows, stored, strict=True)]
    notes = ["Stored: the share of all parameters that has to be kept for each task.", *_gaps(grid)]
    return Table(scores.title, ("Stored", *scores.columns), tuple(rows), tuple(notes))


def _unseen_table(grid: Grid) -> Table:
    """F1 where the test sentence is not also a train sentence; a run without any such sentence has none."""
    scored = _score_table(
        grid, "F1 on unseen test sentences, in percent", lambda record: record.f1_unseen if record.num_unseen else None
    )
    counts = _counts(grid, lambda record: record.num_unseen)
    note = f"Unseen: not, by its words, also a train sentence of the target or a source. Test sentences: {counts}."
    return Table(scored.title, scored.columns, scored.rows, (note,))


def _score_table(grid: Grid, title: str, score: Callable[[Record], float | None]) -> Table:
    rows = []
    for group, first, records in grid.rows():
        scores = {(record.target, record.seed): value for record in records if (value := score(record)) is not None}
        cells = [seeds_cell([scores[run] for run in scores if run[0] == target]) for target in grid.targets]
        rows.append(Row(group, first.label, (*cells, mean_cell(scores, grid.targets))))
    return Table(title, (*grid.targets, "Mean"), with_best(rows))


def _type_table(grid: Grid) -> Table:
    scored: dict[str, set[str]] = {}
    for record in grid.all_records():
        for name in record.f1_per_type:
            scored.setdefault(name, set()).add(record.target)
    types = sorted(scored)
    rows = []
    for group, first, records in grid.rows():
        cells = []
        for name in types:
            runs = [record for record in records if name in record.f1_per_type]
            scores = {(record.target, record.seed): record.f1_per_type[name] for record in runs}
            cells.append(mean_cell(scores, sorted(scored[name])))
        rows.append(Row(group, first.label, tuple(cells)))
    note = "Mean over the targets that have the type; none where a setting has no result on one of them."
    return Table("F1 per entity type, in percent", tuple(types), with_best(rows), (note,))


def _seconds_table(grid: Grid) -> Table:
    rows = []
    for group, first, records in grid.rows():
        priming = [record.priming_seconds for record in records if record.priming_seconds is not None]
        spent = seconds(priming) if first.priming is not None else "0"
        rows.append(Row(group, first.label, (Cell(spent), Cell(seconds([record.seconds for record in records])))))
    return Table("Mean seconds of a run", ("Priming", "Fine-tuning and evaluation"), tuple(rows))


def _fractions(records: Sequence[Record]) -> str:
    """The share of parameters stored per task: one percentage, or the range over targets."""
    values = [record.fraction_adapted for record in records]
    shown = dict.fromkeys(two_digits(100 * value) for value in (min(values), max(values)))
    return f"{MISSING.join(shown)} %"


def _gaps(grid: Grid) -> Iterator[str]:
    """One note each on runs, settings and seeds that the table lacks."""
    total = len(grid.settings) * len(grid.targets) * len(grid.seeds)
    present = sum(map(len, grid.records.values()))
    if present < total:
        yield f"{total - present} of {total} runs missing."
    if absent := [name for name in grid.settings if name not in grid.records]:
        yield f"Not in the table, since no run of them is finished: {', '.join(absent)}."
    partial = []
    for _, first, records in grid.rows():
        for target in grid.targets:
            seeds = sorted(record.seed for record in records if record.target == target)
            if seeds and len(seeds) < len(grid.seeds):
                partial.append(f"{first.label} on {target} has {listed(seeds)}")
    if partial:
        more = f"; and {len(partial) - MAX_LISTED} more cells" if len(partial) > MAX_LISTED else ""
        yield f"Not every cell has all seeds ({listed(grid.seeds)}): {'; '.join(partial[:MAX_LISTED])}{more}."


def _facts(grid: Grid) -> tuple[tuple[str, str], ...]:
    records = grid.all_records()
    cut = f"{_counts(grid, lambda run: run.num_truncated)}; they are longer than max_length, cut words count as O"
    return (
        ("Scores", "entity-level micro F1 as seqeval counts it; mean ± standard error over seeds (none for one seed)"),
        ("Seeds", listed(grid.seeds)),
        ("Truncated test sentences", cut if any(record.num_truncated for record in records) else "none"),
        ("Hardware", variants([record.hardware for record in records])),
        ("Packages", variants([record.packages for record in records])),
    )


def _counts(grid: Grid, count: Callable[[Record], int]) -> str:
    """For each target, how many of its test sentences; a range where runs differ, once where all targets agree."""
    parts = {}
    for target in grid.targets:
        records = [record for record in grid.all_records() if record.target == target]
        if records:
            parts[target] = f"{span(map(count, records))} of {span(record.num_test for record in records)}"
    if len(parts) > 1 and len(set(parts.values())) == 1:
        return f"{parts.popitem()[1]} on each target"
    return ", ".join(f"{target} {text}" for target, text in parts.items())
