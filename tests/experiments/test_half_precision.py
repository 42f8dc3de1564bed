"""Grids on a backbone in half precision: it is loaded, saved, continued and served in its type."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pemeta import PEModel
from pemeta.reporting.records import read_records


def test_a_grid_in_bfloat16_runs_and_its_tasks_are_served(
    pemeta: Callable[..., Any], run_config: dict[str, Any], tmp_path: Path
) -> None:
    config = {**run_config, "backbone": {**run_config["backbone"], "dtype": "bfloat16"}}
    assert pemeta("run", config).code == 0
    records = read_records(tmp_path / "out")
    assert {record.config["backbone"]["dtype"] for record in records} == {"bfloat16"}
    (primed,) = (tmp_path / "out" / "primed").iterdir()
    model = PEModel.from_pretrained(primed)
    assert {model.get_parameter(name).dtype for name in model.partition().theta_p} == {torch.bfloat16}
    assert {model.get_parameter(name).dtype for name in model.partition().theta_a} == {torch.float32}

    folders = sorted(path.parent for path in (tmp_path / "out" / "models").rglob("pemeta.json"))
    assert len(folders) == 2  # of tasks on the primed model, and on the plain backbone, which is float32 in its file
    for folder in folders:
        outcome = pemeta("predict", folder, "--device", "cpu", "Анна мет Отто")
        assert outcome.code == 0, outcome.err
