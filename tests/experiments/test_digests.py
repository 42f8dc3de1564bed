"""Committed records stay current when configurations get new keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest

from pemeta.data.sources import DataSource
from pemeta.experiments.backbones import TinyBackbone
from pemeta.experiments.config import AFTER_PRIMING, OF_A_RUN, WITHOUT_EFFECT, GridConfig, Run
from pemeta.experiments.config_file import load_config
from pemeta.experiments.search import CHOSEN, read_choices, with_choices
from pemeta.experiments.setting import Name, Setting
from pemeta.reporting.records import read_records
from pemeta.training.finetuning_settings import FineTuning
from pemeta.utils.digests import config_digest
from pemeta.utils.neutral import Neutral, without_neutral

RESULTS = Path(__file__).parents[2] / "benchmarks" / "xlner" / "results"
COMMITTED = sorted(path.parent for path in RESULTS.glob("*/records"))


class LaterFineTuning(FineTuning):
    """Fine-tuning with a new key; its default is not neutral."""

    patience: Annotated[int | None, Neutral(None)] = 3


class LaterSetting(Setting):
    finetuning: LaterFineTuning = LaterFineTuning()


class LaterConfig(GridConfig):
    """A configuration with new keys at the top and within its settings."""

    settings: dict[Name, LaterSetting]
    dialects: Annotated[tuple[Name, ...], Neutral(())] = ()


def later(config: GridConfig, patience: int | None, **keys: Any) -> LaterConfig:
    raw = config.model_dump(mode="json")
    for setting in raw["settings"].values():
        setting["finetuning"]["patience"] = patience
    return LaterConfig.model_validate({**raw, **keys})


def digests(config: GridConfig) -> dict[Run, str]:
    return {run: config.run_digest(run) for run in config.runs}


def primed(config: GridConfig) -> set[str]:
    return {config.primed_name(run.setting, run.seed) for run in config.runs if config.primer(run.setting)}


def test_there_are_committed_records() -> None:
    assert sum(len(read_records(folder)) for folder in COMMITTED) == 528


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_committed_records_have_the_digest_of_their_own_configuration(folder: Path) -> None:
    for record in [*read_records(folder), *read_records(folder / "search")]:
        assert config_digest(record.config) == record.digest, record.filename


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_committed_records_outlive_new_keys(folder: Path) -> None:
    config = load_config(folder / "config.yaml")
    choices = read_choices(folder / CHOSEN, config)
    assert {name for name, setting in config.settings.items() if setting.candidates} == set(choices)
    records = {Run(r.setting, r.target, r.seed): r.digest for r in read_records(folder)}
    same = later(config, None)
    final = with_choices(same, choices)
    assert digests(final) == records
    assert final.run_config(final.runs[0]) == with_choices(config, choices).run_config(final.runs[0])
    tried, search = read_records(folder / "search"), same.to_search
    assert search is not None
    assert {search.run_digest(Run(r.setting, r.target, r.seed)) for r in tried} == {r.digest for r in tried}

    for changed in (later(config, 3), later(config, None, dialects=["xx"])):
        assert not set(digests(with_choices(changed, choices)).values()) & set(records.values())


def test_a_primed_model_depends_on_its_own_new_keys_only(run_config: dict[str, Any]) -> None:
    config = GridConfig.model_validate(run_config)
    assert primed(later(config, None)) == primed(later(config, 3)) == primed(config)
    assert not primed(later(config, None, dialects=["xx"])) & primed(config)


def test_keys_that_are_no_part_of_digests_are_keys() -> None:
    assert {*WITHOUT_EFFECT, *OF_A_RUN, *AFTER_PRIMING} <= set(GridConfig.model_fields)


def test_a_backbone_outlives_new_keys(tmp_path: Path) -> None:
    class LaterBackbone(TinyBackbone):
        rotary: Annotated[bool, Neutral(False)] = True

    data = DataSource.parse("synthetic")
    mark = tmp_path / "backbone" / "digest.txt"
    mark.parent.mkdir()
    mark.write_text(config_digest([TinyBackbone().to_config(), without_neutral(data)]))
    said: list[str] = []
    LaterBackbone(rotary=False).prepare(data.unlabelled(["aru"]), tmp_path, said.append)
    assert said == []
    assert LaterBackbone().to_config()["rotary"] is True
