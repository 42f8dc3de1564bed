"""kill -9 at any point of a run, during writes too: the same command then ends with the same bits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pemeta.reporting.records import read_records
from pemeta.utils.files import read_json, read_tensors

PROGRAM = Path(__file__).parent / "killed_runs.py"
TRIED = 50
TIMES = {"seconds", "priming_seconds"}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, run_config_of: Callable[[Path], dict[str, Any]]) -> Path:
    """A run with a search, priming of two kinds, a model fine-tuned in two ways, checkpoints often, and saved tasks."""
    folder = tmp_path_factory.mktemp("kills")
    dropout = {"outer_dropout": True}
    config = run_config_of(folder / "elsewhere") | {
        "threads": 1,
        "checkpoint_every": 2,
        "priming": {"outer_steps": 5, "outer_lr": 1e-3, "support_size": 4, "query_size": 4, **dropout},
        "finetuning": {"epochs": 2, "batch_size": 8, "lr": 1e-2, "dropout": True},
        "search": {"seeds": [9]},
        "settings": {
            "plain": {"method": "adapter", "search": {"finetuning.lr": [1e-3, 1e-2]}},
            "primed": {"method": "adapter", "priming": "meta"},
            "then-all": {"method": "full", "primed_as": "primed"},
            "lora": {"method": "lora", "priming": "finetune"},
        },
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def run(config: Path, *points: object) -> list[dict[str, Any]]:
    command = [sys.executable, str(PROGRAM), str(config), str(config.parent), *map(str, points)]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
    return [json.loads(line) for line in outcome.stdout.splitlines()]


@pytest.fixture(scope="module")
def points(config: Path) -> list[str]:
    """The points of a run that nothing happens to."""
    (whole,) = run(config)
    assert whole["code"] == 0, (config.parent / "whole.log").read_text()
    return list(whole["points"])


def bits(folder: Path) -> dict[str, Any]:
    """All that a run's folder holds, but for times and what is only there while it runs."""
    found: dict[str, Any] = {}
    for part in (folder, folder / "search"):
        for record in read_records(part):
            found[str(part.relative_to(folder) / record.filename)] = record.model_dump(exclude=TIMES)
    for path in sorted(folder.rglob("*.safetensors")):
        tensors, about = read_tensors(path)
        found[str(path.relative_to(folder))] = ({name: value.tolist() for name, value in tensors.items()}, about)
    for path in sorted(folder.rglob("priming.json")):
        history = read_json(path)
        history["history"].pop("seconds")
        found[str(path.relative_to(folder))] = history
    for name in ("chosen.json", "config.yaml"):
        found[name] = (folder / name).read_text(encoding="utf-8").replace(str(folder), "FOLDER")
    return found


def survived(config: Path, outcome: dict[str, Any], whole: dict[str, Any]) -> str:
    """What is wrong with a run that was killed and taken up again; nothing if nothing is."""
    folder = config.parent / outcome["point"]
    if outcome["last"] != 0 or -9 not in outcome["deaths"]:
        return f"{outcome}: {folder.with_suffix('.log').read_text()[-2000:]}"
    found = bits(folder)
    different = [name for name in {*whole, *found} if whole.get(name) != found.get(name)]
    leftovers = [str(p) for p in folder.rglob("*.pemeta-*")] + [str(p) for p in (folder / "checkpoints").rglob("*.s*")]
    return f"{outcome}: {different} differ, {leftovers} were left" if different or leftovers else ""


def check(config: Path, points: list[str], chosen: list[str]) -> list[str]:
    """Kill at the chosen points; what went wrong."""
    outcomes = run(config, *chosen)[1:]
    whole = bits(config.parent / "whole")
    return [wrong for outcome in outcomes if (wrong := survived(config, outcome, whole))]


def spread(points: list[str], number: int) -> list[str]:
    """So many points, evenly from the first to the last."""
    return [str(1 + round(i * (len(points) - 1) / (number - 1))) for i in range(number)]


def test_the_points_are_of_every_kind(points: list[str]) -> None:
    kinds = Counter(points)
    assert set(kinds) == {
        *("text", "tensors", "flush", "flush names", "rename", "remove", "make a folder", "remove a folder"),
        *("save a backbone", "step of priming", "step of fine-tuning", "validation"),
    }
    assert kinds["step of priming"] == 10
    assert kinds["step of fine-tuning"] == 6 * (4 + 2)  # four runs and two candidates, two epochs of three batches


@pytest.mark.slow
def test_a_few_kills(config: Path, points: list[str]) -> None:
    within_writes = [str(1 + points.index(kind)) for kind in ("text", "tensors")]
    middle = len(points) // 2
    assert check(config, points, [*within_writes, str(middle), f"{middle // 2}+{middle // 3}+{middle // 4}"]) == []


@pytest.mark.faults("kills survived")
def test_kills(config: Path, points: list[str], figures: Any) -> None:
    chosen = spread(points, TRIED - 4) + [f"{len(points) // k}+{len(points) // (2 * k)}" for k in (2, 3, 4, 5)]
    wrong = check(config, points, chosen)
    kinds = Counter(points[int(point.split("+")[0]) - 1] for point in chosen)
    where = ", ".join(f"{kind} {number}" for kind, number in kinds.most_common())
    figures(len(chosen) - len(wrong), len(chosen), f"of {len(points)} points, at {where}")
    assert wrong == []
