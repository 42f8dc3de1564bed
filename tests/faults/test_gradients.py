"""Meta-gradients of every method and architecture against the explicit unroll, in one process and in two."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from processes import finished

PROGRAM = Path(__file__).parent / "gradients.py"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def compared(processes: int, every: int) -> dict[str, Any]:
    launcher = TORCHRUN if processes == 2 else []
    path = os.pathsep.join([str(PROGRAM.parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    outcome = finished(*launcher, PROGRAM, every, environment=environment, check=True)
    found: dict[str, Any] = json.loads(outcome.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.long
def test_a_sample_by_two_processes() -> None:
    found = compared(2, every=113)
    assert found["tried"] > 15
    assert found["wrong"] == []


@pytest.mark.faults("gradients equal to the oracle's")
@pytest.mark.parametrize("processes", [1, 2])
def test_all(processes: int, figures: Any) -> None:
    found = compared(processes, every=1)
    largest = ", ".join(f"{error:.1e} in {kind}" for kind, error in found["largest"].items())
    figures(found["tried"] - len(found["wrong"]), found["tried"], f"{processes} process(es): largest error {largest}")
    assert found["wrong"] == []
