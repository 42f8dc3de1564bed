"""What a record says of where it was made: versions and hardware; no names, addresses or paths."""

from __future__ import annotations

import datetime as dt
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "learn2learn", "higher", "torchopt")


def about(device: str) -> dict[str, Any]:
    """Date, commit, versions and hardware."""
    return {
        "date": dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%d"),
        "commit": commit(),
        "device": device,
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count(),
        "memory_gib": memory_gib("MemTotal"),
        "python": platform.python_version(),
        **{package: installed(package) for package in PACKAGES},
    }


def installed(package: str) -> str | None:
    """The version of a package, None where it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit() -> str | None:
    """The checkout's commit, with a ``+`` where pemeta itself has changes since; None outside a checkout."""
    here = Path(__file__).parent
    root = here.parents[2]
    try:
        found = _git(here, "rev-parse", "--short=12", "HEAD").strip()
        return found + ("+" if _git(root, "status", "--porcelain", "--", "pemeta") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def processor() -> str:
    """The processor's model."""
    lines = _lines("/proc/cpuinfo")
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def memory_gib(field: str = "MemAvailable") -> float | None:
    """Memory in GiB: what programs could still get, or ``MemTotal``; None where unknown."""
    found = (int(line.split()[1]) / 2**20 for line in _lines("/proc/meminfo") if line.startswith(f"{field}:"))
    value = next(found, None)
    return None if value is None else round(value, 1)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
