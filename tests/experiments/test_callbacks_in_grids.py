"""Trackers, the log, early stopping and validated priming within a grid: what is recorded, and what is run again."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pemeta.errors import DataError, OutputError
from pemeta.experiments.config import GridConfig
from pemeta.experiments.runner import Runner
from pemeta.reporting.records import Record, read_records
from pemeta.training import finetuning
from pemeta.training.callbacks import TRACKERS, Tracker
from pemeta.utils import messages


class Recorder(Tracker):
    """A tracker that keeps what it is told, of all runs; it works with one run at a time."""

    name = "recorder"
    told: ClassVar[list[tuple[Any, ...]]] = []
    is_open: ClassVar[bool] = False

    def open(self, run: str, settings: Mapping[str, Any]) -> None:
        if Recorder.is_open:
            raise RuntimeError("another run is open")
        Recorder.is_open = True
        self.told.append(("open", run, self.project))

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.told.append(("log", dict(values), step))

    def close(self) -> None:
        Recorder.is_open = False
        self.told.append(("close",))


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    monkeypatch.setitem(TRACKERS, "recorder", Recorder)
    monkeypatch.setattr(Recorder, "told", [])
    monkeypatch.setattr(Recorder, "is_open", False)
    monkeypatch.setattr(messages, "_said", set())
    return Recorder


@pytest.fixture
def validated(run_config: dict[str, Any]) -> dict[str, Any]:
    """Priming on one language, validated after every step on another; and a setting without priming."""
    brief = {"epochs": 2, "batch_size": 8, "lr": 0.01}
    run_config["priming"] |= {"validate_every": 1, "validation_finetuning": brief}
    return {**run_config, "sources": ["aa"], "validation_tasks": ["bb"], "threads": 1}


def run(raw: dict[str, Any], **options: Any) -> list[str]:
    """Run a grid; returns what it says."""
    said: list[str] = []
    Runner(GridConfig.model_validate(raw), say=said.append, progress=False, **options).run()
    return said


def records(raw: dict[str, Any]) -> dict[str, Record]:
    return {record.setting: record for record in read_records(Path(raw["output"]))}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# Trackers


def test_every_training_of_a_grid_is_tracked(run_config: dict[str, Any], recorder: type[Recorder]) -> None:
    run({**run_config, "trackers": ["recorder"]})
    opened = [told for told in recorder.told if told[0] == "open"]
    assert opened == [
        ("open", "fine-tuning__plain__cc__seed0", "out"),
        ("open", "priming__primed__seed0", "out"),
        ("open", "fine-tuning__primed__cc__seed0", "out"),
    ]
    assert [told[0] for told in recorder.told].count("close") == 3
    scores = [told[1]["validation/f1"] for told in recorder.told if told[0] == "log" and "validation/f1" in told[1]]
    found = records(run_config)
    assert scores == [*found["plain"].validation_curve, *found["primed"].validation_curve]


def test_trackers_change_no_result_and_no_digest(run_config: dict[str, Any], recorder: type[Recorder]) -> None:
    run(run_config)
    said = run({**run_config, "trackers": ["recorder"]})
    assert "2 of 2 runs are done already" in said
    assert recorder.told == []


def test_a_tracker_that_fails_in_one_run_works_in_the_next(
    run_config: dict[str, Any], recorder: type[Recorder], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The run that it was in the middle of is closed, or the next one could not be opened."""
    original, failures = Recorder.log, [OSError("the server is away")]

    def log(self: Recorder, values: Mapping[str, float], step: int) -> None:
        if failures:
            raise failures.pop()
        original(self, values, step)

    monkeypatch.setattr(Recorder, "log", log)
    run({**run_config, "trackers": ["recorder"]})
    assert [told[0] for told in recorder.told].count("open") == 3
    assert len(records(run_config)) == 2
    assert capsys.readouterr().err.count("pemeta: the tracker 'recorder' is not used any further") == 1


def test_a_tracker_that_is_not_installed_is_reported_once_a_grid(
    run_config: dict[str, Any], recorder: type[Recorder], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(Recorder, "packages", ("nowhere_to_be_had",))
    run({**run_config, "trackers": ["recorder"]})
    assert capsys.readouterr().err.count("the tracker 'recorder' is not used: nowhere_to_be_had is not installed") == 1
    assert len(records(run_config)) == 2


# The log


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.long
def test_the_log_of_a_grid(run_config: dict[str, Any], tmp_path: Path, jobs: int) -> None:
    path = tmp_path / "log" / "grid.jsonl"
    run({**run_config, "threads": 1}, log=path, jobs=jobs)
    found = lines(path)
    names = {line["run"] for line in found}
    assert len(names) == 3
    for name in names:
        events = [line["event"] for line in found if line["run"] == name]
        steps, epochs = (3, 0) if name.startswith("priming") else (6, 2)
        assert (events[0], events[-2], events[-1]) == ("start", "end", "result")
        assert (events.count("step"), events.count("validation")) == (steps, epochs)
    results = {line["run"]: line["outcome"] for line in found if line["event"] == "result"}
    for setting, record in records(run_config).items():
        assert results[f"{setting} → cc, seed 0"] == f"F1 {100 * record.score:.1f}"


def test_a_priming_has_one_name_in_the_log(run_config: dict[str, Any], tmp_path: Path) -> None:
    """Also where the first setting that needs it is not the one that describes it."""
    settings = {"all": {"method": "full", "primed_as": "some"}, "some": {"method": "adapter", "priming": "meta"}}
    path = tmp_path / "grid.jsonl"
    run({**run_config, "settings": settings}, log=path)
    found = lines(path)
    primings = [line for line in found if line["run"].startswith("priming")]
    assert {line["event"] for line in primings} >= {"start", "end", "result"}
    assert {line["run"] for line in primings} == {"priming for all, seed 0"}
    assert len({line["run"] for line in found}) == 3


def test_a_log_that_is_lost_ends_no_grid(
    run_config: dict[str, Any], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is gone after the grid has started; at the start a log that cannot be written is an error."""
    monkeypatch.setattr(messages, "_said", set())
    path = tmp_path / "log" / "grid.jsonl"
    runner = Runner(GridConfig.model_validate(run_config), say=lambda _: None, progress=False, log=path)
    shutil.rmtree(path.parent)
    path.parent.write_text("no folder any more")
    runner.run()
    assert len(records(run_config)) == 2
    assert capsys.readouterr().err.count("no more is logged there") == 1
    with pytest.raises(OutputError, match="cannot write"):
        Runner(GridConfig.model_validate(run_config), log=path)


# Early stopping


def test_early_stopping_in_a_grid(run_config: dict[str, Any], pemeta: Any) -> None:
    """Records end with the epoch in which their run stopped, and reports and figures take them."""
    settings = {
        "whole": {"method": "adapter", "finetuning": {"epochs": 12}},
        "stopped": {"method": "adapter", "finetuning": {"epochs": 12, "early_stopping": 1}},
    }
    figure = {"name": "steps", "title": "Steps", "settings": ["whole", "stopped"]}
    raw = {**run_config, "settings": settings, "report": {"figures": [figure]}}
    run(raw)
    found = records(raw)
    stopped, whole = found["stopped"], found["whole"]
    epochs = len(stopped.validation_curve)
    assert epochs < 12 == len(whole.validation_curve)
    assert stopped.validation_curve == whole.validation_curve[:epochs]
    assert stopped.best_epoch == epochs - 1
    assert stopped.config["finetuning"]["early_stopping"] == 1
    assert "early_stopping" not in whole.config["finetuning"]
    assert stopped.digest != whole.digest
    assert pemeta("report", raw["output"]).code == 0
    assert "2 of 2 runs are done already" in run(raw)


# Validated priming


def test_validated_priming_in_a_grid(validated: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "grid.jsonl"
    run(validated, log=path)
    (primed,) = (Path(validated["output"]) / "primed").iterdir()
    history = json.loads((primed / "priming.json").read_text())["history"]
    assert [step for step, _ in history["validation_scores"]] == [1, 2, 3]
    assert history["best_step"] in (1, 2, 3)
    scores = [line["values"] for line in lines(path) if line["run"].startswith("priming") and "score" in line]
    assert [list(values) for values in scores] == [["bb"]] * 3
    assert "2 of 2 runs are done already" in run(validated)


def test_a_validated_priming_that_was_interrupted_goes_on(
    validated: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {**validated, "output": str(tmp_path / "whole")}
    run(whole)
    original, calls = finetuning.evaluate, []

    def evaluate(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2 + 2 + 1:  # the run without priming, a validation, and half of another
            signal.raise_signal(signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(finetuning, "evaluate", evaluate)
    with pytest.raises(KeyboardInterrupt, match="priming stopped after step 2 of 3"):
        run(validated)
    run(validated)
    for setting, record in records(validated).items():
        other = records(whole)[setting]
        assert (record.score, record.validation_curve, record.digest) == (
            other.score,
            other.validation_curve,
            other.digest,
        )
    assert not list((Path(validated["output"]) / "checkpoints").rglob("*"))


def test_only_settings_that_validate_depend_on_validation_tasks(validated: dict[str, Any], own_conll_dir: Path) -> None:
    """Neither their presence nor their data outdates a record that they had no part in."""
    validated["data"] = {"name": "conll", "path": str(own_conll_dir)}
    without = {**validated, "priming": {**validated["priming"], "validate_every": None}, "validation_tasks": []}
    del without["priming"]["validation_finetuning"]
    run(without)
    first = records(without)
    assert "validation_tasks" not in first["primed"].config
    run(validated)
    second = records(validated)
    assert second["plain"] == first["plain"]
    assert second["primed"].digest != first["primed"].digest
    assert second["primed"].config["validation_tasks"] == ["bb"]
    path = own_conll_dir / "bb" / "validation.conll"
    path.write_text(path.read_text().partition("\n\n")[2])  # a sentence less
    said = run(validated)
    assert "1 of 2 runs is done already" in said
    third = records(validated)
    assert third["plain"] == first["plain"]
    assert third["primed"].data_digest != second["primed"].data_digest


def test_data_that_validation_lacks_is_found_before_priming(validated: dict[str, Any], own_conll_dir: Path) -> None:
    validated["data"] = {"name": "conll", "path": str(own_conll_dir)}
    (own_conll_dir / "bb" / "validation.conll").write_text("")
    with pytest.raises(DataError, match="validation"):
        run(validated)
    assert not (Path(validated["output"]) / "primed").exists()


def test_the_plan_of_a_grid_that_validates_and_stops_early(validated: dict[str, Any], pemeta: Any) -> None:
    """Validation's fine-tuning is a part of priming's time."""

    def seconds(raw: dict[str, Any]) -> dict[str, float]:
        outcome = pemeta("plan", raw, "--json")
        assert outcome.code == 0, outcome.err
        return {stage["kind"]: stage["seconds"] for stage in json.loads(outcome.out)["stages"]}

    validated["finetuning"]["early_stopping"] = 1
    every = seconds(validated)
    once = seconds({**validated, "priming": {**validated["priming"], "validate_every": 3}})
    never = seconds(
        {**validated, "priming": {"outer_steps": 3, "support_size": 4, "query_size": 4}, "validation_tasks": []}
    )
    assert every["fine-tuning"] == once["fine-tuning"] == never["fine-tuning"]
    assert every["priming"] - never["priming"] == pytest.approx(3 * (once["priming"] - never["priming"]))
    assert once["priming"] > never["priming"]
