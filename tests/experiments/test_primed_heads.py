"""Grids whose fine-tuning starts from the head that source tasks have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pemeta.experiments.config import GridConfig
from pemeta.experiments.executor import Executor
from pemeta.experiments.runner import Runner
from pemeta.experiments.saved_models import HEADS
from pemeta.reporting.records import read_records
from pemeta.training.callbacks import Callback
from pemeta.typing import State
from pemeta.utils.files import read_tensors

SHARED = {"name": "meta", "primes": ["theta_p", "theta_a", "theta_h"], "source_heads": "shared"}
VOLATILE = {"seconds", "priming_seconds"}


@pytest.fixture
def grid(run_config: dict[str, Any]) -> dict[str, Any]:
    """Two settings with one primed model, of which one starts from its head; a source language is a target too."""
    settings = {
        "new": {"method": "adapter", "priming": SHARED},
        "primed": {"method": "adapter", "primed_as": "new", "finetuning": {"head": "primed"}},
    }
    return {**run_config, "targets": ["cc", "aa", "bb"], "threads": 1, "settings": settings}


def run(raw: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Records of a grid by file name, without times."""
    Runner(GridConfig.model_validate(raw), say=lambda line: None, progress=False).run()
    found = read_records(Path(raw["output"]))
    return {record.filename: record.model_dump(exclude=VOLATILE) for record in found}


def saved_heads(output: Path) -> tuple[State, Any]:
    (file,) = output.glob(f"primed/*/{HEADS}")
    return read_tensors(file)


class Starts(Callback):
    """Takes down the heads of each fine-tuning run at its start."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.heads: dict[tuple[str, str], State] = {}
        original = Executor.finetune

        def finetune(executor: Executor, run: Any) -> Any:
            options = Executor._loop_options

            def with_start(self_: Executor, stage: Any, checkpoint: Path) -> Any:
                found = options(self_, stage, checkpoint)
                model = executor.start(run.setting, run.seed)[0]
                return {**found, "callbacks": [*found["callbacks"], _Start(self, run, model)]}

            with monkeypatch.context() as patch:
                patch.setattr(Executor, "_loop_options", with_start)
                return original(executor, run)

        monkeypatch.setattr(Executor, "finetune", finetune)


class _Start(Callback):
    def __init__(self, starts: Starts, run: Any, model: Any) -> None:
        self.starts, self.run, self.model = starts, run, model

    def on_start(self, state: Any) -> None:
        self.starts.heads[self.run.setting, self.run.target] = self.model.state(self.model.partition().theta_h)


def test_every_run_starts_from_the_shared_head(grid: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    starts = Starts(monkeypatch)
    records = run(grid)
    assert len(records) == 6
    values, specs = saved_heads(Path(grid["output"]))
    assert list(specs) == ["aa"]  # bb uses it
    for target in ("cc", "aa", "bb"):
        heads = starts.heads["primed", target]
        assert {name.split(".")[1] for name in heads} == {"task_aa", f"task_{target}"}  # none of an earlier target
        for name, value in values.items():
            assert torch.equal(heads[name.replace("task_aa", f"task_{target}")], value)
            assert torch.equal(heads[name], value)
        new = starts.heads["new", target]
        assert {name.split(".")[1] for name in new} == {f"task_{target}"}
        assert not all(torch.equal(new[name.replace("task_aa", f"task_{target}")], v) for name, v in values.items())


def test_runs_that_are_left_start_from_the_saved_head(grid: dict[str, Any], tmp_path: Path) -> None:
    """Equal to those of a grid that was not stopped, in another order too."""
    whole = run(grid)
    parts = {**grid, "output": str(tmp_path / "parts")}
    run({**parts, "settings": {"new": grid["settings"]["new"]}, "targets": ["bb"]})
    again = run({**parts, "targets": ["bb", "aa", "cc"]})
    assert again == whole


def test_a_record_says_where_the_head_started(grid: dict[str, Any]) -> None:
    config = GridConfig.model_validate(grid)
    new, primed = (config.run_config(run) for run in config.runs if run.target == "cc")
    assert "head" not in new["finetuning"]
    assert primed["finetuning"]["head"] == "primed"
    assert config.primed_name("new", 0) == config.primed_name("primed", 0)


def test_heads_that_are_not_shared_are_not_saved(run_config: dict[str, Any]) -> None:
    run(run_config)
    assert list(Path(run_config["output"]).glob("primed/*/model.safetensors"))
    assert not list(Path(run_config["output"]).rglob(HEADS))


def test_saved_tasks_are_served(grid: dict[str, Any], pemeta: Callable[..., Any]) -> None:
    assert pemeta("run", {**grid, "targets": ["cc"]}).code == 0
    model = Path(grid["output"]) / "models" / "primed-seed0"
    outcome = pemeta("predict", model, "--device", "cpu", "Анна мет Отто")
    assert (outcome.code, outcome.err) == (0, "")
    assert "Анна" in outcome.out


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(b"x")])
def test_heads_that_are_missing_or_damaged(
    grid: dict[str, Any], pemeta: Callable[..., Any], damage: Callable[[Path], Any]
) -> None:
    pemeta("run", {**grid, "targets": ["bb"], "settings": {"new": grid["settings"]["new"]}})
    (file,) = Path(grid["output"]).glob(f"primed/*/{HEADS}")
    damage(file)
    outcome = pemeta("run", {**grid, "targets": ["bb"]})
    assert outcome.code != 0
    assert f"{file} does not hold the heads that priming has left; remove {file.parent} to prime again" in outcome.err


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({}, "settings.own.finetuning.head: primed needs priming with source_heads: shared, so that there is a head"),
        ({"priming": "meta"}, "settings.own.finetuning.head: primed needs priming with source_heads: shared"),
        ({"priming": "finetune"}, "set that (algorithms with an inner loop have it), or head: new"),
        ({"primed_as": "carried"}, "settings.own.finetuning.head: primed needs priming with source_heads: shared"),
        (
            {"priming": "meta", "finetuning": {"head": "new"}, "search": {"finetuning.head": ["new", "primed"]}},
            "settings.own.finetuning.head: primed needs priming with source_heads: shared",
        ),
        ({"finetuning": {"head": "old"}}, "finetuning.head: input should be 'new' or 'primed'; found 'old'"),
    ],
)
def test_a_setting_without_a_shared_head_cannot_start_from_one(
    grid: dict[str, Any], refused: Callable[..., str], setting: dict[str, Any], message: str
) -> None:
    grid["settings"]["carried"] = {"method": "adapter", "priming": "meta"}
    grid["settings"]["own"] = {"method": "adapter", "finetuning": {"head": "primed"}, **setting}
    assert message in refused("validate", grid)
