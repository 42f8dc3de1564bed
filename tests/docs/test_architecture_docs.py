"""The page on the architecture: what it names is there, and what it draws is what the code has."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import house
import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "concepts" / "architecture.md").read_text(encoding="utf-8")
sys.path.append(str(DOCS / "_ext"))

docutils = pytest.importorskip("docutils")
import architecture  # noqa: E402 - after its folder is known


def paths() -> list[str]:
    """The files and folders that the page names."""
    return re.findall(r"`([\w./-]+(?:\.py|\.md|/))`", PAGE)


def test_every_path_on_the_page_exists() -> None:
    found = paths()

    assert len(found) > 30
    assert [path for path in found if not any((root / path).exists() for root in (house.ROOT, DOCS.parent))] == []


def test_diagram_and_table_have_every_folder_in_the_order_of_the_structure() -> None:
    order = [name for name in house.ORDER if name not in ("__init__", "__main__")]
    svg = architecture.diagram(architecture.folders(), architecture.import_counts())
    rows = [row[0].strip("`").removesuffix("/").removesuffix(".py") for row in architecture.folder_rows()]

    assert re.findall(r"<rect[^>]*/><text[^>]*>(\w+)</text>", svg) == order
    assert rows == order


def test_boxes_stand_one_above_the_other_in_that_order() -> None:
    svg = architecture.diagram(architecture.folders(), architecture.import_counts())
    heights = [int(y) for y in re.findall(r'<rect x="\d+" y="(\d+)"', svg)]

    assert heights == sorted(heights, reverse=True)
    assert len(set(heights)) == len(heights)


def test_numbers_are_those_of_the_import_lines() -> None:
    order, counts = ["utils", "data", "model"], {("model", "data"): 2, ("model", "utils"): 1, ("data", "utils"): 12}
    counted = architecture.Counter(counts)
    svg = architecture.diagram(order, counted)

    titles = re.findall(r"<title>(.*?)</title>", svg)
    assert titles == [
        "data imports utils: 12 lines",
        "model imports utils: 1 line",
        "model imports data: 2 lines",
    ]
    assert architecture.in_words(order, counted) == (
        "model imports data (2), utils (1). data imports utils (12). utils imports none of the others."
    )


def test_import_lines_are_counted_by_a_search_for_lines_too() -> None:
    """Of ``tasks`` on ``data``, in another way; functions and type checkers included."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in (house.ROOT / "tasks").rglob("*.py"))

    assert architecture.import_counts()["tasks", "data"] == len(
        re.findall(r"^\s*from pemeta\.data", text, re.MULTILINE)
    )


@pytest.mark.slow
def test_a_way_crosses_fewer_rooms_than_before_and_the_files_that_the_page_names() -> None:
    for way in ("batch", "record"):
        check_way(way)


def check_way(way: str) -> None:
    [before] = re.findall(rf"^\| {way} \| (\d+) \|", PAGE, flags=re.MULTILINE)
    [section] = re.findall(rf"\n## [^#]*?\.\. way:: {way}\n", PAGE)
    named = re.findall(r"`([\w/]+\.py)`", section.split("\nThen `")[0])
    files = architecture.files_of(way)

    assert named
    assert [path for path in named if path not in files] == []
    assert len(architecture.rooms(files)) < int(before)
