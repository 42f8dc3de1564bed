"""Time and peak memory of one step."""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

PROC = Path("/proc/self")


@dataclass(frozen=True)
class Measured:
    """One step.

    Attributes:
        seconds: wall time, on a GPU until it is done.
        added_bytes: most memory that the step held beyond what there was before it; None where unknown.
        peak_bytes: most memory that the process (on a GPU: the allocator) held during it; None where unknown.
    """

    seconds: float
    added_bytes: int | None
    peak_bytes: int | None


def measured(step: Callable[[], None], device: str) -> Measured:
    """Run a step and measure it."""
    cuda = device.startswith("cuda")
    before = _cuda_start() if cuda else _process_start()
    started = time.perf_counter()
    step()
    if cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    peak = torch.cuda.max_memory_allocated() if cuda else _status("VmHWM")
    return Measured(seconds, None if before is None or peak is None else peak - before, peak)


def release() -> None:
    """Give unused memory back, so that processes that wait take little.

    Except on a GPU: what PyTorch keeps there, the next step would have to ask the driver for within its time.
    """
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; others have none
        if trim is not None:
            trim(0)


def _process_start() -> int | None:
    """Set the process's peak back to what it holds now, and return that; None where the system cannot."""
    try:
        (PROC / "clear_refs").write_text("5")
    except OSError:
        return None
    return _status("VmRSS")


def _cuda_start() -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _status(field: str) -> int | None:
    try:
        lines = (PROC / "status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)
