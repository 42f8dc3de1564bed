"""Random numbers that depend on a seed and their purpose, never on the order of calls."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(seed: int, *labels: str | int) -> int:
    """A seed for one purpose, from the run's seed and the purpose's labels.

    The same arguments give the same value on every machine and Python version.

    >>> derive_seed(0, "head", "en") == derive_seed(0, "head", "en")
    True
    >>> derive_seed(0, "head", "en") == derive_seed(0, "head", "es")
    False
    """
    text = "\x1f".join([str(seed), *map(str, labels)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def numpy_generator(seed: int, *labels: str | int) -> np.random.Generator:
    """A NumPy generator seeded by :func:`derive_seed`."""
    return np.random.default_rng(derive_seed(seed, *labels))


@contextmanager
def seeded(seed: int, *labels: str | int, device: torch.device | None = None) -> Iterator[None]:
    """Seed PyTorch's global generators by :func:`derive_seed` within the block, and restore them afterwards.

    Args:
        seed: Seed of the run.
        labels: Labels of the block's purpose.
        device: Accelerator whose generator is seeded and restored as well.
    """
    with generators_kept(device):
        seed_generators(derive_seed(seed, *labels), device)
        yield


@contextmanager
def generators_kept(device: torch.device | None = None) -> Iterator[None]:
    """Restore PyTorch's global generators, the CPU's and the device's, after the block."""
    before = generator_states(device)
    try:
        yield
    finally:
        restore_generators(before, device)


def seed_generators(seed: int, device: torch.device | None) -> None:
    """Seed the generators of the CPU and the device; `torch.manual_seed` would also seed those of other devices."""
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device is not None and device.type == "mps":
        torch.mps.manual_seed(seed)


def generator_states(device: torch.device | None = None) -> dict[str, torch.Tensor]:
    """The states of PyTorch's global generators: the CPU's and, if it is an accelerator, the device's."""
    states = {"cpu": torch.get_rng_state()}
    if device is not None and device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device is not None and device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def restore_generators(states: dict[str, torch.Tensor], device: torch.device | None = None) -> None:
    """Restore the states from :func:`generator_states`; the state of another kind of device is ignored."""
    torch.set_rng_state(states["cpu"])
    if device is not None and device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device is not None and device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])
