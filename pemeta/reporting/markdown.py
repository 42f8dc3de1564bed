"""A report as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pemeta.reporting.content import LEGEND, NUMBERS, Report
from pemeta.reporting.figures import Chart
from pemeta.reporting.tables import Table
from pemeta.utils.signatures import checked

FIGURES = "figures"
"""The folder of the pictures, next to the report."""


@checked()
def to_markdown(report: Report, no_pictures: str | None = None) -> str:
    """Render a report as GitHub-flavoured Markdown, best scores in bold; pictures are links into ``figures/``.

    Args:
        report: The report.
        no_pictures: A line that takes the place of the pictures and says why there are none.
    """
    blocks = [f"# {_escaped(report.title)}", f"Bold: {LEGEND}."]
    for table in report.tables:
        blocks += _table(table, "##")
    if no_pictures and report.drawn:
        blocks.append(f"{_escaped(no_pictures[0].upper() + no_pictures[1:])}.")
    for name, chart in report.charts.items():
        blocks += _chart(name, chart, pictures=no_pictures is None)
    for table in report.details:
        blocks += _table(table, "##")
    facts = "\n".join(f"- **{_escaped(name)}:** {_escaped(text)}" for name, text in report.facts)
    return "\n\n".join([*blocks, f"## {NUMBERS}", facts]) + "\n"


def _chart(name: str, chart: Chart, pictures: bool) -> Iterator[str]:
    yield f"## {_escaped(chart.title)}"
    if chart.empty:
        yield "Nothing to draw yet."
    elif pictures:
        yield f"![{_escaped(chart.caption)}]({FIGURES}/{name}.png)"
    if not chart.empty:
        yield _escaped(chart.caption)
        yield from _table(chart.table(), None)
    if chart.notes:
        yield _notes(chart.notes)


def _table(table: Table, heading: str | None) -> Iterator[str]:
    if heading:
        yield f"{heading} {_escaped(table.title)}"
    lines = [[_escaped(table.head), *map(_escaped, table.columns)], [":--", *("--:" for _ in table.columns)]]
    for name, rows in table.groups:
        if name:
            lines.append([f"*{_escaped(name)}*", *("" for _ in table.columns)])
        for row in rows:
            texts = [_escaped(cell.text) for cell in row.cells]
            bold = [f"**{text}**" if cell.best else text for text, cell in zip(texts, row.cells, strict=True)]
            lines.append([_escaped(row.label), *bold])
    yield "\n".join(f"| {' | '.join(line)} |" for line in lines)
    if table.notes:
        yield _notes(table.notes)


def _notes(notes: tuple[str, ...]) -> str:
    return "\n".join(f"- {_escaped(note)}" for note in notes)


def _escaped(text: str) -> str:
    """Text on one line, escaped so that Markdown shows it unchanged; an underscore inside a word needs no escape."""
    return re.sub(r"([\\|*`<>\[\]&~#]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", " ".join(text.split()))
