"""`benchmarks/gpu` in small: its checks hold on the CPU, what is wrong is told as such, and its report says where."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

GPU = Path(__file__).parents[2] / "benchmarks" / "gpu"
sys.path.insert(0, str(GPU))

from gpucheck import command, setting  # noqa: E402
from gpucheck.command import CHECKS, main, run_checks  # noqa: E402
from gpucheck.fast import Reads  # noqa: E402
from gpucheck.report import table  # noqa: E402
from gpucheck.setting import Setting  # noqa: E402

SMALL = Setting(torch.device("cpu"), small=True)
BRIEF = ["--small", "--device", "cpu", "--out"]


def test_there_are_ten_checks_which_the_page_names() -> None:
    page = (GPU / "README.md").read_text(encoding="utf-8")
    assert len(CHECKS) == 10
    assert [name for name in CHECKS if f"| {name} |" not in page] == []


def test_brief_checks_hold_on_the_cpu(tmp_path: Path) -> None:
    assert main([*BRIEF, str(tmp_path), "--only", "waits,repeats,resumes,exchanges"]) == 0
    found = json.loads((tmp_path / "cpu.json").read_text(encoding="utf-8"))
    assert found["about"]["device"] == "cpu"
    assert {one["check"] for one in found["findings"]} == {"waits", "repeats", "resumes", "exchanges"}
    assert sum(one.get("ok", False) for one in found["findings"]) == 2 + 2 + 1
    reads = {one["method"]: one["reads"] for one in found["findings"] if one["check"] == "waits"}
    assert reads["lora"] > 0
    report = (tmp_path / "cpu.md").read_text(encoding="utf-8")
    assert report.startswith("# cpu\n")
    assert "| gloo | True |" in report


def test_reads_of_a_device_are_counted() -> None:
    """Of the CPU, as if it were one; and a copy from another one, which is how a GPU's tensors become lists."""

    class Copy:
        overloadpacket = torch.ops.aten._to_copy

        def __call__(self, value: torch.Tensor) -> torch.Tensor:
            return torch.zeros(2)

    value, given = torch.ones(2), torch.empty(2, device="meta")
    with Reads(value.device) as here:
        value.sum().item()
        value.nonzero()
        value.to(torch.float64)
    there = Reads(given.device)
    for one in (given, value):
        there.__torch_dispatch__(Copy(), (), (one,))
    assert (here.count, there.count) == (2, 1)


def test_other_gradients_than_the_cpus_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of one method on a device that is not the CPU."""
    right = command.right
    exact, calls = right.gradients, []

    def off(*arguments: Any) -> Any:
        calls.append(arguments)
        found = exact(*arguments)
        if len(calls) == 1:  # the device's, of the first method
            name = max(found, key=lambda name: float(found[name].norm()))
            found[name] = 1.01 * found[name]
        return found

    monkeypatch.setattr(right, "METHODS", {"adapter": "adapter"})
    monkeypatch.setattr(right, "gradients", off)
    assert main([*BRIEF, str(tmp_path), "--only", "same as the CPU"]) == 1
    first, second = json.loads((tmp_path / "cpu.json").read_text(encoding="utf-8"))["findings"]
    assert (first["ok"], second["ok"]) == (False, True)
    assert first["apart"] == pytest.approx(0.01, rel=1e-3)


def test_a_check_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(where: Setting) -> Any:
        yield {"found": 1}
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setitem(CHECKS, "waits", broken)
    found = run_checks(SMALL, ["waits", "exchanges"])
    assert [(name, one.get("ok")) for name, one in found] == [("waits", None), ("waits", False), ("exchanges", True)]
    assert "illegal memory access" in found[1][1]["error"]


def test_what_there_is_no_time_for_is_said() -> None:
    [(name, finding)] = run_checks(SMALL, ["steps"], limit=-1)
    assert (name, finding["left_out"]) == ("steps", "out of time")


def test_gradients_that_are_missing_are_apart() -> None:
    value = {"a": torch.ones(2)}
    assert setting.apart(value, value) == 0
    assert setting.apart({}, value) == float("inf")


def test_an_unknown_check_is_refused() -> None:
    with pytest.raises(SystemExit, match="unknown check speed; known: same as the CPU, waits, steps"):
        main(["--only", "speed"])


def test_a_table_has_a_column_for_each_key() -> None:
    assert table([{"a": 1.23456, "b": ["x", "y"]}, {"a": True, "c": {"d": 1}}]).splitlines() == [
        "| a | b | c |",
        "| --- | --- | --- |",
        "| 1.23 | x, y |  |",
        "| True |  | d 1 |",
    ]


@pytest.mark.long
def test_all_checks_hold_in_small_on_the_cpu(tmp_path: Path) -> None:
    assert main([*BRIEF, str(tmp_path)]) == 0
