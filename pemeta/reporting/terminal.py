"""A report as plain text: its main tables and comparisons, and where to find the rest."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

from pemeta.reporting.content import LEGEND, Report
from pemeta.reporting.figures import how_to_draw
from pemeta.reporting.markdown import FIGURES
from pemeta.reporting.tables import Table, listed
from pemeta.utils.signatures import checked


@checked()
def to_terminal(report: Report) -> str:
    """Render a report as aligned text; ``*`` marks the best scores. Details and pictures are only listed."""
    blocks = [f"{report.title}\n(*: {LEGEND})"]
    for table in report.tables:
        notes = "".join(f"\n  {' '.join(note.split())}" for note in table.notes)
        blocks.append(f"{' '.join(table.title.split())}\n{_table(table)}{notes}")
    facts = "\n".join(f"{name}: {text}" for name, text in report.facts)
    return "\n\n".join([*blocks, facts, "\n".join(_elsewhere(report))]) + "\n"


def _elsewhere(report: Report) -> Iterator[str]:
    """Yield lines on what is only in the files."""
    if report.details:
        titles = listed(table.title.removesuffix(", in percent") for table in report.details)
        yield f"Only in the files: {titles}."
    if report.charts:
        drawn = [f"{name}.png" for name in report.drawn]
        lack = [" ".join(chart.title.split()) for chart in report.charts.values() if chart.empty]
        why = how_to_draw()
        if why is not None:
            yield f"Pictures: {why}."
        elif drawn:
            yield f"Pictures in {FIGURES}/, also as .svg: {listed(drawn)}."
        if lack:
            yield f"Nothing to draw yet: {listed(lack)}."


def _table(table: Table) -> str:
    # The space after every unmarked text keeps the digits of a column aligned.
    header = ["", *(name + " " for name in table.columns)]
    lines: list[list[str]] = [header]
    for name, rows in table.groups:
        if name:
            lines.append([" ".join(name.split())])
        for row in rows:
            label = "  " + " ".join(row.label.split())
            lines.append([label, *(cell.text + ("*" if cell.best else " ") for cell in row.cells)])
    full = [line for line in lines if len(line) > 1]
    widths = [max(_width(line[column]) for line in full) for column in range(len(header))]
    return "\n".join(_aligned(line, widths) for line in lines)


def _aligned(texts: Sequence[str], widths: Sequence[int]) -> str:
    spaces = [" " * (width - _width(text)) for text, width in zip(texts, widths, strict=False)]
    first, *rest = zip(texts, spaces, strict=True)
    return "  ".join(["".join(first), *(space + text for text, space in rest)]).rstrip()


def _width(text: str) -> int:
    """The width of a text in a terminal: combining marks take no column, wide characters two."""
    shown = [character for character in text if not unicodedata.combining(character)]
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in shown)
