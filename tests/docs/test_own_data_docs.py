"""The page on users' own data: its keys are keys, its table of schemes is right, and its snippet runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from pemeta.data.schemes import to_iob2
from pemeta.data.sources import ConllData, DataSource

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "own-data.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


def test_every_key_of_the_page_is_one() -> None:
    for block in blocks("yaml"):
        for text in [block] if block.startswith("data:") else block.splitlines():
            keys = yaml.safe_load(text)
            assert DataSource.parse({"name": "conll", "path": "x", **keys.get("data", keys)})
    rows = re.findall(
        r"^\| [^|]+ \| (`.*) \|$", PAGE.split("## What the columns are")[1].split("Columns are")[0], re.MULTILINE
    )
    assert len(rows) == 9
    for row in rows:
        for text in re.findall(r"`([a-z]+: .*?)`", row):
            keys = yaml.safe_load(f"{{{text}}}")
            assert ConllData.parse({"name": "conll", "path": "x", **keys}).to_config()["name"] == "conll"


def test_the_table_of_schemes_is_right() -> None:
    rows = re.findall(r"^\| `(\w+)`(?: \(default\))? \| `([^`]+)`", PAGE, flags=re.MULTILINE)
    assert [name for name, _ in rows] == ["IOB2", "IOB1", "IOBES", "BILOU", "BMES", "types"]
    for scheme, tags in rows:
        expected = ["B-PER", "I-PER", "B-LOC", "I-LOC" if scheme == "types" else "B-LOC"]
        assert to_iob2(tags.split(), scheme) == expected  # type: ignore[arg-type]


def test_the_snippet_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.txt").write_text("-DOCSTART- -X- O O\n\nAda x x I-PERS\n1815 x x I-DATE\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (snippet,) = blocks("python")
    names: dict[str, object] = {}
    exec(compile(snippet.replace("file.sentences[0]", "found = file.sentences[0]"), "own-data.md", "exec"), names)
    assert names["found"] == (0, ("train.txt: its tags are IOB1: 2 entities of the types PERS, DATE",))
    assert "train.txt: its tags are IOB1: 23 entities of the types PER, LOC" in PAGE
