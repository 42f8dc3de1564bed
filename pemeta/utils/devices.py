"""Which device a run is on, and moving batches to it."""

from __future__ import annotations

import sys

import torch

from pemeta.errors import ConfigError, reason
from pemeta.typing import Batch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


def resolve_device(name: str = "auto") -> torch.device:
    """The device of a name: ``auto`` is CUDA, else MPS, else the CPU.

    >>> resolve_device("cpu")
    device(type='cpu')

    Raises:
        ConfigError: the name is not a device, or there is none of that kind here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # `meta` holds no values
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} cannot be used here: {reason(error)}; use device: auto or cpu") from None
    return device


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device; to CUDA through pinned memory, so that nothing waits for the copy."""
    return {key: _pinned(value, device).to(device, non_blocking=True) for key, value in batch.items()}


def peak_memory(device: torch.device) -> int:
    """Peak bytes so far: of PyTorch's allocator on CUDA, of the whole process elsewhere; 0 if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if resource is None:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _pinned(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor in pinned memory, where it is to go from the CPU to CUDA and is not there already."""
    leaves = device.type == "cuda" and tensor.device.type == "cpu"
    return tensor.pin_memory() if leaves and not tensor.is_pinned() else tensor
