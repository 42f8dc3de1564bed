"""Directives that draw the package from its syntax trees, so that the page on its architecture cannot go stale.

``.. house::`` is a diagram of the folders and of the imports between them, ``.. folders::`` a table of the folders,
and ``.. way:: batch`` (or ``record``) a list of the files that this crosses, by :mod:`ways`.
"""

import ast
import functools
import json
import os
import subprocess
import sys
from collections import Counter
from html import escape
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

sys.path.append(str(Path(__file__).parents[2] / "tests"))  # at the end: no name of a test is to hide another

import house

STEP, ROW, BOX, HEIGHT, MARGIN = 40, 31, 92, 22, 14
"""Pixels: between two columns and two rows, a box's width and height, and around everything."""


def folders():
    """Parts of the package, from the lowest layer to the highest; its entry points import only what they hand on."""
    return [name for name in house.ORDER if not name.startswith("__")]


def import_counts():
    """Number of import lines by importing and imported part, for parts that differ."""
    counts = Counter()
    for path in house.modules():
        for names in house.import_lines(path):
            parts = {name.split(".")[1] for name in names if name.startswith("pemeta.")}
            counts.update((house.part(path), part) for part in parts - {house.part(path)})
    return Counter({pair: count for pair, count in counts.items() if pair[0] in folders()})


def in_words(order, counts):
    """The diagram's content as sentences, from the highest layer to the lowest."""
    sentences = []
    for name in reversed(order):
        found = [f"{other} ({counts[name, other]})" for other in reversed(order) if counts[name, other]]
        sentences.append(f"{name} imports {', '.join(found) or 'none of the others'}.")
    return " ".join(sentences)


def diagram(order, counts):
    """The folders as a staircase of boxes; an arrow runs left from the one that imports and down to the imported one.

    Where an arrow turns down stands the number of import lines.
    """
    rows = len(order)
    x = {name: MARGIN + STEP * i + STEP // 2 for i, name in enumerate(order)}
    y = {name: MARGIN + ROW * (rows - 1 - i) + HEIGHT // 2 for i, name in enumerate(order)}
    width, height = x[order[-1]] - STEP // 2 + BOX + MARGIN, MARGIN * 2 + ROW * (rows - 1) + HEIGHT
    lines, dots, boxes = [], [], []
    for name in order:
        used = [other for other in order if counts[name, other]]
        users = [other for other in order if counts[other, name]]
        left = x[name] - STEP // 2
        if used:
            lines.append(f'<path d="M{left} {y[name]}H{x[used[0]]}"/>')
        if users:
            lines.append(f'<path d="M{x[name]} {y[users[-1]]}V{y[name] - HEIGHT // 2 - 2}" marker-end="url(#arrow)"/>')
        for other in used:
            count = counts[name, other]
            text = f"{name} imports {other}: {count} line{'s' if count > 1 else ''}"
            dots.append(
                f'<g><title>{text}</title><circle cx="{x[other]}" cy="{y[name]}" r="9"/>'
                f'<text x="{x[other]}" y="{y[name] + 4}">{count}</text></g>'
            )
        boxes.append(
            f'<rect x="{left}" y="{y[name] - HEIGHT // 2}" width="{BOX}" height="{HEIGHT}" rx="4"/>'
            f'<text x="{left + BOX // 2}" y="{y[name] + 4}">{name}</text>'
        )
    return f"""
<svg class="house" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"
  role="img" aria-labelledby="house-title house-words">
<title id="house-title">The folders of pemeta, and the imports between them</title>
<desc id="house-words">{escape(in_words(order, counts))}</desc>
<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path class="head" d="M0 0L8 4L0 8z"/></marker></defs>
<g class="lines">{"".join(lines)}</g>
<g class="counts">{"".join(dots)}</g>
<g class="folders">{"".join(boxes)}</g>
</svg>"""


def first_sentence(path):
    """Of a module's docstring, as reStructuredText."""
    text = " ".join((ast.get_docstring(house.tree(path)) or "").split("\n\n")[0].split())
    return text.partition(". ")[0].rstrip(".") + "."


def table(header, widths, rows):
    """Lines of a list table."""
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {widths}", ""]
    for row in (header, *rows):
        lines += [f"   {'* -' if i == 0 else '  -'} {cell}" for i, cell in enumerate(row)]
    return lines


def folder_rows():
    """Each part, from the lowest layer to the highest: its name, first sentence and number of modules."""
    rows = []
    for name in folders():
        own = [path for path in house.modules() if house.part(path) == name]
        is_folder = (house.ROOT / name).is_dir()
        init = house.ROOT / (f"{name}/__init__.py" if is_folder else f"{name}.py")
        modules = [path for path in own if path.name not in ("__init__.py", "__main__.py")]
        rows.append((f"``{name}/``" if is_folder else f"``{name}.py``", first_sentence(init), str(len(modules))))
    return rows


def files_of(way):
    """The files that a way crosses, each with the function that is called there first."""
    return _files_of_all()[way]


@functools.cache
def _files_of_all():
    """Those of each way, run in a Python of its own: nothing that this process has computed may spare it a file."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(house.ROOT.parent)}
    command = [sys.executable, str(Path(__file__).parent / "ways.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def rooms(files):
    """The folders of some files, and the modules that stand in none, each once and in order."""
    return list(dict.fromkeys(path.split("/")[0].removesuffix(".py") for path in files))


class Generated(Directive):
    """Content that follows from pemeta's code; the page is read again in every build, since the code may be new."""

    def run(self):
        self.state.document.settings.env.note_reread()
        return self.content_nodes()

    def parsed(self, lines):
        box = nodes.Element()
        self.state.nested_parse(StringList(lines, source=self.name), 0, box)
        return box.children


class House(Generated):
    def content_nodes(self):
        svg = diagram(folders(), import_counts())
        return [nodes.raw("", f'<div class="house-box" tabindex="0">{svg}</div>', format="html")]


class Folders(Generated):
    def content_nodes(self):
        return self.parsed(table(("in ``pemeta/``", "what belongs there", "modules"), "18 70 12", folder_rows()))


class Way(Generated):
    required_arguments = 1

    def content_nodes(self):
        files = files_of(self.arguments[0])
        found = rooms(files)
        names = ", ".join(f"``{name}``" for name in found)
        counts = f"**{len(found)} folders and {len(files)} files**"
        lines = [f"It crosses {counts}. The folders: {names}. The files, in the order in which they are entered:", ""]
        lines += [
            f"#. ``{path}``, at ``{function}``: {first_sentence(house.ROOT / path)}" for path, function in files.items()
        ]
        return self.parsed(lines)


def setup(app):
    app.add_directive("house", House)
    app.add_directive("folders", Folders)
    app.add_directive("way", Way)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
