"""Committed results of all benchmarks: the records are those of the configuration, and give what stands beside them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from pemeta.experiments.config import Run
from pemeta.experiments.config_file import load_config
from pemeta.experiments.report_files import read_report
from pemeta.experiments.search import CHOSEN, choose, read_choices
from pemeta.reporting import to_markdown
from pemeta.reporting.records import read_records

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
COMMITTED = sorted(path.parent for path in BENCHMARKS.glob("*/results/*/records"))
each_folder = pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)


@each_folder
def test_tables_and_figures_are_those_of_the_records(folder: Path) -> None:
    report = read_report(folder)
    assert to_markdown(report) == (folder / "report.md").read_text(encoding="utf-8")


@each_folder
def test_records_are_of_the_configuration(folder: Path) -> None:
    config = load_config(folder.parents[1] / f"{folder.name}.yaml")
    assert load_config(folder / "config.yaml") == config
    search = config.to_search
    choices = read_choices(folder / CHOSEN, config)
    if search is not None:
        tried = read_records(folder / "search")
        assert all(r.digest == search.run_digest(Run(r.setting, r.target, r.seed)) for r in tried)
        diverged = {name for choice in choices.values() for name in choice.diverged}
        assert choose(config, tried, [run for run in search.runs if run.setting in diverged]) == choices
    final = config.chosen({name: choice.values for name, choice in choices.items()})
    digests = {(r.setting, r.target, r.seed): r.digest for r in read_records(folder)}
    assert digests == {run: final.run_digest(run) for run in final.runs}


@each_folder
def test_figures_are_all_there(folder: Path) -> None:
    text = (folder / "report.md").read_text(encoding="utf-8")
    pictures = re.findall(r"\(figures/(.+?)\.png\)", text)
    assert len(pictures) == len(load_config(folder / "config.yaml").report.figures)
    kept = {f"{name}.{kind}" for name in pictures for kind in ("png", "svg")}
    assert {path.name for path in (folder / "figures").glob("*")} == kept


def test_the_table_of_algorithms_is_that_of_the_records() -> None:
    folder = BENCHMARKS / "algorithms"
    spec = importlib.util.spec_from_file_location("table", folder / "table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.table() in (folder / "README.md").read_text(encoding="utf-8")


def test_equal_sentences_are_equal_and_time_has_the_rates_of_the_search() -> None:
    folder = BENCHMARKS / "algorithms"
    sentences = {record.gradient_sentences for record in read_records(folder / "results" / "sentences")}
    assert sentences == {None, 4800}
    whole = load_config(folder / "sentences.yaml")
    choices = read_choices(folder / "results" / "sentences" / CHOSEN, whole)
    chosen = whole.chosen({name: choice.values for name, choice in choices.items()})
    time = load_config(folder / "time.yaml")
    for name, setting in time.settings.items():
        other = chosen.settings[name]
        assert setting.priming is not None
        assert other.priming is not None
        primed = other.priming.model_copy(update={"outer_steps": setting.priming.outer_steps})
        assert setting == other.model_copy(update={"priming": primed, "search": None})
