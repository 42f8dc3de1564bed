"""`benchmarks/xlner`: the paper's configuration runs on a stand-in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import yaml
from conftest import make_sentence
from wikiann_files import SPLITS, TAGS, rows_to_parquet

from pemeta.experiments.config import GridConfig
from pemeta.experiments.config_file import load_config
from pemeta.reporting.records import read_records

XLNER = Path(__file__).parents[2] / "benchmarks" / "xlner"
LANGUAGES = {"en": "aa", "es": "bb", "hi": "cc", "af": "aa", "az": "bb", "lt": "cc", "et": "aa", "nl": "bb"}
"""Which made-up language stands in for each of the paper's."""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the layout of WikiAnn on the hub: 24, 6 and 8 made-up sentences in each of the paper's languages."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "wikiann"
    configs = []
    for number, (language, like) in enumerate(LANGUAGES.items()):
        rng = np.random.default_rng(number)
        files = [{"split": split, "path": f"{language}/{split}-*"} for split in SPLITS]
        configs.append({"config_name": language, "data_files": files})
        for split, size in zip(SPLITS, (24, 6, 8), strict=True):
            sentences = [make_sentence(rng, like) for _ in range(size)]
            rows = [([word for word, _ in s], [TAGS.index(tag) for _, tag in s]) for s in sentences]
            rows_to_parquet(folder / language / f"{split}-00000-of-00001.parquet", rows, TAGS)
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n", encoding="utf-8")
    return folder


@pytest.mark.long
def test_the_papers_configuration_runs_end_to_end_on_a_stand_in(
    stand_in: Path, tiny_bert_dir: Path, tmp_path: Path, pemeta: Callable[..., Any]
) -> None:
    outcome = pemeta(
        "run",
        XLNER / "paper.yaml",
        f"output={tmp_path / 'out'}",
        f"data.repository={stand_in}",
        f"backbone.path={tiny_bert_dir}",
        "seeds=[0]",
        "max_length=32",
        "threads=1",
        *(f"settings.{name}.priming.outer_steps=2" for name in primed(load_config(XLNER / "paper.yaml"))),
        "priming.support_size=4",
        "priming.query_size=4",
        "finetuning.epochs=1",
    )
    assert (outcome.code, outcome.err) == (0, "")
    config = load_config(tmp_path / "out" / "config.yaml")
    records = read_records(tmp_path / "out")
    assert {(r.setting, r.target, r.seed) for r in records} == set(config.runs)
    assert len(records) == len(config.settings) * 6
    seen = {r.setting: r.gradient_sentences for r in records if r.setting in ("meta", "finetune", "maml", "one-step")}
    assert set(seen.values()) == {2 * 2 * 4}  # outer steps, sources, sentences: all the same
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "Gheini, Ma and May (2023), Table 1" in report
    assert "88.23" in report
    for name in ("figure-3", "figure-4"):
        assert list((tmp_path / "out" / "figures").glob(f"*{name}*.png")), name


def primed(config: GridConfig) -> list[str]:
    return [name for name, setting in config.settings.items() if setting.priming is not None]


@pytest.mark.parametrize("name", ["paper", "minilm"])
def test_the_settings_are_those_of_the_paper(name: str) -> None:
    """§4.2, §4.3 and §5.1 by their numbers."""
    settings = load_config(XLNER / f"{name}.yaml").settings
    assert [settings[row].label[:2] for row in TABLE_1] == [f"{number}/" for number in range(1, 8)]
    assert [settings[row].method.name for row in TABLE_1] == ["full", "head_only", *["adapter"] * 5]
    assert {settings[row].method.bottleneck for row in TABLE_1[2:]} == {64}
    meta, maml, one = (settings[row].priming for row in ("meta", "maml", "one-step"))
    assert (meta.inner_method, meta.inner_steps, meta.first_order) == (None, 5, True)
    assert (maml.inner_method.name, maml.inner_steps, maml.inner_lr) == ("full", 5, 1e-4)
    assert (one.inner_method, one.inner_steps) == (None, 1)
    assert (settings["finetune"].priming.name, settings["finetune"].priming.sentences) == ("finetune", "query")
    assert (settings["meta-full"].primed_as, settings["maml-full"].primed_as) == ("meta", "maml")
    assert settings["meta-full"].method == settings["maml-full"].method == settings["full"].method
    rows = [row for row in primed(load_config(XLNER / f"{name}.yaml")) if row not in OTHER_SENTENCES]
    assert len({settings[row].priming.gradient_sentences(2) for row in rows}) == 1


OTHER_SENTENCES = ("meta-600", "finetune-410", "finetune-600", "finetune-both")
"""Settings that are there to see what more sentences in θ_p's gradient do."""
TABLE_1 = ("full", "head", "adapter", "meta", "finetune", "maml", "one-step")
