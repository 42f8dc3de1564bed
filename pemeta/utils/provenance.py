"""Provenance of a result: package versions and hardware."""

from __future__ import annotations

import os
import platform
from importlib import metadata

import torch

PACKAGES = ("pemeta", "torch", "learn2learn", "transformers", "tokenizers", "datasets", "seqeval", "pydantic")


def package_versions() -> dict[str, str]:
    """Versions of the packages that affect a result; ``missing`` for a package that is not installed."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "missing"
    return versions


def hardware(device: torch.device) -> dict[str, str | int]:
    """The hardware of a run: processor architecture, cores, threads, device."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "device": name,
    }
