"""The how-to on watching a run: its blocks run, and its tables are what runs log."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from processes import finished

from pemeta.experiments.config import GridConfig
from pemeta.experiments.runner import Runner
from pemeta.training.callbacks import TRACKERS, Callback, Tracker

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "watch-a-run.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
TINY = {"hidden_size": 16, "layers": 1, "heads": 2, "vocab_size": 200, "steps": 2, "batch_size": 4}
GRID = {
    "data": {"name": "synthetic", "train": 20, "validation": 4, "test": 4, "text_sentences": 50},
    "backbone": {"name": "tiny", "transformer": TINY},
    "sources": ["aru", "bex"],
    "targets": ["cim"],
    "validation_tasks": ["dov"],
    "max_length": 64,
    "device": "cpu",
    "threads": 1,
    "checkpoint_every": 1,
    "trackers": ["recorder"],
    "priming": {"outer_steps": 2, "support_size": 4, "query_size": 4, "validate_every": 1},
    "finetuning": {"epochs": 1},
    "settings": {"primed": {"method": "adapter", "priming": "meta"}},
}


def table(after: str) -> list[list[str]]:
    """The rows of the first table after a text."""
    rows = re.search(r"\n(\|.*\|\n)+", PAGE.split(after, 1)[1])
    assert rows is not None
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[0].strip().splitlines()[2:]]


class Recorder(Tracker):
    """Keeps the keys that a tracker gets."""

    name: ClassVar[str] = "recorder"
    keys: ClassVar[set[str]] = set()

    def open(self, run: str, settings: Mapping[str, Any]) -> None:
        """Nothing to open."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add the keys."""
        self.keys.update(values)


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The log of a grid that primes with validation, fine-tunes and saves checkpoints; its keys are in Recorder."""
    folder = tmp_path_factory.mktemp("watched")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TRACKERS, "recorder", Recorder)
        config = GridConfig(output=folder / "run", **GRID)  # type: ignore[arg-type]
        Runner(config, say=lambda line: None, progress=False, log=folder / "log.jsonl").run()
    return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_table_of_keys_is_what_is_logged(lines: list[dict[str, Any]]) -> None:
    keys = [row[0].strip("`") for row in table("### What is logged")]
    patterns = {key: re.compile(re.sub(r"[A-Z]+", ".+", key)) for key in keys}

    assert Recorder.keys
    assert [key for key in Recorder.keys if not any(p.fullmatch(key) for p in patterns.values())] == []
    assert [key for key, p in patterns.items() if not any(map(p.fullmatch, Recorder.keys))] == []


def test_the_table_of_lines_is_what_the_log_has(lines: list[dict[str, Any]]) -> None:
    shown = {row[0].strip("`"): re.sub(r"\(.*?\)", "", row[1].split(";")[0]) for row in table("`--log-json FILE`")}
    keys = {event: set(re.findall(r"`(\w+)`", text)) for event, text in shown.items()}

    assert {line["event"] for line in lines} == set(keys)
    for line in lines:
        assert set(line) == {"time", "process", "run", "event", *keys[line["event"]]}


def test_the_example_of_a_log_has_lines_as_the_log_has(lines: list[dict[str, Any]]) -> None:
    [block] = re.findall(r"^```json\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    keys = {line["event"]: set(line) for line in lines}

    for example in map(json.loads, block.splitlines()):
        assert set(example) == keys[example["event"]]


def test_the_table_of_events_is_that_of_the_callback() -> None:
    events = [row[0].strip("`") for row in table("## Write a callback")]

    assert events == [name for name in vars(Callback) if name.startswith("on_")]


def test_the_table_of_trackers_is_the_registry() -> None:
    rows = table("## Trackers")

    own = {name: kind for name, kind in TRACKERS.items() if kind.__module__.startswith("pemeta.")}  # not those of tests
    assert sorted(row[0].strip("`") for row in rows) == sorted(own)
    for row in rows:
        tracker = own[row[0].strip("`")]
        needs = f"`pip install {' '.join(tracker.packages)}`" if tracker.packages else "nothing"
        assert row[1] == f"{{class}}`~pemeta.training.callbacks.{tracker.__name__}`"
        assert row[2] == needs


@pytest.mark.slow
@pytest.mark.long
def test_the_blocks_run(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = finished("-c", "\n".join(BLOCKS), cwd=tmp_path, environment=environment, check=True)

    assert re.search(r"^\d+ of 20 epochs, the best was epoch \d+$", done.stdout, flags=re.MULTILINE)
    assert re.search(r"^pemeta: inner loop: 4 times", done.stdout, flags=re.MULTILINE)
    assert len((tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()) > 3
