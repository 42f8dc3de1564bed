"""Parts that the fault suites share: a finished run, an interrupted one, and a room that a case may damage."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from faults.room import Room

from pemeta import MetaPriming, cli


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
