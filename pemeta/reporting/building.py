"""Building a report from records and its description."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from pemeta.reporting.choices import Choice, choice_tables
from pemeta.reporting.comparisons import comparison_tables
from pemeta.reporting.content import Report
from pemeta.reporting.figures import Chart, Figure, names
from pemeta.reporting.grid import Grid, Planned, make_grid, scale_of
from pemeta.reporting.records import Record
from pemeta.reporting.scores import (
    example_counts,
    main_tables,
    parts_tables,
    reference_table,
    seconds_table,
    seen_table,
    unseen_tables,
)
from pemeta.reporting.spec import ReportSpec, TableSpec
from pemeta.reporting.tables import Table, listed, variants
from pemeta.utils.signatures import checked


@checked()
def table(records: Sequence[Record], planned: Planned | None = None) -> Table:
    """A table of the main metric, settings × targets and their mean, like Table 1 of (Gheini et al., 2023).

    A cell is the mean ± its standard error over seeds, s / √n with s the sample standard deviation; a single seed has
    no error. The last column is the mean of the targets' means; its error is that of the seeds' means, over the seeds
    that have every target.

    Args:
        records: One per (setting, target, seed).
        planned: The runs that are expected; the table's notes list those that are missing.

    Raises:
        OutputError: records of one setting differ in more than target and seed, two describe the same run, or there
            are scores of several metrics.
    """
    grid = make_grid(records, planned or Planned())
    scale_of(grid.all_records())
    return main_tables(grid, TableSpec())[0]


@checked()
def build_report(
    records: Sequence[Record],
    title: str = "Results",
    planned: Planned | None = None,
    spec: ReportSpec | None = None,
    choices: Mapping[str, Choice] | None = None,
    facts: Sequence[tuple[str, str]] = (),
) -> Report:
    """Build a report, with all tables, figures and facts, from records.

    Args:
        records: One per (setting, target, seed).
        title: The report's title, unless ``spec`` has one.
        planned: The runs that are expected.
        spec: What the report shows; by default one table of all scores, and details.
        choices: What a search chose, by setting.
        facts: Further names and texts on how the numbers were obtained.

    Raises:
        OutputError: the records do not belong together (see :func:`table`), or compared settings were not scored on
            the same test examples and by the same metric.
    """
    grid, spec = make_grid(records, planned or Planned()), spec or ReportSpec()
    tables = []
    wanted = spec.tables or (TableSpec(),)
    for one in wanted:
        tables += main_tables(grid, one)
        if one.reference is not None:
            tables.append(reference_table(one.reference))
    details = [seen_table(grid), *choice_tables(grid, choices or {})]
    details += [table for detail in (unseen_tables, parts_tables) for one in wanted for table in detail(grid, one)]
    details.append(seconds_table(grid))
    overall, of_targets = comparison_tables(grid, spec.comparisons)
    tables, details = [*tables, *overall], [*of_targets, *details]
    charts = [(figure.name, _chart(figure, grid)) for figure in spec.figures]
    return Report(
        spec.title or title,
        tuple(tables),
        (*_facts(grid), *facts),
        dict(zip(names(charts), (chart for _, chart in charts), strict=True)),
        tuple(shown for shown in details if shown.columns),
    )


def _chart(figure: Figure, grid: Grid) -> Chart:
    chart = figure.compute(grid.records)
    return replace(chart, notes=(*chart.notes, *figure.notes))


def _facts(grid: Grid) -> tuple[tuple[str, str], ...]:
    records = grid.all_records()
    counts = example_counts(grid, lambda record: record.num_truncated)
    what = listed(dict.fromkeys(record.cut for record in records if record.cut))
    cut = f"{counts}; they are longer than max_length{what and f', {what}'}"
    return (
        *_metrics(grid),
        ("Seeds", listed(grid.seeds)),
        (f"Truncated {grid.split} {grid.units}", cut if any(record.num_truncated for record in records) else "none"),
        ("Hardware", variants([record.hardware for record in records])),
        ("Packages", variants([record.packages for record in records])),
    )


def _metrics(grid: Grid) -> Iterator[tuple[str, str]]:
    """Yield what the scores are, metric by metric."""
    parts = grid.by_metric()
    for part in parts:
        metric = part.scale.metric
        name = "Scores" if len(parts) == 1 else f"Scores, {metric.label}"
        order = "" if metric.higher_is_better else "; lower is better"
        yield name, f"{metric.description}{order}; mean ± standard error over seeds (none for one seed)"
