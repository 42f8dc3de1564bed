"""Malformed inputs on the command line give one clear sentence, exit code 2, within seconds, and no partial files."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO, StringIO
from pathlib import Path
from typing import Any

import pytest
from faults.malformed import CASES, SAMPLE
from faults.room import Case, Room
from safetensors import safe_open

LONGEST = 900
"""Most characters of an error message."""
SECONDS = 30
"""Most processor time for a response; most take a tenth of a second."""


def whole(path: Path) -> bool:
    """Whether a file that pemeta wrote is complete."""
    if path.suffix == ".json":
        json.loads(path.read_text(encoding="utf-8"))
    elif path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            list(file.keys())
    return True


def contents(folder: Path) -> dict[Path, bytes]:
    """The content of all files, except those that a run writes before it starts or rewrites when it ends."""
    own = {"running.json", ".run.lock", ".models.lock", "config.yaml", "report.md", "report.html"}
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in own:
            with FileIO(path) as file:  # cases break the methods of Path
                found[path] = file.read()
    return found


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Limit the block's processor time, and not its wall-clock time, which a busy machine prolongs."""

    def stop(*_: object) -> None:
        raise AssertionError(f"no answer within {seconds} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def check(case: Case, room: Room, refused: Callable[..., str]) -> None:
    """Try a case."""
    arguments = case.prepare(room)
    before = contents(room.tmp)
    room.patch.setattr(sys, "stdin", StringIO(case.stdin))
    with limited(SECONDS):
        sentence = refused(*arguments)
    room.patch.undo()
    assert re.search(case.says, sentence), sentence
    assert len(sentence) <= LONGEST, sentence
    after = contents(room.tmp)
    changed = [path for path, content in before.items() if after.get(path) != content]
    assert not changed, f"changed or removed {changed}"
    assert all(whole(path) for path in after if path not in before)


def test_there_are_enough_and_no_two_are_the_same():
    names = [case.name for case in CASES]
    assert len(CASES) >= 150
    assert len(set(names)) == len(names)
    assert 30 <= len(SAMPLE) <= 75


@pytest.mark.parametrize("case", SAMPLE, ids=lambda case: case.name)
def test_a_sample(case: Case, room: Room, refused: Any) -> None:
    check(case, room, refused)


@pytest.mark.slow
@pytest.mark.faults("malformed inputs answered clearly")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_all(case: Case, room: Room, refused: Any) -> None:
    check(case, room, refused)
