"""Options that are the same for all commands: help, version, completion; and `pemeta run --quiet` and `--log-json`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from pemeta.errors import ModelError
from pemeta.experiments.executor import Executor

VERBS = (
    *("init", "run", "report", "methods", "algorithms", "validate", "data", "plan", "predict", "export", "schema"),
    "setup-learn2learn",
)


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """``pemeta`` in a process of its own, which completion needs."""
    whole = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    return subprocess.run(
        [sys.executable, "-m", "pemeta", *arguments],
        capture_output=True,
        text=True,
        env=whole,
        check=False,
        timeout=120,
    )


def completions(line: str) -> list[str]:
    found = command(_PEMETA_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(line.split(" ")) - 1))
    assert (found.returncode, found.stderr) == (0, "")
    return found.stdout.split()


@pytest.mark.parametrize("verb", [(), *((verb,) for verb in VERBS)], ids=lambda verb: " ".join(verb) or "pemeta")
def test_both_options_show_the_same_help(pemeta: Callable[..., Any], verb: tuple[str, ...]) -> None:
    short, long = pemeta(*verb, "-h"), pemeta(*verb, "--help")
    assert short == long
    assert (short.code, short.err) == (0, "")
    assert short.out.startswith(f"Usage: {' '.join(['pemeta', *verb])} ")


def test_the_list_of_commands_is_not_cut(pemeta: Callable[..., Any]) -> None:
    listed = pemeta("--help").out.split("Commands:\n")[1].splitlines()
    assert [line.split()[0] for line in listed if line.strip()] == list(VERBS)
    assert all(line.endswith(".") and not line.endswith("...") for line in listed if line.strip())


def test_the_version(pemeta: Callable[..., Any]) -> None:
    shown = pemeta("--version")
    assert (shown.code, shown.out, shown.err) == (0, f"pemeta {version('pemeta')}\n", "")


# Completion


def test_commands_and_options_are_completed() -> None:
    assert completions("pemeta re") == ["report"]
    assert completions("pemeta run --d") == ["--device", "--dry-run"]


def test_a_shell_gets_its_script() -> None:
    shown = command("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "_PEMETA_COMPLETE=complete_bash" in shown.stdout
    assert "complete -o default -F _pemeta_completion pemeta" in shown.stdout


@pytest.mark.parametrize(
    "environment",
    [
        {"_PEMETA_COMPLETE": "complete_bash"},  # without the words
        {"_PEMETA_COMPLETE": "complete_bash", "COMP_WORDS": "pemeta 'r", "COMP_CWORD": "one"},
        {"_PEMETA_COMPLETE": "complete_nothing", "COMP_WORDS": "pemeta r", "COMP_CWORD": "1"},
        {"_PEMETA_COMPLETE": "x"},
    ],
    ids=["no words", "no number", "unknown shell", "unknown instruction"],
)
def test_a_completion_that_fails_shows_no_traceback(environment: dict[str, str]) -> None:
    found = command(**environment)
    assert found.returncode == 1
    assert "Traceback" not in found.stderr
    assert found.stderr.count("\n") <= 1


def test_a_completion_that_cannot_be_installed_is_one_sentence(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("not a folder")
    outcome = command("--install-completion", "bash", HOME=str(home), _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert outcome.returncode == 2
    assert outcome.stderr.startswith("pemeta: error: completion could not be installed: ")
    assert outcome.stderr.count("\n") == 1


# --quiet


def test_a_quiet_run_says_only_where_its_report_is(
    pemeta: Callable[..., Any], run_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[bool] = []
    original = Executor.__init__

    def init(self: Executor, config: Any, say: Any, progress: bool, *others: Any) -> None:
        shown.append(progress)
        original(self, config, say, progress, *others)

    monkeypatch.setattr(Executor, "__init__", init)
    out = Path(run_config["output"])
    outcome = pemeta("run", run_config, "--quiet")
    written = f"Written to {out / 'report.md'} and {out / 'report.html'}\n"
    assert (outcome.code, outcome.out, outcome.err) == (0, written, "")
    assert shown == [False]
    assert pemeta("run", run_config, "-q").out == written
    assert "plain" in pemeta("run", run_config, "-q", "--dry-run").out  # which it is asked for


def test_a_quiet_run_reports_what_failed(
    pemeta: Callable[..., Any], run_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Executor.finetune

    def finetune(self: Executor, run: Any) -> Any:
        if run.setting == "plain":
            raise ModelError("this one is broken")
        return original(self, run)

    monkeypatch.setattr(Executor, "finetune", finetune)
    outcome = pemeta("run", run_config, "--quiet")
    assert outcome.code == 2
    assert outcome.out.startswith("Written to ")
    assert outcome.out.count("\n") == 1
    first, last = outcome.err.splitlines()
    assert first == "failed: plain → cc, seed 0: this one is broken"
    assert last.startswith("pemeta: error: this one is broken (plain → cc, seed 0): 1 of 2 runs failed; ")


# --log-json


def test_a_log_is_written_where_it_is_asked_for(
    pemeta: Callable[..., Any], run_config: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "log.jsonl"
    assert pemeta("run", run_config, "--log-json", path, "--dry-run").code == 0
    assert not path.exists()
    assert pemeta("run", run_config, "--log-json", path).code == 0
    results = [line for line in map(json.loads, path.read_text().splitlines()) if line["event"] == "result"]
    assert len(results) == 3  # a priming and two fine-tuning runs


def test_a_log_that_cannot_be_written_is_an_error_before_anything_runs(
    refused: Callable[..., str], run_config: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    assert refused("run", run_config, "--log-json", tmp_path / "file" / "log").startswith("cannot write the log ")
    assert not Path(run_config["output"]).exists()
