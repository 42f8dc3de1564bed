"""Random numbers that depend on a seed and on what they are for, never on the order of calls."""

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
    """Within the block PyTorch's global generators start from :func:`derive_seed`; afterwards they are as before.

    Args:
        seed: the run's seed.
        labels: what the block is for.
        device: an accelerator whose generator is seeded and restored too.
    """
    kind = "cpu" if device is None else device.type
    with torch.random.fork_rng(
        devices=[] if kind == "cpu" else [device], device_type="cuda" if kind == "cpu" else kind
    ):
        torch.manual_seed(derive_seed(seed, *labels))
        yield
