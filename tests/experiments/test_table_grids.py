"""Grids on tables and data sets of the hub: planned, validated and run as on token files, with the same records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
import yaml
from wikiann_files import TAGS, rows_to_parquet

from pemeta.data.conll import read_conll_corpus
from pemeta.data.sentences import SPLITS, LabelSet, digest
from pemeta.experiments.config_file import load_config

LABELS = LabelSet(("PER", "ORG", "LOC"))


@pytest.fixture
def sources(conll_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Data sources with the sentences of ``conll_dir``, in other forms."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows, configs = [], []
    for name in ("aa", "bb", "cc"):
        corpus = read_conll_corpus(conll_dir, name, LABELS)
        for split in SPLITS:
            own = [(list(one.words), list(one.tags)) for one in corpus.split(split)]
            rows += [{"tokens": words, "tags": tags, "lang": name, "split": split} for words, tags in own]
            indices = [(words, [TAGS.index(tag) for tag in tags]) for words, tags in own]
            rows_to_parquet(tmp_path / "hub" / name / f"{split}-00000-of-00001.parquet", indices, TAGS)
        files = [{"split": split, "path": f"{name}/{split}-*"} for split in SPLITS]
        configs.append({"config_name": name, "data_files": files})
    head = yaml.safe_dump({"configs": configs})
    (tmp_path / "hub" / "README.md").write_text(f"---\n{head}---\n", "utf-8")
    table = pd.DataFrame(rows)
    (tmp_path / "tables").mkdir()
    for split in SPLITS:
        part = table[table["split"] == split]
        part.to_json(tmp_path / "tables" / f"{split}.jsonl", orient="records", lines=True)
    return {
        "table": {"name": "table", "path": str(tmp_path / "tables"), "task_column": "lang"},
        "folders": {"name": "table", "path": str(tmp_path / "hub")},
        "hub": {"name": "hub", "repository": str(tmp_path / "hub"), "config": "{task}"},
    }


def record(output: Path) -> dict[str, Any]:
    (path,) = (output / "records").glob("plain__*.json")
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_run_on_tables_has_the_results_of_the_same_sentences_in_token_files(pemeta, sources, run_config, tmp_path):
    del run_config["settings"]["primed"]
    found = {}
    for name, data in {"conll": run_config["data"], **sources}.items():
        config = {**run_config, "data": data, "output": str(tmp_path / name)}
        outcome = pemeta("run", config)
        assert outcome.code == 0, outcome.err
        found[name] = record(tmp_path / name)
    same = ("data_digest", "test_digest", "validation_curve", "outcomes", "unseen", "num_train")
    for one in found.values():
        assert {key: one[key] for key in same} == {key: found["conll"][key] for key in same}
    assert len({one["digest"] for one in found.values()}) == 4  # of four configurations


def test_validate_says_what_was_held_out_and_plan_counts_it(pemeta, sources, run_config, tmp_path):
    for split in ("validation", "test"):
        (tmp_path / "tables" / f"{split}.jsonl").unlink()
    del run_config["settings"]["primed"]
    config = {**run_config, "data": sources["table"]}
    outcome = pemeta("validate", "--load", config)
    assert outcome.code == 0, outcome.err
    where = f"{tmp_path / 'tables'} (cc)"
    said = f"{where} has no validation: 2 of 24 training sentences are held out for it, chosen by split_seed 0"
    assert outcome.out.splitlines().count(said) == 1
    assert pemeta("plan", config).code == 0
    counted = load_config(tmp_path / "config.yaml").data.sizes("cc")
    assert counted == {"train": 20, "validation": 2, "test": 2}


def test_another_seed_is_another_configuration_and_other_data(sources, run_config, tmp_path):
    (tmp_path / "tables" / "validation.jsonl").unlink()
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**run_config, "data": sources["table"]}))
    first, again, other = (load_config(path, [f"data.split_seed={seed}"]) for seed in (0, 0, 1))
    run = first.runs[0]
    assert first.run_digest(run) == again.run_digest(run) != other.run_digest(run)
    parts = [digest(one.data.corpus("cc").validation) for one in (first, again, other)]
    assert parts[0] == parts[1] != parts[2]


def test_sources_and_targets_must_be_other_sentences(refused, run_config, tmp_path):
    data = {"name": "table", "path": str(tmp_path), "splits": {"train": "train.csv"}}
    message = refused("validate", {**run_config, "data": data})
    assert (
        "data 'table' would give the tasks aa, bb, cc the same sentences; say which column tells them apart" in message
    )


def test_a_source_of_tables_is_the_same_after_it_was_written(sources, run_config, tmp_path):
    options = {
        "columns": {"tokens": "words", "sentence": ["a", "b"]},
        "names": ["O", "B-PER", "I-PER"],
        "types": {"aa": {"PER": "PER"}, "cc": ["PER"]},
        "separator": "tab",
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**run_config, "data": {**sources["table"], **options}}))
    data = load_config(path).data
    assert type(data).parse(data.to_config()) == data
