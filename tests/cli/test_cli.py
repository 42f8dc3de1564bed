"""The command line on a real, tiny job: every setting, nothing done twice, and interrupts that lose nothing."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from processes import SAFETY_NET, started, wait_until

from pemeta.data.conll import read_conll
from pemeta.data.sentences import LabelSet
from pemeta.experiments.build import Builder
from pemeta.experiments.config import GridConfig
from pemeta.experiments.config_file import load_config
from pemeta.methods import PEMethod
from pemeta.priming import job as priming
from pemeta.priming.algorithms import MetaPriming, PrimingAlgorithm
from pemeta.reporting.records import Record, read_record, read_records
from pemeta.utils.digests import config_digest
from pemeta.utils.files import read_tensors

STOPPING = "\nstopping after this step; repeat to stop at once\n"
GRID = {
    "head-only": {"method": "head_only", "label": "head only"},
    "adapter": {"method": {"name": "adapter", "bottleneck": 4}},
    "finetune-primed": {"method": {"name": "adapter", "bottleneck": 4}, "priming": "finetune"},
    "meta-primed": {"method": {"name": "adapter", "bottleneck": 4}, "priming": {"name": "meta", "inner_steps": 2}},
    "full": {"method": "full", "finetuning": {"lr": 1e-3}},
}


@pytest.fixture
def grid(run_config):
    """Five settings on two targets with two seeds."""
    return {**run_config, "settings": GRID, "sources": ["aa"], "targets": ["bb", "cc"], "seeds": [0, 1]}


@pytest.fixture
def times(run_config):
    """The time of the last change of every record and of everything primed, by name."""

    def call() -> dict[str, int]:
        out = Path(run_config["output"])
        files = [*out.glob("records/*"), *out.glob("primed/*/*")]
        return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in files}

    return call


def numbers(folder: Path) -> dict[str, Any]:
    """What must not depend on when and how often a run was interrupted."""
    volatile = {"seconds", "priming_seconds"}
    return {r.filename: {k: v for k, v in r.model_dump().items() if k not in volatile} for r in read_records(folder)}


def test_a_whole_run_does_every_run_once_and_nothing_twice(pemeta, grid, times, conll_dir):
    out = Path(grid["output"])
    first = pemeta("run", grid)
    assert (first.code, first.err) == (0, "")
    assert len([line for line in first.out.splitlines() if line.startswith("[")]) == 20
    assert "[20/20] full → cc, seed 1: F1 " in first.out
    assert len(re.findall("^priming for ", first.out, flags=re.MULTILINE)) == 4  # algorithms and seeds
    assert len(re.findall(r"^primed .*, seed \d: outer loss .* left\)$", first.out, flags=re.MULTILINE)) >= 3
    assert "primed meta-primed, seed 0: outer loss " in first.out
    assert "head only" in first.out.split("Results: ")[1]
    assert "Truncated test sentences: none" in first.out

    records = read_records(out)
    config = load_config(out / "config.yaml")
    assert {(r.setting, r.target, r.seed) for r in records} == set(config.runs)
    assert len(records) == 20
    test_size = len(read_conll(conll_dir / "cc" / "test.conll", LabelSet(("PER", "ORG", "LOC"))))
    for record in records:
        check(record, config, test_size)
    digest = Builder(config, out).source_digest
    assert {path.name for path in (out / "primed").iterdir()} == {
        config.primed_name(s, seed, digest) for s in ("finetune-primed", "meta-primed") for seed in (0, 1)
    }
    primed = {path.name for path in (out / "primed").glob("*/*")}
    assert {"model.safetensors", "theta_a.safetensors", "tokenizer.json", "pemeta.json", "priming.json"} <= primed
    assert not (out / "checkpoints").exists()
    assert not list(out.rglob(".*.pemeta-*"))
    assert (out / "report.md").is_file()
    assert (out / "report.html").is_file()

    before = times()
    again = pemeta("run", grid)
    assert (again.code, again.err) == (0, "")
    assert "20 of 20 runs are done already" in again.out
    assert again.out.split("Results: ")[1] == first.out.split("Results: ")[1]
    assert times() == before

    more = pemeta("run", grid, "targets=[bb, cc, aa]", "settings.full.finetuning.epochs=1")
    assert (more.code, more.err) == (0, ""), more.err
    assert "priming for" not in more.out  # the primed models are there
    done = {name for name, time in times().items() if before.get(name) != time}
    expected = {f"records/{setting}__aa__seed{seed}.json" for setting in GRID for seed in (0, 1)}  # one more target
    assert done == expected | {f"records/full__{t}__seed{seed}.json" for t in ("bb", "cc") for seed in (0, 1)}


def check(record: Record, config: GridConfig, test_size: int) -> None:
    row = config.settings[record.setting]
    run = next(c for c in config.runs if tuple(c) == (record.setting, record.target, record.seed))
    assert record.digest == config.run_digest(run) == config_digest(record.config)
    assert record.label == ("head only" if record.setting == "head-only" else record.setting)
    assert record.method == row.method.name
    assert record.priming == (row.priming.name if row.priming else None)
    assert record.inner_method == ("adapter" if record.priming == "meta" else None)
    assert record.inner_steps == (2 if record.priming == "meta" else None)
    assert record.sources == (("aa",) if row.priming else ())
    assert (record.priming_seconds is not None) == bool(row.priming)
    assert (record.num_test, record.num_truncated) == (test_size, 0)
    assert 0 <= record.score <= 1
    assert 1 <= record.best_epoch <= 2
    stored = {"head_only": 16 * 7 + 7, "adapter": 16 * 7 + 7 + 2 * 16 * 4 + 16 + 4}
    assert record.method == "full" or record.num_adapted == stored[record.method]
    assert (record.fraction_adapted == 1) == (record.method == "full")
    assert record.packages["torch"] == torch.__version__
    assert record.hardware["device"] == "cpu"


def test_other_fine_tuning_redoes_the_fine_tuning_and_not_the_priming(pemeta, run_config, times):
    pemeta("run", run_config)
    before = times()
    assert pemeta("run", run_config, "finetuning.epochs=1").code == 0
    after = times()
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {
        name for name in before if name.startswith("records/")
    }


def test_changed_data_is_run_again(pemeta, run_config, own_conll_dir):
    run_config["data"]["path"] = str(own_conll_dir)
    pemeta("run", run_config)
    before = read_records(Path(run_config["output"]))
    for name in ("cc/test.conll", "aa/train.conll"):  # what is scored; then what the model is primed on
        path = own_conll_dir / name
        path.write_text(path.read_text(encoding="utf-8").replace("\tB-", "x\tB-", 1), encoding="utf-8")
        out = pemeta("run", run_config).out
        assert "the data of primed → cc, seed 0, changed: running it again" in out
        after = read_records(Path(run_config["output"]))
        assert [r.digest for r in after] == [r.digest for r in before]
        assert all(new.data_digest != old.data_digest for new, old in zip(after, before, strict=True))
        before = after
    assert len(list(Path(run_config["output"]).glob("primed/*"))) == 2


def test_a_run_that_is_refused_leaves_the_last_configuration(pemeta, refused, run_config):
    pemeta("run", run_config)
    written = (Path(run_config["output"]) / "config.yaml").read_text()
    refused("run", run_config, "targets=[zz]")
    assert (Path(run_config["output"]) / "config.yaml").read_text() == written


def test_a_report_that_cannot_be_written_is_shown(pemeta, run_config):
    pemeta("run", run_config)
    out = Path(run_config["output"])
    (out / "report.md").unlink()
    (out / "report.md").mkdir()  # nothing can take its place
    outcome = pemeta("report", out)
    assert outcome.code == 2
    assert "F1 on all test sentences" in outcome.out


def test_a_priming_default_that_only_one_algorithm_knows(pemeta, run_config):
    run_config["settings"]["fine"] = {"method": "adapter", "priming": "finetune"}
    run_config["priming"]["inner_steps"] = 1
    assert pemeta("validate", run_config).code == 0


def test_a_new_label_is_in_the_report_and_redoes_nothing(pemeta, run_config):
    pemeta("run", run_config)
    out = Path(run_config["output"])
    before = read_records(out)
    again = pemeta("run", run_config, "settings.plain.label=new name")
    assert "2 of 2 runs are done already" in again.out
    assert read_records(out) == before
    report = (out / "report.md").read_text(encoding="utf-8")
    assert "new name" in again.out
    assert "new name" in report
    assert "plain" not in report


def test_a_primed_model_that_is_not_one_is_refused(pemeta, run_config, refused):
    pemeta("run", run_config)
    (about,) = Path(run_config["output"]).glob("primed/*/priming.json")
    about.write_text("[]")
    error = refused("run", run_config, "finetuning.epochs=1")
    assert error.endswith("is not a primed model of this version; remove that folder")


def test_other_priming_redoes_only_what_is_primed(pemeta, run_config, times):
    pemeta("run", run_config)
    before = times()
    assert pemeta("run", run_config, "priming.outer_steps=2").code == 0
    after = times()
    assert after["records/plain__cc__seed0.json"] == before["records/plain__cc__seed0.json"]
    assert after["records/primed__cc__seed0.json"] != before["records/primed__cc__seed0.json"]
    assert len([name for name in after if name.endswith("priming.json")]) == 2


def test_a_run_can_be_repeated_from_the_configuration_that_it_wrote(pemeta, run_config, tmp_path):
    pemeta("run", run_config, "seeds=[4]")
    written = Path(run_config["output"]) / "config.yaml"
    assert "2 of 2 runs are done already" in pemeta("run", written).out
    assert pemeta("run", written, f"output={tmp_path / 'other'}").code == 0
    assert numbers(tmp_path / "other") == numbers(Path(run_config["output"]))


def test_report_makes_the_same_tables_again(pemeta, run_config):
    out = Path(run_config["output"])
    ran = pemeta("run", run_config).out
    before = (out / "report.md").read_text(encoding="utf-8")
    (out / "report.md").unlink()
    reported = pemeta("report", out)
    assert (reported.code, reported.err) == (0, "")
    assert reported.out.split("Results: ")[1] == ran.split("Results: ")[1].split("Fine-tuned tasks are in")[0]
    assert (out / "report.md").read_text(encoding="utf-8") == before


def test_methods_lists_every_method_with_fields_and_paper(pemeta):
    shown = pemeta("methods")
    assert (shown.code, shown.err) == (0, "")
    for name, method in PEMethod.members().items():
        assert f"\n{name}: " in f"\n{shown.out}"
        assert method.paper in shown.out
        for field in method.model_fields:
            assert f"    {field} " in shown.out


def test_algorithms_lists_every_algorithm_and_preset_with_its_settings(pemeta):
    shown = pemeta("algorithms")
    assert (shown.code, shown.err) == (0, "")
    parts = dict(re.findall(r"^(\S[^:]*): ?(.*(?:\n    .*)*)", shown.out, flags=re.MULTILINE))
    common = parts.pop("every algorithm")
    for name, algorithm in PrimingAlgorithm.members().items():
        assert algorithm.paper in parts[name]
        for field in algorithm.model_fields:
            assert f"    {field} = " in parts[name] + common
    assert set(parts) == {*PrimingAlgorithm.members(), *PrimingAlgorithm.presets}
    assert "cost: 6 forward passes" in parts["meta"]
    assert "meta with inner_method: full, inner_lr: 0.0001, first_order: true" in parts["fomaml"]
    one = pemeta("algorithms", "{name: anil, inner_steps: 2}").out
    assert "cost: 3 forward passes" in one
    assert '    primes = ["theta_p", "theta_h"]\n' in one


def test_algorithms_that_cannot_be_listed(refused):
    assert "did you mean 'reptile'" in refused("algorithms", "reptil")
    assert "unknown key 'inner_step'; did you mean 'inner_steps'" in refused(
        "algorithms", "{name: meta, inner_step: 2}"
    )
    assert "is neither an algorithm's name nor a YAML mapping" in refused("algorithms", "{name: meta")


def test_validate_says_what_a_run_would_do_and_does_nothing(pemeta, grid):
    outcome = pemeta("validate", grid)
    assert (outcome.code, outcome.err) == (0, "")
    assert "is valid: 4 priming runs and 20 fine-tuning runs (5 settings x 2 targets x 2 seeds)" in outcome.out
    assert not Path(grid["output"]).exists()


def test_validate_counts_one_as_one(pemeta, run_config):
    only = {**run_config, "settings": {"primed": run_config["settings"]["primed"]}}
    says = "is valid: 1 priming run and 1 fine-tuning run (1 setting x 1 target x 1 seed) into "
    assert says in pemeta("validate", only).out
    searching = {**only, "search": {"seeds": [9]}}
    searching["settings"]["primed"] = {**only["settings"]["primed"], "search": {"priming.inner_lr": [0.01, 0.1]}}
    outcome = pemeta("validate", searching)
    assert "is valid: a search of 2 runs, then 1 priming run and 1 fine-tuning run (" in outcome.out
    assert len(outcome.out.splitlines()) == 1


def test_validate_says_valid_only_after_what_can_refuse(pemeta, run_config):
    outcome = pemeta("validate", "--load", run_config, "targets=[zz]")
    assert outcome.code == 2
    assert "is valid" not in outcome.out
    assert outcome.err.startswith("pemeta: error: unknown language 'zz'")


def test_an_unknown_key_lists_all_keys(refused, run_config):
    keys = refused("validate", run_config, "finetunin.epochs=3")
    assert "finetunin: unknown key 'finetunin'; did you mean 'finetuning'? Known: backbone, " in keys
    known = set(keys.rpartition("Known: ")[2].split(", "))
    assert known == {*GridConfig.model_fields, "priming", "finetuning", "scoring"}
    assert "did you mean 'priming'" in refused("validate", run_config, "primin.outer_lr=1")


def test_validate_load_reads_everything_and_runs_nothing(pemeta, grid):
    outcome = pemeta("validate", "--load", grid)
    assert (outcome.code, outcome.err) == (0, "")
    *_, loaded, last = outcome.out.splitlines()
    assert loaded == "the backbone loads and all data can be read"
    assert " is valid: 4 priming runs and 20 fine-tuning runs" in last  # said when nothing can refuse it any more
    assert not list(Path(grid["output"]).glob("records/*"))


def test_help_names_the_commands(pemeta):
    outcome = pemeta("--help")
    assert outcome.code == 0
    for command in ("run", "report", "methods", "validate", "predict", "setup-learn2learn"):
        assert f"  {command} " in outcome.out


# Interrupts


@pytest.mark.parametrize("algorithm", ["meta", "finetune"])
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_priming_goes_on_and_ends_the_same(pemeta, run_config, tmp_path, monkeypatch, kind, algorithm):
    run_config["settings"] = {"primed": {"method": "adapter", "priming": algorithm}}
    run_config["priming"]["outer_steps"] = 5
    uninterrupted = {**run_config, "output": str(tmp_path / "uninterrupted")}
    assert pemeta("run", uninterrupted).code == 0

    original = priming.PrimingJob.gradient
    steps: list[int] = []

    def step(self: Any, number: int) -> Any:
        steps.append(number)
        if len(steps) == 3:
            os.kill(os.getpid(), kind)
        return original(self, number)

    monkeypatch.setattr(priming.PrimingJob, "gradient", step)
    handler = signal.getsignal(kind)
    stopped = pemeta("run", run_config)
    assert stopped.code == 130
    assert stopped.err == (
        f"{STOPPING}\npemeta: priming stopped after step 3 of 5. What is finished is saved: the same command goes on "
        "from there.\n"
    )
    assert signal.getsignal(kind) is handler
    out = Path(run_config["output"])
    checkpoint = out / "checkpoints" / "priming" / "primed__seed0.safetensors"
    assert list(out.rglob("*.safetensors")) == [checkpoint]
    assert not list(out.glob("records/*"))

    assert pemeta("run", run_config).code == 0
    assert not checkpoint.exists()
    assert steps == [0, 1, 2, 3, 4]
    (primed,) = (out / "primed").iterdir()
    assert numbers(out) == numbers(tmp_path / "uninterrupted")
    here, there = (
        read_tensors(p / "primed" / primed.name / "model.safetensors")[0] for p in (out, tmp_path / "uninterrupted")
    )
    assert here.keys() == there.keys()
    assert all(torch.equal(here[name], there[name]) for name in here)
    histories = [
        json.loads((p / "primed" / primed.name / "priming.json").read_text())["history"]
        for p in (out, tmp_path / "uninterrupted")
    ]
    assert histories[0]["losses"] == histories[1]["losses"]
    assert histories[0]["sentences"] == histories[1]["sentences"]


def test_a_second_interrupt_stops_at_once(pemeta, run_config, monkeypatch):
    def accumulate(self: MetaPriming, *_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second signal had to end this")

    monkeypatch.setattr(MetaPriming, "accumulate", accumulate)
    outcome = pemeta("run", run_config)
    assert outcome.code == 130
    assert outcome.err.startswith(f"{STOPPING}\npemeta: stopped. What is finished is saved")


def test_an_interrupt_between_the_runs_keeps_those_that_are_done(pemeta, run_config, monkeypatch):
    from pemeta.experiments.executor import Executor

    original = Executor.finetune
    runs: list[str] = []

    def finetune(self: Executor, run: Any) -> Record:
        runs.append(run.setting)
        if len(runs) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, run)

    monkeypatch.setattr(Executor, "finetune", finetune)
    assert pemeta("run", run_config).code == 130
    out = Path(run_config["output"])
    assert [path.name for path in out.glob("records/*")] == ["plain__cc__seed0.json"]
    assert "1 of 2 runs is done already" in pemeta("run", run_config).out
    assert runs == ["plain", "primed", "primed"]
    assert read_record(out / "records" / "primed__cc__seed0.json").seed == 0


@pytest.mark.long
def test_a_real_signal_to_a_process_of_its_own(run_config, tmp_path):
    run_config["settings"] = {"primed": {"method": "adapter", "priming": "meta"}}
    run_config["priming"] |= {"outer_steps": 100_000_000}
    run_config["checkpoint_every"] = 10
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(run_config))
    with started("-m", "pemeta", "run", path) as process:
        wait_until(lambda: list(Path(run_config["output"]).glob("checkpoints/priming/*.safetensors")), process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SAFETY_NET)
    assert process.returncode == 130
    assert "priming for primed, seed 0" in out
    assert err.startswith(f"{STOPPING}\npemeta: priming stopped after step ")
    assert err.count("\n") == 4
    assert not list(tmp_path.rglob(".*.pemeta-*"))


def test_methods_tells_sizes_for_a_model(pemeta, tiny_bert_dir):
    """Of the tiny BERT of width 16, from its configuration alone."""
    adapter = "adapter: A residual bottleneck"
    shown = pemeta("methods", "adapter", "{name: lora, rank: 2, top_layers: 1}", "--model", str(tiny_bert_dir))
    assert shown.code == 0
    first, second = shown.out.split("lora: ")
    assert first.startswith(adapter)
    assert f"θ_a: {2 * 16 * 64 + 64 + 16:,} of " in first
    assert "    rank = 2\n" in second
    assert f"θ_a: {2 * 2 * (16 + 16):,} of " in second
    layers = shown.out.partition("layers of BertModel: 2 layers in encoder.layer (norms after attention and the ")[2]
    assert "    query = attention.self.query\n" in layers
    assert "    ffn_up = intermediate.dense\n" in layers
    assert "    found by names; what each part does is tried when a method is attached" in layers
    everything = pemeta("methods", "--model", str(tiny_bert_dir)).out
    assert "pemeta methods '{name: compose, ...}'" in everything
    assert "(100 %)" in everything


def test_methods_that_cannot_be_listed(refused, tiny_bert_dir):
    assert "did you mean 'lora'" in refused("methods", "lorra")
    assert "unknown key 'rang'" in refused("methods", "{name: lora, rang: 2}")
    assert "is neither a method's name nor a YAML mapping" in refused("methods", "{name: lora")
    assert "cannot load a configuration from '/nowhere'" in refused("methods", "--model", "/nowhere")
