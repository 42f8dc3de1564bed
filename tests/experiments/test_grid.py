"""Long grids: the plan, the search, several processes at a time, and what happens when one of them fails or dies."""

from __future__ import annotations

import json
import os
import signal
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from filelock import FileLock
from processes import SAFETY_NET, finished, started, wait_until

from pemeta.errors import ConfigError, ModelError, TrainingError, UnwritableError
from pemeta.experiments.config import GridConfig
from pemeta.experiments.config_file import load_config
from pemeta.experiments.executor import Executor
from pemeta.experiments.grid_log import RUNNING
from pemeta.experiments.output_folder import LOCK
from pemeta.experiments.runner import Runner
from pemeta.experiments.schedule import Schedule
from pemeta.experiments.search import choose
from pemeta.experiments.setting import Setting, Sizes
from pemeta.experiments.stage import Stage
from pemeta.experiments.workers import Workers
from pemeta.methods import Adapter
from pemeta.reporting.records import Record, read_records
from pemeta.utils.digests import slug
from pemeta.utils.durations import format_duration
from pemeta.utils.files import read_tensors

KILLED_GRID = Path(__file__).parent / "killed_grid.py"
VOLATILE = {"seconds", "priming_seconds"}


@pytest.fixture
def grid(run_config: dict[str, Any]) -> dict[str, Any]:
    """Four settings, of which two share their priming; two targets and two seeds, but not in every setting."""
    settings = {
        "plain": {"method": "adapter"},
        "primed": {"method": "adapter", "priming": "meta"},
        "primed-few": {"method": "adapter", "priming": "meta", "target_sizes": {"train": 8}},
        "head": {"method": "head_only", "targets": ["cc"], "seeds": [0]},
    }
    return {
        **run_config,
        "targets": ["bb", "cc"],
        "sources": ["aa"],
        "seeds": [0, 1],
        "threads": 1,
        "settings": settings,
    }


def config_of(raw: dict[str, Any], **changes: Any) -> GridConfig:
    return GridConfig.model_validate({**raw, **changes})


def silent(config: GridConfig, **options: Any) -> Runner:
    return Runner(config, say=lambda line: None, progress=False, **options)


def schedule_of(config: GridConfig) -> Schedule:
    return Schedule.of(Executor(config).folder)


def scores(folder: Path) -> dict[str, dict[str, Any]]:
    """Records by file name, without times."""
    return {record.filename: record.model_dump(exclude=VOLATILE) for record in read_records(folder)}


# What a setting may have of its own


def test_a_setting_has_its_own_targets_seeds_and_sizes(grid: dict[str, Any]) -> None:
    config = config_of(grid)

    assert [run for run in config.runs if run.setting == "head"] == [("head", "cc", 0)]
    assert len(config.runs) == 3 * 4 + 1
    assert config.sizes_of("primed-few").of_splits == {"train": 8, "validation": None, "test": None}
    silent(config).run()
    sizes = {record.setting: record.num_train for record in read_records(Path(grid["output"]))}
    assert sizes == {"plain": 24, "primed": 24, "primed-few": 8, "head": 24}


def test_file_names_of_long_names_are_short_and_differ() -> None:
    names = ["x" * 300, "x" * 301, "ж" * 300, "x" * 120]
    assert len({slug(name) for name in names}) == 4
    assert max(len(slug(name)) for name in names) <= 127
    assert slug("x" * 120) == "x" * 120


def test_sizes_are_merged_however_they_are_given(grid: dict[str, Any]) -> None:
    given = {"train": 8}
    own = [given, Sizes(train=8), Setting(method=Adapter(), target_sizes=Sizes(train=8))]
    for run in ({"train": 20, "test": 5}, Sizes(train=20, test=5)):
        for sizes in own:
            setting = sizes if isinstance(sizes, Setting) else {"method": "adapter", "target_sizes": sizes}
            config = config_of(grid, settings={"a": setting}, target_sizes=run)
            assert config.sizes_of("a") == Sizes(train=8, test=5)
            assert GridConfig.model_validate(config.model_dump(mode="json")) == config


def test_a_search_uses_the_setting_s_sizes_or_its_own(grid: dict[str, Any]) -> None:
    rates = {"search": {"finetuning.lr": [1.0]}, "method": "adapter"}
    settings = {"few": {**rates, "target_sizes": {"train": 8}}, "all": rates}
    for search, expected in ({}, [8, 20]), ({"target_sizes": {"train": 3}}, [3, 3]):
        found = config_of(grid, settings=settings, target_sizes={"train": 20, "test": 5}, search=search).to_search
        assert found is not None
        assert [found.sizes_of(name).train for name in found.settings] == expected
        assert {found.sizes_of(name).test for name in found.settings} == {5}


def test_one_primed_model_is_fine_tuned_in_two_ways(grid: dict[str, Any]) -> None:
    grid["settings"] = {
        "all": {"method": "full", "primed_as": "some"},
        "some": {"method": "adapter", "priming": {"name": "meta", "inner_method": "full", "outer_steps": 2}},
    }
    config = config_of(grid, seeds=[0], finetuning={"epochs": 1})
    said: list[str] = []
    Runner(config, said.append, progress=False).run()
    out = Path(grid["output"])
    assert sum(line.startswith("priming for") for line in said) == 1
    assert len(list((out / "primed").iterdir())) == 1
    records = {record.setting: record for record in read_records(out) if record.target == "bb"}
    assert {(r.priming, r.inner_method, r.inner_steps, r.sources) for r in records.values()} == {
        ("meta", "full", 5, ("aa",))
    }
    assert len({record.gradient_sentences for record in records.values()}) == 1
    assert records["all"].config["priming"] == records["some"].config["priming"]
    assert records["all"].config["primed_method"] == records["some"].config["method"]
    executor = Executor(config)
    (model, values, _), (other, others, _) = (executor.start(name, 0) for name in ("some", "all"))
    assert values.keys() == others.keys()  # the adapter is there in both
    assert all(torch.equal(values[name], others[name]) for name in values)
    assert len(model.partition().theta_a) < len(other.partition().theta_a) == len(others)


def test_a_primed_model_of_a_setting_without_a_choice_is_not_used(grid: dict[str, Any]) -> None:
    meta = {"method": "adapter", "priming": "meta", "search": {"finetuning.lr": [1.0, 2.0]}}
    full = {"method": "full", "primed_as": "meta"}
    config = config_of(grid, settings={"full": full, "meta": meta, "head": {"method": "head_only"}})
    assert set(config.chosen({}).settings) == {"head"}
    assert set(config.chosen({"meta": {"finetuning.lr": 2.0}}).settings) == {"full", "meta", "head"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"primed_as": "plian"}, "settings.own.primed_as: unknown setting 'plian'; did you mean 'plain'"),
        ({"primed_as": "plain"}, "settings.own.primed_as: setting 'plain' has no priming of its own"),
        ({"primed_as": "primed", "priming": "meta"}, "primed_as: 'primed' and priming exclude each other; remove one"),
        ({"primed_as": "primed", "search": {"finetuning.lr": [1]}}, "can only use the choices of other settings"),
        ({"targets": ["dd"]}, "settings.own.targets: 'dd' is not one of the grid's targets, ['bb', 'cc']"),
        ({"seeds": [7]}, r"settings.own.seeds: 7 is not one of the grid's seeds, [0, 1]"),
        ({"targets": ["cc", "cc"]}, "settings.own.targets: duplicate value in ['cc', 'cc']"),
        ({"search": "plain"}, "settings.own.search: setting 'plain' has no candidates of its own"),
        ({"search": "plian"}, "settings.own.search: unknown setting 'plian'; did you mean 'plain'"),
        ({"search": {"finetuning.lr": []}}, "settings.own.search"),
        ({"search": {"finetuning.rl": [1]}}, "finetuning.rl: unknown key 'rl'"),
        ({"search": {"lr": [1]}}, "'lr': expected a key of this setting below method, priming or finetuning"),
        ({"search": {"priming.inner_lr": [0.1]}}, "'priming.inner_lr': expected a key of this setting"),
        ({"search": {"finetuning.lr": [0.1, -1]}}, "finetuning.lr: input should be greater than 0; found -1"),
    ],
)
def test_what_a_setting_cannot_have(
    grid: dict[str, Any], refused: Callable[..., str], setting: Any, message: str
) -> None:
    grid["settings"]["own"] = {"method": "adapter", **setting}
    assert message in refused("validate", grid)


def test_the_seeds_of_a_search_are_none_of_the_run(grid: dict[str, Any], refused: Callable[..., str]) -> None:
    grid["settings"]["plain"]["search"] = {"finetuning.lr": [0.1, 0.2]}
    assert "search.seeds: 1 is also one of the grid's seeds" in refused("validate", {**grid, "search": {"seeds": [1]}})


# The plan


def test_a_primed_model_is_made_once_before_the_runs_that_need_it(grid: dict[str, Any]) -> None:
    plan = schedule_of(config_of(grid))

    assert [(s.setting, s.seed) for s in plan.primings] == [("primed", 0), ("primed", 1)]
    assert len(plan.finetunings) == 13
    for priming in plan.primings:
        needing = [stage for stage in plan.finetunings if stage.primed == priming.primed]
        assert {stage.setting for stage in needing} == {"primed", "primed-few"}
        assert plan.stages.index(priming) < min(map(plan.stages.index, needing))


def test_what_can_be_begun(grid: dict[str, Any]) -> None:
    config = config_of(grid, settings={"primed": grid["settings"]["primed"], "plain": grid["settings"]["plain"]})
    plan = schedule_of(config)
    priming, *waiting = [stage for stage in plan.stages if stage.seed == 0 and stage.setting == "primed"]
    plain = next(stage for stage in plan.stages if stage.setting == "plain")

    assert plan.next() == priming
    assert plan.next(running=[priming]) == plain  # what needs it has to wait
    plan.finish(priming, 1.0)
    assert plan.next() == waiting[0]
    assert plan.next(running=[waiting[0]], last=plain).setting == "plain"  # its model is at hand
    plan.fail(next(one for one in plan.primings if one.seed == 1), "broken")
    assert list(plan.failed.values()) == ["broken"]
    assert {(stage.setting, stage.seed) for stage in plan.given_up} == {("primed", 1)}
    assert all(stage.seed == 0 or stage.setting == "plain" for stage in plan.left)


def test_times_are_guessed_from_what_is_most_alike(grid: dict[str, Any]) -> None:
    plan = schedule_of(config_of(grid))
    runs = {(s.setting, s.target, s.seed): s for s in plan.finetunings}

    assert "remaining time unknown" in plan.table()[-1]
    plan.finish(runs["plain", "bb", 0], 10.0)
    assert plan.estimate(runs["head", "cc", 0]) == 10.0  # any run is better than none
    assert plan.estimate(plan.primings[0]) is None
    assert plan.time_left() == "more than 2 min left"  # 12 runs
    plan.finish(runs["plain", "cc", 0], 20.0)
    assert plan.estimate(runs["plain", "bb", 1]) == 10.0
    assert plan.estimate(runs["primed", "bb", 1]) == 15.0  # the same method
    plan.finish(plan.primings[0], 100.0)
    assert plan.time_left() == "about 4 min left"  # 10 + 20 + 100 + 15 * 9 s
    assert plan.time_left(jobs=2) == "about 2 min left"
    assert [format_duration(s) for s in (5.0, 89.0, 90.0, 5340.0, 5400.0)] == [
        "5 s",
        "89 s",
        "2 min",
        "89 min",
        "1 h 30 min",
    ]


def test_a_dry_run_changes_nothing_and_tells_how_far_it_is(grid: dict[str, Any], pemeta: Callable[..., Any]) -> None:
    out = Path(grid["output"])
    first = pemeta("run", grid, "--dry-run")
    assert (first.code, first.err) == (0, "")
    assert not list(out.rglob("*"))
    assert "0/13 fine-tuning and 0/2 priming runs are done; remaining time unknown" in first.out

    pemeta("run", grid, "seeds=[0]", "settings.head.targets=[cc]")
    (out / RUNNING).write_text(json.dumps({"process": os.getpid(), "stages": ["plain → bb, seed 1"]}))
    assert "being done" not in pemeta("run", grid, "--dry-run").out  # that process was killed
    with FileLock(out / LOCK):
        second = pemeta("run", grid, "--dry-run", "--jobs", "2")
    lines = [" ".join(line.split()) for line in second.out.splitlines()]
    assert lines[0] == "setting priming fine-tuning left"
    assert lines[1].startswith("plain – 2/4 ")
    assert lines[2].startswith("primed 1/2 2/4 ")
    assert lines[3].startswith("primed-few shared 2/4 ")
    assert lines[4] == "head – 1/1 done"
    assert lines[5].startswith("7/13 fine-tuning and 1/2 priming runs are done; about ")
    assert lines[5].endswith("left with 2 at a time")
    assert lines[6] == f"being done by process {os.getpid()}: plain → bb, seed 1"


# The search


@pytest.fixture
def open_grid(grid: dict[str, Any]) -> dict[str, Any]:
    """Two settings of which one searches and the other takes its choice over."""
    settings = {
        "plain": {"method": "adapter", "search": {"finetuning.lr": [1e-7, 1e-2, 1e-6]}},
        "primed": {"method": "adapter", "priming": "meta", "search": ["plain"]},
    }
    return {**grid, "settings": settings, "search": {"targets": ["bb"]}, "finetuning": {"epochs": 12, "batch_size": 4}}


def test_a_search_takes_what_is_best_on_validation_data(open_grid: dict[str, Any], pemeta: Callable[..., Any]) -> None:
    out = Path(open_grid["output"])
    outcome = pemeta("run", open_grid)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.count("reading data and backbone") == 1
    assert "chosen for plain: finetuning.lr 0.01 (F1 " in outcome.out
    assert "finetuning.lr at the edge of what was tried" in outcome.out

    tried = read_records(out / "search")
    assert {record.config["finetuning"]["lr"] for record in tried} == {1e-7, 1e-2, 1e-6}
    assert {(record.target, record.seed) for record in tried} == {("bb", 1000)}
    assert all(record.score == record.validation_score for record in tried)  # no test sentence was looked at
    assert {record.num_test for record in tried} == {6}
    assert {record.config["finetuning"]["lr"] for record in read_records(out)} == {1e-2}
    chosen = json.loads((out / "chosen.json").read_text())
    assert chosen["plain"]["values"] == {"finetuning.lr": 0.01}
    assert next(iter(chosen["plain"]["scores"])) == "plain, finetuning.lr=0.01"
    assert load_config(out / "config.yaml").settings["plain"].candidates

    again = pemeta("run", open_grid)
    assert "8 of 8 runs are done already" in again.out
    assert again.out.count("chosen for") == 1
    dry = pemeta("run", open_grid, "--dry-run")
    assert "3/3 fine-tuning and 0/0 priming runs are done; nothing left to do" in dry.out.replace("–", "0/0")


def test_choices_of_several_settings_are_taken_over_in_order(grid: dict[str, Any]) -> None:
    settings = {
        "meta": {"method": "adapter", "priming": "meta", "search": {"priming.inner_lr": [1.0], "finetuning.lr": [1.0]}},
        "full": {"method": "full", "search": {"finetuning.lr": [2.0]}},
        "both": {"method": "full", "priming": "meta", "search": ["meta", "full"]},
    }
    config = config_of(grid, settings=settings)
    both = config.chosen({"meta": {"priming.inner_lr": 7.0, "finetuning.lr": 7.0}, "full": {"finetuning.lr": 8.0}})
    assert both.settings["both"].priming.inner_lr == 7.0
    assert both.settings["both"].finetuning.lr == 8.0
    assert both.to_search is None


def test_a_choice_needs_all_runs_of_a_candidate(open_grid: dict[str, Any]) -> None:
    config = config_of(open_grid, search={"targets": ["bb", "cc"], "seeds": [5, 6]})
    search = config.to_search
    assert search is not None

    def record(setting: str, target: str, seed: int, f1: float) -> Any:
        return Record.model_construct(
            setting=setting, target=target, seed=seed, validation_metric="f1", validation_score=f1
        )

    names = list(search.settings)
    runs = [record(names[0], t, s, 0.5) for t in ("bb", "cc") for s in (5, 6)]
    runs += [record(names[1], t, s, 0.9) for t in ("bb", "cc") for s in (5,)]
    runs += [record(names[2], t, s, 0.5) for t in ("bb", "cc") for s in (5, 6)]
    assert choose(config, runs) == {}  # the candidate that lacks runs may be the best
    diverged = [run for run in search.runs if run.setting == names[1] and run.seed == 6]
    choice = choose(config, runs, diverged)["plain"]
    assert choice.values == {"finetuning.lr": 1e-7}  # of equals the first
    assert choice.scores == {names[0]: 0.5, names[2]: 0.5}
    assert choice.at_edge == ("finetuning.lr",)
    assert choose(config, runs[4:6]) == {}


def test_nothing_of_a_search_stays_in_memory(open_grid: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last model would be held beside those of the grid: two need not fit."""
    original, searching = Executor.start, set()
    alive: list[bool] = []

    def start(self: Executor, setting: str, seed: int) -> Any:
        if self.config.scored_on == "validation":
            searching.add(weakref.ref(self))
        else:
            alive.extend(executor() is not None for executor in searching)
        return original(self, setting, seed)

    monkeypatch.setattr(Executor, "start", start)
    silent(config_of(open_grid)).run()
    assert alive
    assert not any(alive)


@pytest.mark.parametrize("error", [ModelError("broken"), TrainingError("the loss is not finite")])
@pytest.mark.long
def test_what_a_failed_search_leaves_out(
    open_grid: dict[str, Any], pemeta: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A run that is missing leaves the setting out, and a training that diverged only the candidate."""
    open_grid["settings"]["other"] = {"method": "head_only"}
    original = Executor.finetune

    def finetune(self: Executor, run: Any) -> Record:
        if "lr=1e-07" in run.setting:
            raise error
        if isinstance(error, ModelError) and (run.setting, run.seed) == ("other", 1):
            raise ModelError("lost")
        return original(self, run)

    monkeypatch.setattr(Executor, "finetune", finetune)
    outcome = pemeta("run", open_grid)
    done = {record.setting for record in read_records(Path(open_grid["output"]))}
    if isinstance(error, TrainingError):
        assert (outcome.code, done) == (0, {"plain", "primed", "other"})
        assert "8 of 12" not in outcome.out
        assert "12/12 fine-tuning" in pemeta("run", open_grid, "--dry-run").out
    else:
        assert (outcome.code, done) == (2, {"other"})
        assert (
            "plain, primed could not be run, because runs of their search failed; lost (other → bb, seed 1, and 1 more)"
            in outcome.err
        )
        assert "2 of 4 runs failed; finished runs are saved" in outcome.err


def test_two_runs_do_not_share_a_folder(grid: dict[str, Any], refused: Callable[..., str]) -> None:
    out = Path(grid["output"])
    out.mkdir()
    with FileLock(out / LOCK):
        assert (
            refused("run", grid)
            == f"{out} is in use by another run; wait until it ends, or give another folder with output=..."
        )


def test_devices_are_looked_at_before_anything_runs(grid: dict[str, Any], refused: Callable[..., str]) -> None:
    assert "cuda:9" in refused("run", grid, "--jobs", "2", "--device", "cpu, cuda:9")


# Several at a time, and what can happen to them


@pytest.mark.long
def test_several_at_a_time_give_the_same_records(grid: dict[str, Any]) -> None:
    one, two = (config_of(grid, output=f"{grid['output']}-{name}") for name in ("one", "two"))
    silent(one).run()
    lines: list[str] = []
    Runner(two, say=lines.append, progress=False, jobs=2).run()

    assert scores(one.output) == scores(two.output)
    tasks = [
        {str(path.relative_to(config.output)) for path in config.output.glob("models/**/*")} for config in (one, two)
    ]
    assert tasks[0] == tasks[1]  # no process removed what another had saved
    assert len([path for path in tasks[0] if path.endswith("task.safetensors")]) == 13
    assert sum(line.startswith("[") for line in lines) == 13
    assert "[13/13] " in lines[-1]
    assert not (two.output / RUNNING).exists()


def test_a_failing_run_is_reported_and_the_rest_goes_on(
    grid: dict[str, Any], pemeta: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Executor.finetune

    def finetune(self: Executor, run: Any) -> Record:
        if run == ("plain", "cc", 1):
            raise ModelError("this one is broken")
        if run == ("head", "cc", 0):
            raise RuntimeError("unforeseen")
        return original(self, run)

    monkeypatch.setattr(Executor, "finetune", finetune)
    out = Path(grid["output"])
    outcome = pemeta("run", grid)
    assert outcome.code == 2
    assert "failed: plain → cc, seed 1: this one is broken" in outcome.out
    assert "failed: head → cc, seed 0: RuntimeError: unforeseen" in outcome.out
    assert (
        "RuntimeError: unforeseen (head → cc, seed 0); this one is broken (plain → cc, seed 1): 2 of 13" in outcome.err
    )
    assert outcome.err.count("\n") == 1
    assert len(read_records(out)) == 11
    (details,) = (out / "errors").iterdir()
    assert "Traceback" in details.read_text()
    assert "2 of 13 runs missing" in outcome.out  # the report is made all the same

    monkeypatch.setattr(Executor, "finetune", original)
    assert pemeta("run", grid).code == 0
    assert len(read_records(out)) == 13


def test_what_needs_a_failed_priming_is_not_tried(grid: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def primed(self: Executor, setting: str, seed: int) -> Any:
        raise ModelError("cannot be primed")

    monkeypatch.setattr(Executor, "primed", primed)
    with pytest.raises(RuntimeError, match=r"^cannot be primed \(priming .*, and \d more\): 8 of 13 runs failed"):
        silent(config_of(grid)).run()
    assert {record.setting for record in read_records(Path(grid["output"]))} == {"plain", "head"}


def test_a_full_disk_ends_the_run(grid: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def finetune(self: Executor, run: Any) -> Record:
        raise UnwritableError("cannot write it: no space left")

    monkeypatch.setattr(Executor, "finetune", finetune)
    with pytest.raises(UnwritableError, match="no space left"):
        silent(config_of(grid)).run()


@pytest.mark.long  # tests/faults kills runs too
def test_a_process_that_dies_costs_its_stage_only(grid: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number is told, as when a machine runs out of memory, and another process takes its place."""
    grid["settings"] = {"plain": {"method": "adapter"}, "other": {"method": "head_only"}}
    assign, assigned = Workers.assign, []

    def assign_and_kill(self: Workers, number: int, stage: Stage) -> None:
        assigned.append(stage)
        process = self._workers[number].process.pid
        if len(assigned) == 4:  # both have done one, at least
            os.kill(process, signal.SIGSTOP)  # or it might be done with the stage before it is killed
            assign(self, number, stage)
            os.kill(process, signal.SIGKILL)
        else:
            assign(self, number, stage)

    monkeypatch.setattr(Workers, "assign", assign_and_kill)
    with pytest.raises(RuntimeError, match=r"its process died \(SIGKILL.*: 1 of 8 runs failed"):
        silent(config_of(grid), jobs=2).run()
    assert len(read_records(Path(grid["output"]))) == 7
    silent(config_of(grid)).run()
    assert len(read_records(Path(grid["output"]))) == 8


@pytest.mark.long  # tests/faults kills runs too, a few of them in every run of the tests
def test_a_grid_that_is_killed_gives_the_same_records(grid: dict[str, Any], tmp_path: Path) -> None:
    """kill -9 once within priming and once between the runs; then the same command."""
    grid["checkpoint_every"] = 2
    grid["settings"] = {name: grid["settings"][name] for name in ("plain", "primed")}
    whole = config_of(grid, output=str(tmp_path / "whole"))
    silent(whole).run()

    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(grid))
    run = ("run", path, "--jobs", "2")
    for written in "checkpoints/priming/*.safetensors", "records/primed__*":
        killed = finished(KILLED_GRID, *run, environment={**os.environ, "DEADLY": written})
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert list(Path(grid["output"]).glob(written))
    again = finished("-m", "pemeta", *run, check=True)
    assert "of 8 runs are done already" in again.stdout
    assert scores(Path(grid["output"])) == scores(whole.output)


@pytest.fixture
def long_grid(grid: dict[str, Any], tmp_path: Path) -> tuple[Path, list[Path]]:
    """A grid whose two primings do not end before a test does; its file, and the primings' checkpoints."""
    grid["priming"] |= {"outer_steps": 100_000_000}
    grid["checkpoint_every"] = 50
    grid["settings"] = {"primed": {"method": "adapter", "priming": "meta"}}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(grid))
    folder = Path(grid["output"], "checkpoints", "priming")
    return path, [folder / f"primed__seed{seed}.safetensors" for seed in grid["seeds"]]


def test_an_interrupt_reaches_the_processes_and_they_save(long_grid: tuple[Path, list[Path]]) -> None:
    path, states = long_grid
    with started("-m", "pemeta", "run", path, "--jobs", "2") as process:
        wait_until(lambda: all(state.exists() for state in states), process)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=SAFETY_NET)
    assert process.returncode == 130
    assert told.splitlines()[-1].startswith("pemeta: stopped. What is finished is saved")
    assert "Traceback" not in told
    steps = [len(read_tensors(state)[1]["about"]["losses"]) for state in states]
    assert any(number % 50 for number in steps), steps  # by chance not: one in 2500


@pytest.mark.long
def test_processes_do_not_outlive_the_run(long_grid: tuple[Path, list[Path]]) -> None:
    path, states = long_grid
    with started("-m", "pemeta", "run", path, "--jobs", "2") as process:
        wait_until(lambda: all(state.exists() for state in states), process)
        children = psutil.Process(process.pid).children()
        process.kill()
        assert len(children) >= 2
        wait_until(lambda: not any(map(is_alive, children)))


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_device_of_the_command_line_comes_first(grid: dict[str, Any], refused: Callable[..., str]) -> None:
    assert "cuda:7" in refused("run", grid, "--device", "cuda:7")


def test_what_a_method_does_not_have_is_found_before_anything_is_trained(
    grid: dict[str, Any], refused: Callable[..., str]
) -> None:
    """Also if ``primes`` has its default, which suits the default method of the inner loop."""
    grid["settings"]["primed"] |= {
        "method": "head_only",
        "priming": {"name": "reptile", "inner_method": None, "query_size": 0},
    }
    said = refused("validate", grid, "--load")
    assert "settings.primed.priming: primes lists theta_a, but the inner loop's method leaves θ_a empty" in said


def test_values_of_a_setting(grid: dict[str, Any]) -> None:
    setting = config_of(grid).settings["primed"]
    changed = setting.having({"priming.inner_lr": 0.5, "method.bottleneck": 8, "finetuning.lr": 0.1})
    assert (changed.priming.inner_lr, changed.method.bottleneck, changed.finetuning.lr) == (0.5, 8, 0.1)
    assert setting.priming.inner_lr == 0.03
    with pytest.raises(ConfigError, match="expected a key"):
        setting.having({"label": "x"})
    with pytest.raises(
        ConfigError, match=r"priming\.name: 'maml' is a preset of several keys; write a setting for each"
    ):
        setting.having({"priming.name": "maml"})
