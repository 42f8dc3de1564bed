"""Shared parts of the fault suites: their figures at the end, and a room with everything that a case may damage.

A suite is the set of tests with the same marker::

    @pytest.mark.faults("malformed inputs answered clearly")

Each such test counts as one trial, and as passed if it passes. A test with many trials of its own reports them by
the fixture ``figures``: ``figures(passed=40, tried=40, extra="median 0.3 s")``.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from faults.room import Room

from pemeta import MetaPriming, cli

FIGURES = "fault figures"


@dataclass
class Suite:
    """The results of the tests of one suite."""

    passed: int = 0
    tried: int = 0
    extras: list[str] = field(default_factory=list)

    def line(self, name: str) -> str:
        extra = f" ({'; '.join(self.extras)})" if self.extras else ""
        return f"{name}: {self.passed} / {self.tried}{extra}"


SUITES = pytest.StashKey[dict[str, Suite]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SUITES] = {}


def pytest_runtest_setup(item: pytest.Item) -> None:
    marker = item.get_closest_marker("faults")
    if marker is not None and marker.args:
        item.user_properties.append(("suite", marker.args[0]))


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Report the number of trials of a test, in place of the one that a test counts as."""

    def say(passed: int, tried: int, extra: str = "") -> None:
        record_property(FIGURES, (passed, tried, extra))

    return say


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: Any = yield
    properties = dict(report.user_properties)
    if "suite" in properties and (report.when == "call" or report.failed):
        suite = item.config.stash[SUITES].setdefault(properties["suite"], Suite())
        passed, tried, extra = properties.get(FIGURES, (int(report.passed), 1, ""))
        suite.passed += passed
        suite.tried += tried
        suite.extras += [extra] if extra else []
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for name, suite in config.stash[SUITES].items():
        terminalreporter.write_line(suite.line(name))


def run(folder: Path, config: dict[str, Any]) -> int:
    """Run a configuration, and return the exit code."""
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["pemeta", "run", str(folder / "config.yaml")])
        with pytest.raises(SystemExit) as end:
            cli.main()
    return int(end.value.code or 0)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, run_config_of: Callable[[Path], dict[str, Any]]) -> Path:
    """The output folder of a finished run: records, a primed model, tasks and a report."""
    folder = tmp_path_factory.mktemp("finished")
    assert run(folder, run_config_of(folder / "out")) == 0
    return folder / "out"


@pytest.fixture(scope="session")
def interrupted_run(tmp_path_factory: pytest.TempPathFactory, run_config_of: Callable[[Path], dict[str, Any]]) -> Path:
    """The output folder of a run whose priming was stopped after its first step, with a checkpoint."""
    folder = tmp_path_factory.mktemp("interrupted")
    step = MetaPriming.accumulate

    def once(self: MetaPriming, model: Any, *arguments: Any) -> Any:
        if list((folder / "out").glob("checkpoints/priming/*.safetensors")):
            raise KeyboardInterrupt
        return step(self, model, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MetaPriming, "accumulate", once)
        assert run(folder, {**run_config_of(folder / "out"), "checkpoint_every": 1}) == 130
    return folder / "out"


@pytest.fixture
def room(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    finished_run: Path,
    interrupted_run: Path,
    conll_dir: Path,
    tiny_bert_dir: Path,
    run_config_of: Callable[[Path], dict[str, Any]],
) -> Iterator[Room]:
    """A room with data, model and run that one case may damage; its folder is the working directory."""
    monkeypatch.chdir(tmp_path)
    config = run_config_of(tmp_path / "out")
    yield Room(tmp_path, config, conll_dir, tiny_bert_dir, finished_run, interrupted_run, monkeypatch)
    shutil.rmtree(tmp_path, ignore_errors=True)  # hundreds of them would fill the disk
