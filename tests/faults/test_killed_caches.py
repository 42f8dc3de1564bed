"""kill -9 at any point while files of the cache are made: the next run makes them as if nothing had happened."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from processes import finished

TESTS = Path(__file__).parents[1]


def run(folder: Path, points: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An undisturbed run, and those that were killed."""
    outcome = finished("-m", "faults.killed_caches", folder, points, check=True, cwd=TESTS)
    whole, *killed = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert whole["code"] == 0, whole
    return whole, killed


def failures(whole: dict[str, Any], killed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs that found something else in the end than the undisturbed one, or left something else in the cache."""

    def as_ever(one: dict[str, Any]) -> bool:
        ended = (one["death"], one["last"]) == (-9, 0)
        return ended and one.get("found") == whole["found"] and one["held"] == whole["held"]

    return [one for one in killed if not as_ever(one)]


@pytest.mark.long
def test_a_few_kills(tmp_path: Path) -> None:
    whole, killed = run(tmp_path, "few")
    kinds = Counter(whole["points"])
    assert kinds["sentence"] == 2 * 5
    assert kinds["tokenise"] == 2 * 3
    assert set(kinds) >= {"checksum", "text", "flush", "rename", "make a folder", "remove a folder"}
    assert whole["found"]["generator"][:2] == whole["found"]["source"][:2]
    assert len(killed) > 3
    assert failures(whole, killed) == []


@pytest.mark.faults("kills of caches survived")
def test_kills(tmp_path: Path, figures: Any) -> None:
    whole, killed = run(tmp_path, "all")
    wrong = failures(whole, killed)
    figures(passed=len(killed) - len(wrong), tried=len(killed))
    assert wrong == []
