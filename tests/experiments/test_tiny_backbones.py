"""A tiny backbone that is pretrained on the sentences of the grid's tasks, and what becomes of it if they change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pemeta.data import sources
from pemeta.data.sources import DataSource
from pemeta.data.synthetic import SyntheticWorld
from pemeta.experiments.build import Builder
from pemeta.experiments.config import GridConfig
from pemeta.reporting.records import read_records

TINY = {"name": "tiny", "transformer": {"steps": 1, "vocab_size": 100, "max_length": 32}}
PRETRAINING = "pretraining a tiny Transformer (1 step)"


@pytest.fixture
def config(run_config: dict[str, Any], own_conll_dir: Path) -> dict[str, Any]:
    """A grid of two targets without sources, on files of its own."""
    own = {
        "data": {"name": "conll", "path": str(own_conll_dir)},
        "backbone": TINY,
        "sources": [],
        "targets": ["aa", "bb"],
    }
    return {**run_config, **own, "settings": {"plain": {"method": "head_only"}}}


def words_of(source: DataSource, *tasks: str) -> list[tuple[str, ...]]:
    return [tuple(words) for words in source.unlabelled(tasks).read()]


def prepared(config: dict[str, Any]) -> tuple[list[str], str]:
    """What is said when a grid's backbone is prepared, and which one it is."""
    said: list[str] = []
    builder = Builder(GridConfig.model_validate(config), Path(config["output"]), said.append, progress=False)
    builder.prepare()
    return said, (Path(builder.backbone_location) / "digest.txt").read_text()


def test_the_text_is_that_of_the_training_sentences(conll_dir: Path, tmp_path: Path) -> None:
    files = DataSource.parse({"name": "conll", "path": str(conll_dir)})
    train = {task: [sentence.words for sentence in files.corpus(task).train] for task in ("aa", "bb")}
    assert words_of(files, "bb", "aa") == train["bb"] + train["aa"]
    assert words_of(files) == []

    rows = [{"tokens": words, "ner_tags": ["O"] * len(words)} for words in train["aa"]]
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    table = DataSource.parse({"name": "table", "path": str(tmp_path)})
    assert words_of(table, "any") == train["aa"]
    assert table.unlabelled(["any"]).digest == files.unlabelled(["aa"]).digest


def test_no_more_sentences_are_read_than_fit_into_memory(conll_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MOST_TEXT", 5)
    files = DataSource.parse({"name": "conll", "path": str(conll_dir)})
    found = [sentence.words for task in ("aa", "bb") for sentence in files.corpus(task).train[:5]]
    assert words_of(files, "aa", "bb") == found


def test_the_made_up_world_has_text_of_its_own() -> None:
    source = DataSource.parse({"name": "synthetic", "languages": ["aru", "bex"], "text_sentences": 3})
    world = SyntheticWorld(languages=("aru", "bex"), text_sentences=3)
    assert words_of(source, "aru") == [tuple(words) for name in ("aru", "bex") for words in world.text(name)]
    assert source.unlabelled(["aru"]).digest is None


def test_another_is_pretrained_only_if_the_sentences_are_others(config: dict[str, Any], own_conll_dir: Path) -> None:
    said, first = prepared(config)
    assert said == [PRETRAINING]
    for same in ({}, {"streaming": True}, {"target_sizes": {"train": 5}}, {"sources": ["aa"], "targets": ["bb"]}):
        assert prepared({**config, **same}) == ([], first)

    assert prepared({**config, "targets": ["aa"]})[0] == [PRETRAINING]
    assert prepared(config) == ([PRETRAINING], first)
    train = own_conll_dir / "bb" / "train.conll"
    train.write_text(train.read_text().replace("Ana", "Ines"))
    said, second = prepared(config)
    assert said == [PRETRAINING]
    assert second != first
    test = own_conll_dir / "bb" / "test.conll"
    test.write_text(test.read_text().replace("Ana", "Ines"))
    assert prepared(config) == ([], second)


def test_every_run_depends_on_the_sentences_of_all_tasks(
    config: dict[str, Any], own_conll_dir: Path, pemeta: Callable[..., Any]
) -> None:
    def digests() -> dict[str, str]:
        return {record.target: record.data_digest for record in read_records(Path(config["output"]))}

    assert pemeta("run", config).code == 0
    before = digests()
    assert "2 of 2 runs are done already" in pemeta("run", config).out

    train = own_conll_dir / "bb" / "train.conll"
    train.write_text(train.read_text().replace("Ana", "Ines"))
    again = pemeta("run", config)
    assert (again.code, again.out.count(PRETRAINING), again.out.count("running it again")) == (0, 1, 2)
    assert set(digests()) == {"aa", "bb"}
    assert not set(digests().values()) & set(before.values())


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.long)])  # each process imports PyTorch
def test_a_search_has_the_backbone_of_its_grid(config: dict[str, Any], pemeta: Callable[..., Any], jobs: int) -> None:
    settings = {"plain": {"method": "head_only", "search": {"finetuning.lr": [1e-3, 1e-2]}}}
    search = {"seeds": [1], "targets": ["cc"]}
    ran = pemeta("run", {**config, "settings": settings, "search": search}, "--jobs", jobs)
    assert (ran.code, ran.out.count(PRETRAINING)) == (0, 1)
    assert not (Path(config["output"]) / "search" / "backbone").exists()
