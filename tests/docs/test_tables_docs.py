"""What the page on tables shows is accepted and works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from pemeta.data.sources import DataSource

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "tables.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


def test_every_configuration_is_one() -> None:
    found = 0
    for block in blocks("yaml"):
        if block.startswith("  "):  # keys of a table
            block = f"data:\n  name: table\n  path: data\n{block}"
        for lines in re.split(r"\n(?=data:)", block):
            data = yaml.safe_load(lines)["data"]
            assert DataSource.parse(data).name in ("table", "hub")
            found += 1
    assert found == 10


def test_the_snippet_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = blocks("python")
    exec(compile(snippet, "tables.md", "exec"), {})
    printed = capsys.readouterr()
    assert printed.out.strip() == snippet.strip().rpartition("# ")[2]
    (line,) = blocks("text")
    said = re.sub(r"\d+ of \d+", "N", line.replace("data (cim)", "a").strip())
    assert said in re.sub(r"\d+ of \d+", "N", printed.err)
