"""Building a report from records and its description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pemeta.reporting.choices import Choice, choice_tables
from pemeta.reporting.comparisons import comparison_tables
from pemeta.reporting.content import Report
from pemeta.reporting.figures import Chart, Figure, names
from pemeta.reporting.grid import Grid, Planned, make_grid
from pemeta.reporting.records import Record
from pemeta.reporting.scores import (
    main_table,
    reference_table,
    seconds_table,
    seen_table,
    sentence_counts,
    type_table,
    unseen_table,
)
from pemeta.reporting.spec import ReportSpec, TableSpec
from pemeta.reporting.tables import Table, listed, variants
from pemeta.utils.signatures import checked


@checked()
def table(records: Sequence[Record], planned: Planned | None = None) -> Table:
    """A table of F1 in percent, settings × targets and their mean, like Table 1 of (Gheini et al., 2023).

    A cell is the mean ± its standard error over seeds, s / √n with s the sample standard deviation; a single seed has
    no error. The last column is the mean of the targets' means; its error is that of the seeds' means, over the seeds
    that have every target.

    Args:
        records: One per (setting, target, seed).
        planned: The runs that are expected; the table's notes list those that are missing.

    Raises:
        OutputError: records of one setting differ in more than target and seed, or two describe the same run.
    """
    return main_table(make_grid(records, planned or Planned()), TableSpec())


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
            the same test sentences.
    """
    grid, spec = make_grid(records, planned or Planned()), spec or ReportSpec()
    tables = []
    wanted = spec.tables or (TableSpec(),)
    for one in wanted:
        tables.append(main_table(grid, one))
        if one.reference is not None:
            tables.append(reference_table(one.reference))
    details = [seen_table(grid), *choice_tables(grid, choices or {})]
    details += [detail(grid, one) for detail in (unseen_table, type_table) for one in wanted]
    details.append(seconds_table(grid))
    if compared := comparison_tables(grid, spec.comparisons):
        tables.append(compared[0])
        details.insert(0, compared[1])
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
    cut = f"{sentence_counts(grid, lambda r: r.num_truncated)}; they are longer than max_length, cut words count as O"
    return (
        ("Scores", "entity-level micro F1 as seqeval counts it; mean ± standard error over seeds (none for one seed)"),
        ("Seeds", listed(grid.seeds)),
        (f"Truncated {grid.split} sentences", cut if any(record.num_truncated for record in records) else "none"),
        ("Hardware", variants([record.hardware for record in records])),
        ("Packages", variants([record.packages for record in records])),
    )
