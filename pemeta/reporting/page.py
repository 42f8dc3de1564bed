"""A report as a self-contained HTML page."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping

from pemeta.reporting.content import LEGEND, NUMBERS, Report
from pemeta.reporting.figures import Chart, Picture
from pemeta.reporting.tables import Row, Table
from pemeta.utils.signatures import checked

# Pictures keep a white background on dark screens too: their colours are chosen for it.
STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --line: #d1d9e0; --paper: #fff; --best: #0a5c36 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --soft: #9aa4af; --line: #3a424b; --paper: #14181c; --best: #7ee2ab }
}
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: var(--ink); background: var(--paper);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif }
h1 { font-size: 1.5rem }
.legend, .notes, figcaption, summary, tbody .group th { color: var(--soft) }
.scroll { overflow-x: auto; margin-top: 2.2rem }
table { border-collapse: collapse; border-bottom: 2px solid var(--line); font-variant-numeric: tabular-nums }
caption { text-align: left; font-weight: 600; padding-bottom: .4rem }
th, td { padding: .3rem .6rem; text-align: right; white-space: nowrap; font-weight: 400 }
th:first-child { text-align: left; padding-left: .2rem; white-space: normal; min-width: 7rem;
  position: sticky; left: 0; background: var(--paper) }
thead th { border-block: 2px solid var(--line); font-weight: 600 }
tbody + tbody { border-top: 1px solid var(--line) }
tbody .group th { font-size: .85rem; padding-top: .6rem }
strong { color: var(--best) }
.notes { margin: .5rem 0; padding-left: 1.2rem; font-size: .9rem }
figure { margin: 2.8rem 0 0 }
figure img { display: block; max-width: 100%; height: auto; box-sizing: border-box; padding: .8rem; background: #fff;
  border: 1px solid var(--line); border-radius: .5rem }
figcaption, summary { margin-top: .5rem; font-size: .9rem; max-width: 60rem }
figcaption b { color: var(--ink) }
details .scroll { margin-top: .8rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.2rem; margin-top: 2.2rem; font-size: .9rem }
dt { font-weight: 600 }
dd { margin: 0; overflow-wrap: anywhere }
@media (max-width: 40rem) { dl { display: block } dd { margin-bottom: .5rem } }
"""


@checked()
def to_html(report: Report, pictures: Mapping[str, Picture] | None = None, no_pictures: str | None = None) -> str:
    """Render a report as one page, for light and dark screens, with the pictures embedded.

    Args:
        report: The report.
        pictures: By chart name; a chart without one shows only its numbers.
        no_pictures: A line that says why there are no pictures.
    """
    title = html.escape(report.title)
    facts = "\n".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in report.facts)
    parts = [*map(_table, report.tables)]
    if no_pictures and report.drawn:
        parts.append(f'<p class="legend">{html.escape(no_pictures[0].upper() + no_pictures[1:])}.</p>')
    parts += [_chart(chart, (pictures or {}).get(name)) for name, chart in report.charts.items()]
    parts += map(_table, report.details)
    body = "\n".join(parts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{title}</h1>
<p class="legend"><strong>Bold</strong>: {html.escape(LEGEND)}.</p>
{body}
<dl aria-label="{NUMBERS}">
{facts}
</dl>
</body>
</html>
"""


def _chart(chart: Chart, picture: Picture | None) -> str:
    """A picture, its caption and its numbers, which are collapsed if there is a picture."""
    lines = ["<figure>"]
    if picture is not None:
        data = base64.b64encode(picture.svg).decode()
        width = round(chart.size[0] * 96)  # pixels of CSS in an inch
        alt = html.escape(f"{chart.title}. {chart.caption} The numbers follow in a table.")
        lines.append(f'<img alt="{alt}" width="{width}" src="data:image/svg+xml;base64,{data}">')
    caption = "Nothing to draw yet." if chart.empty else chart.caption
    lines.append(f"<figcaption><b>{html.escape(chart.title)}.</b> {html.escape(caption)}")
    lines += [_notes(chart.notes), "</figcaption>"]
    if not chart.empty:
        table = _table(chart.table())
        lines.append(f"<details><summary>Numbers</summary>{table}</details>" if picture is not None else table)
    return "\n".join(filter(None, [*lines, "</figure>"]))


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in (table.head, *table.columns))
    width = len(table.columns) + 1
    bodies = []
    for name, rows in table.groups:
        group = f'<tr class="group"><th scope="rowgroup" colspan="{width}">{html.escape(name)}</th></tr>'
        bodies.append("\n".join(["<tbody>", *([group] if name else []), *map(_row, rows), "</tbody>"]))
    lines = [
        '<div class="scroll"><table>',
        f"<caption>{html.escape(table.title)}</caption>",
        f"<thead><tr>{head}</tr></thead>",
        *bodies,
        "</table></div>",
        _notes(table.notes),
    ]
    return "\n".join(filter(None, lines))


def _notes(notes: tuple[str, ...]) -> str:
    items = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return f'<ul class="notes">{items}</ul>' if items else ""


def _row(row: Row) -> str:
    texts = [html.escape(cell.text) for cell in row.cells]
    marked = [f"<strong>{text}</strong>" if cell.best else text for text, cell in zip(texts, row.cells, strict=True)]
    cells = "".join(f"<td>{text}</td>" for text in marked)
    return f'<tr><th scope="row">{html.escape(row.label)}</th>{cells}</tr>'
