"""``.. what-works-where::``: the table of methods and architectures, from the committed results of their benchmark."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "architectures" / "results.json"
EXACT, NOTHING = "✓", "–"
ANCHOR = "refused-because-"
GENERAL = (
    (r"^\w+ does not use transformers'", "its attention does not use transformers'"),
    (r"^no \w+ was found in its layers \((.*)\)$", r"a part was not found in its layers: \1"),
    (r"found several blocks, with .*", "found several blocks"),
    (r": [\w.]+ has the maps", ": a block has the maps"),
    (r"reaches .*", "reaches all that it adds"),
    (r", which \w+ does not take", ", which it does not take"),
    (r" of width \d+, but \w+ gives", ", but its embeddings give"),
    (r"^\[PEFT:PeftType.LORA\] ", ""),
    (r" \(model_type='\w+'\)", ""),
)
"""What differs between architectures in sentences that are otherwise the same, and what stands for it."""


def results():
    return json.loads(RESULTS.read_text(encoding="utf-8"))


def because(says):
    """Why a pair is refused: without its names, those within the backbone, and the remedy."""
    text = re.sub(r"^\w+ cannot be attached to \w+: (\w+: )?", "", says).replace("`", "")
    text = re.split(r"; (?:use|choose|change|pass) ", text)[0]
    for pattern, general in GENERAL:
        text = re.sub(pattern, general, text)
    return text


def reasons(pairs):
    """The reasons why pairs are refused where there is something to act on, in the order of the table."""
    found = {}
    for name, row in pairs.items():
        for method, (result, says, _) in row.items():
            if result == "refused":
                found.setdefault(because(says), []).append((name, method))
    return found


def share(pairs, names):
    """Number of exact pairs, and of those with something to act on."""
    counts = Counter(pairs[name][row][0] for name in names for row in pairs[name])
    return counts["exact"], sum(counts.values()) - counts["nothing"]


def table(pairs, names):
    """Lines of the table of some architectures, whose numbers are those of the reasons of all."""
    methods = list(next(iter(pairs.values())))
    numbers = {reason: number for number, reason in enumerate(reasons(pairs), 1)}
    lines = [".. list-table::", "   :header-rows: 1", "   :class: what-works", ""]
    for name, *cells in [
        ("", *methods),
        *([name, *(cell(pairs[name][row], numbers) for row in methods)] for name in names),
    ]:
        lines += [f"   * - {name}", *(f"     - {text}" for text in cells)]
    return [*lines, ""]


def told(pairs):
    """Lines of what the tables' other signs mean."""
    lines = [f"{NOTHING} means that there is nothing to act on:", ""]
    lines += [f"- {lack}: {', '.join(where)}" for lack, where in lacks(pairs).items()]
    lines += ["", "A number is why a pair is refused when it is attached:", ""]
    lines += [f"{number}. ``{reason}``" for number, reason in enumerate(reasons(pairs), 1)]
    return [*lines, ""]


def cell(pair, numbers):
    result, says, _ = pair
    number = numbers.get(because(says))
    return {"exact": EXACT, "nothing": NOTHING}.get(result) or f"`{number} <#{ANCHOR}{number}>`__"


def settings(methods):
    """Lines of what the columns are."""
    lines = ["The columns are methods with these settings, and otherwise their defaults:", ""]
    for row, own in methods.items():
        lines += [f"- {row}: ``{json.dumps(own, ensure_ascii=False)}``"]
    return [*lines, ""]


def lacks(pairs):
    """Where something is lacking, by what."""
    found = {}
    for name, row in pairs.items():
        for result, _, lack in row.values():
            if result == "nothing":
                found.setdefault(lack, {})[name] = None
    return found


class WhatWorks(Directive):
    def run(self):
        found = results()
        pairs, promised = found["pairs"], found["promised"]
        others = [name for name in pairs if name not in promised]
        (exact, acting), (more, tried) = share(pairs, promised), share(pairs, others)
        versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
        lines = [
            f"With {versions}. Of the pairs with something to act on, {exact / acting:.0%} work ({exact} of {acting})",
            "where the architecture is promised:",
            "",
            *table(pairs, promised),
            f"and {more / tried:.0%} ({more} of {tried}) on others that were tried, without a line of code for them:",
            "",
            *table(pairs, others),
            *told(pairs),
            *settings(found["methods"]),
        ]
        box = nodes.Element()
        self.state.nested_parse(StringList(lines, source=str(RESULTS)), 0, box)
        for why in box.findall(nodes.enumerated_list):
            for number, item in enumerate(why, 1):
                item["ids"].append(f"{ANCHOR}{number}")
        self.state.document.settings.env.note_dependency(str(RESULTS))
        return box.children


def setup(app):
    app.add_directive("what-works-where", WhatWorks)
    return {"parallel_read_safe": True}
