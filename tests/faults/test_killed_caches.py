"""kill -9 at any point while files of the cache are made: the next run makes them as if nothing had happened."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from processes import finished

PROGRAM = Path(__file__).parent / "killed_caches.py"


def run(folder: Path, *points: object) -> list[dict[str, Any]]:
    outcome = finished(PROGRAM, folder, *points, check=True)
    return [json.loads(line) for line in outcome.stdout.splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An undisturbed run."""
    (found,) = run(tmp_path_factory.mktemp("whole"))
    assert found["code"] == 0, found
    return found


def wrong(whole: dict[str, Any], outcome: dict[str, Any]) -> str:
    """What is not as in the undisturbed run; an empty text if all is."""
    ended = (outcome["death"], outcome["last"]) == (-9, 0)
    same = outcome.get("found") == whole["found"] and outcome["held"] == whole["held"]
    return "" if ended and same else f"{outcome} and not {whole}"


def test_the_points_are_of_every_kind(whole: dict[str, Any]) -> None:
    kinds = Counter(whole["points"])
    assert kinds["sentence"] == 2 * 5
    assert kinds["tokenise"] == 2 * 3
    assert set(kinds) >= {"checksum", "text", "flush", "rename", "make a folder", "remove a folder"}
    assert whole["found"]["generator"][:2] == whole["found"]["source"][:2]


def test_a_few_kills(whole: dict[str, Any], tmp_path: Path) -> None:
    places = [1 + i for i, kind in enumerate(whole["points"]) if kind in ("sentence", "tokenise", "checksum")]
    outcomes = run(tmp_path, *places[2::5])[1:]
    assert len(outcomes) > 3
    assert [wrong(whole, one) for one in outcomes if wrong(whole, one)] == []


@pytest.mark.faults("kills of caches survived")
def test_kills(whole: dict[str, Any], tmp_path: Path, figures: Any) -> None:
    outcomes = run(tmp_path, *range(1, 1 + len(whole["points"])))[1:]
    failures = [wrong(whole, one) for one in outcomes if wrong(whole, one)]
    figures(passed=len(outcomes) - len(failures), tried=len(outcomes))
    assert failures == []
