"""Tables of results: their cells, and how they look as Markdown, as an HTML page and in a terminal."""

from __future__ import annotations

import html
import itertools
import math
import re
import statistics
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

MISSING = "–"
"""What stands where there is no number."""

LEGEND = f"best of its group in each column; {MISSING} means no result"

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --line: #d1d9e0; --paper: #fff; --best: #0a5c36 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --soft: #9aa4af; --line: #3a424b; --paper: #14181c; --best: #7ee2ab }
}
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: var(--ink); background: var(--paper);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif }
h1 { font-size: 1.5rem }
.legend, .notes, tbody .group th { color: var(--soft) }
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
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.2rem; margin-top: 2.2rem; font-size: .9rem }
dt { font-weight: 600 }
dd { margin: 0; overflow-wrap: anywhere }
@media (max-width: 40rem) { dl { display: block } dd { margin-bottom: .5rem } }
"""


@dataclass(frozen=True)
class Cell:
    """One entry of a table: its text and, for a score, the numbers behind it (in the unit of the text)."""

    text: str
    mean: float | None = None
    error: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One setting: the group it stands in, its label, and a cell for each column."""

    group: str
    label: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """Settings × columns; rows of one group stand together."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @property
    def groups(self) -> list[tuple[str, list[Row]]]:
        """The rows by group, in order."""
        return [(name, list(rows)) for name, rows in itertools.groupby(self.rows, key=lambda row: row.group)]


@dataclass(frozen=True)
class Report:
    """Tables, and named facts on how their numbers were made."""

    title: str
    tables: tuple[Table, ...]
    facts: tuple[tuple[str, str], ...]


def seeds_cell(scores: Sequence[float]) -> Cell:
    """The mean of F1 from 0 to 1 over seeds, in percent, with its standard error."""
    return _score_cell(statistics.fmean(scores), scores) if scores else Cell(MISSING)


def mean_cell(scores: Mapping[tuple[str, int], float], targets: Sequence[str]) -> Cell:
    """The mean over targets of F1 by (target, seed).

    There is none unless every target has a score, since rows would not be comparable.
    """
    by_target = [[value for (name, _), value in scores.items() if name == target] for target in targets]
    if not by_target or not all(by_target):
        return Cell(MISSING)
    seeds = sorted({seed for _, seed in scores})
    complete = [seed for seed in seeds if all((target, seed) in scores for target in targets)]
    seed_means = [statistics.fmean(scores[target, seed] for target in targets) for seed in complete]
    return _score_cell(statistics.fmean(map(statistics.fmean, by_target)), seed_means)


def _score_cell(mean: float, samples: Sequence[float]) -> Cell:
    """A mean, and the standard error that its samples over seeds give it, in percent."""
    if len(samples) < 2:
        return Cell(f"{100 * mean:.1f}", 100 * mean)
    error = 100 * statistics.stdev(samples) / math.sqrt(len(samples))
    return Cell(f"{100 * mean:.1f} ± {error:.1f}", 100 * mean, error)


def with_best(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Rows with the highest cell of each group and column marked; what shows as equal is equal."""
    best: dict[tuple[str, int], float] = {}
    for row in rows:
        for column, cell in enumerate(row.cells):
            best[row.group, column] = max(best.get((row.group, column), -math.inf), _shown(cell))

    def marked(row: Row, column: int, cell: Cell) -> Cell:
        return replace(cell, best=cell.mean is not None and _shown(cell) == best[row.group, column])

    return tuple(replace(row, cells=tuple(marked(row, *item) for item in enumerate(row.cells))) for row in rows)


def _shown(cell: Cell) -> float:
    return -math.inf if cell.mean is None else float(f"{cell.mean:.1f}")


def two_digits(value: float) -> str:
    """Two significant digits, without an exponent.

    >>> two_digits(0.0618), two_digits(100.0), two_digits(0.00001)
    ('0.062', '100', '0.00001')
    """
    return format(Decimal(f"{value:.2g}"), "f")


def seconds(values: Sequence[float]) -> str:
    """The mean of durations.

    >>> seconds([1.0, 2.0]), seconds([4000.0]), seconds([])
    ('1.5', '4,000', '–')
    """
    if not values:
        return MISSING
    mean = statistics.fmean(values)
    return f"{mean:.1f}" if mean < 10 else f"{mean:,.0f}"


def span(values: Iterable[int]) -> str:
    """A number, or the range where there are several.

    >>> span([3, 3]), span([3, 1])
    ('3', '1–3')
    """
    low, high = min(numbers := list(values)), max(numbers)
    return str(low) if low == high else f"{low}{MISSING}{high}"


def listed(values: Iterable[int]) -> str:
    """Numbers with commas."""
    return ", ".join(map(str, values))


def variants(mappings: Sequence[Mapping[str, str | int]]) -> str:
    """Each key with its value, or with all of them where the mappings differ.

    >>> variants([{"torch": "2.4"}, {"torch": "2.5"}])
    'torch 2.4 / 2.5 (runs differ)'
    """
    parts = []
    for key in dict.fromkeys(key for mapping in mappings for key in mapping):
        values = sorted({str(mapping.get(key, "unknown")) for mapping in mappings})
        parts.append(f"{key} {values[0]}" if len(values) == 1 else f"{key} {' / '.join(values)} (runs differ)")
    return ", ".join(parts)


def to_markdown(report: Report) -> str:
    """The report as GitHub-flavoured Markdown, the best scores in bold."""
    blocks = [f"# {_markdown(report.title)}", f"Bold: {LEGEND}."]
    for table in report.tables:
        blocks += [f"## {_markdown(table.title)}", _markdown_table(table)]
        if table.notes:
            blocks.append("\n".join(f"- {_markdown(note)}" for note in table.notes))
    facts = "\n".join(f"- **{_markdown(name)}:** {_markdown(text)}" for name, text in report.facts)
    return "\n\n".join([*blocks, "## How these numbers were made", facts]) + "\n"


def _markdown_table(table: Table) -> str:
    lines = [["Setting", *map(_markdown, table.columns)], [":--", *("--:" for _ in table.columns)]]
    for name, rows in table.groups:
        lines.append([f"*{_markdown(name)}*", *("" for _ in table.columns)])
        for row in rows:
            texts = [_markdown(cell.text) for cell in row.cells]
            bold = [f"**{text}**" if cell.best else text for text, cell in zip(texts, row.cells, strict=True)]
            lines.append([_markdown(row.label), *bold])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _markdown(text: str) -> str:
    """Text on one line that Markdown shows as it is; an underscore inside a word already does."""
    return re.sub(r"([\\|*`<>\[\]&~#]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", " ".join(text.split()))


def to_html(report: Report) -> str:
    """The report as one page that needs no other file, for light and dark screens."""
    title = html.escape(report.title)
    facts = "\n".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in report.facts)
    tables = "\n".join(map(_html_table, report.tables))
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
{tables}
<dl>
{facts}
</dl>
</body>
</html>
"""


def _html_table(table: Table) -> str:
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in ("Setting", *table.columns))
    width = len(table.columns) + 1
    bodies = []
    for name, rows in table.groups:
        group = f'<tr class="group"><th scope="rowgroup" colspan="{width}">{html.escape(name)}</th></tr>'
        bodies.append("\n".join(["<tbody>", group, *map(_html_row, rows), "</tbody>"]))
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in table.notes)
    lines = [
        '<div class="scroll"><table>',
        f"<caption>{html.escape(table.title)}</caption>",
        f"<thead><tr>{head}</tr></thead>",
        *bodies,
        "</table></div>",
    ]
    return "\n".join([*lines, f'<ul class="notes">{notes}</ul>'] if notes else lines)


def _html_row(row: Row) -> str:
    texts = [html.escape(cell.text) for cell in row.cells]
    marked = [f"<strong>{text}</strong>" if cell.best else text for text, cell in zip(texts, row.cells, strict=True)]
    cells = "".join(f"<td>{text}</td>" for text in marked)
    return f'<tr><th scope="row">{html.escape(row.label)}</th>{cells}</tr>'


def to_terminal(report: Report) -> str:
    """The report as aligned plain text, good for logs too; ``*`` marks the best scores."""
    blocks = [f"{report.title}\n(*: {LEGEND})"]
    for table in report.tables:
        notes = "".join(f"\n  {note}" for note in table.notes)
        blocks.append(f"{table.title}\n{_terminal_table(table)}{notes}")
    facts = "\n".join(f"{name}: {text}" for name, text in report.facts)
    return "\n\n".join([*blocks, facts]) + "\n"


def _terminal_table(table: Table) -> str:
    # The space after every unmarked text keeps the digits of a column under each other.
    header = ["", *(name + " " for name in table.columns)]
    lines: list[list[str]] = [header]
    for name, rows in table.groups:
        lines.append([name])
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
    """Columns that a terminal gives to a text: none to combining marks, two to wide characters."""
    shown = [character for character in text if not unicodedata.combining(character)]
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in shown)
