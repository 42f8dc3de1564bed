"""The table of what works where: all methods on all architectures, as the committed results have it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "docs" / "_ext"))

pytest.importorskip("docutils")
import what_works  # noqa: E402 - after its folder is known
from zoo.animals import ALL, PROMISED  # noqa: E402
from zoo.purpose import ROWS  # noqa: E402

from pemeta import PEMethod  # noqa: E402

FOUND = what_works.results()
PAIRS = FOUND["pairs"]


def test_the_page_has_the_table() -> None:
    page = (ROOT / "docs" / "reference" / "methods.md").read_text(encoding="utf-8")
    assert ".. what-works-where::\n" in page


def test_results_are_of_every_method_on_every_architecture() -> None:
    assert [name for name in PAIRS if name in ALL] == list(ALL)  # older versions of transformers lack some
    assert {tuple(row) for row in PAIRS.values()} == {tuple(ROWS)}
    assert [name for name in FOUND["promised"] if name in ALL] == list(PROMISED)


def test_the_columns_are_the_methods_of_the_test_table() -> None:
    assert {row: PEMethod.parse(own) for row, own in FOUND["methods"].items()} == ROWS
    assert "\n".join(what_works.settings(FOUND["methods"])).count("\n- ") == len(ROWS)


def test_the_table_has_what_the_results_have() -> None:
    """Counted in another way than the table is made."""
    lines = what_works.table(PAIRS, PAIRS)
    cells = [line.strip().lstrip("*- ").strip() for line in lines if line.startswith("     -")]
    results = [result for row in PAIRS.values() for result, *_ in row.values()]
    assert cells.count(what_works.EXACT) == results.count("exact")
    assert cells.count(what_works.NOTHING) == results.count("nothing")
    assert sum(what_works.ANCHOR in cell for cell in cells) == results.count("refused")


def test_each_reason_is_told_once_and_without_the_pair() -> None:
    reasons = list(what_works.reasons(PAIRS))
    text = "\n".join(what_works.told(PAIRS))
    assert len(set(reasons)) == len(reasons)
    assert all(text.count(f". ``{reason}``\n") == 1 for reason in reasons)
    assert "cannot be attached" not in text
    lacks = {lack for row in PAIRS.values() for result, _, lack in row.values() if result == "nothing"}
    assert all(f"- {lack}: " in text for lack in lacks)


def test_nothing_crashes_is_wrong_or_refused_too_late() -> None:
    assert {result for row in PAIRS.values() for result, *_ in row.values()} <= {"exact", "refused", "nothing"}


def test_most_of_what_is_promised_works() -> None:
    exact, acting = what_works.share(PAIRS, FOUND["promised"])
    assert exact / acting >= 0.85
