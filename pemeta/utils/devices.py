"""Choosing the device of a run, and moving batches to it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

from pemeta.errors import ConfigError, reason
from pemeta.typing import Batch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


def resolve_device(name: str = "auto") -> torch.device:
    """The device with the given name; ``auto`` is CUDA if available, else MPS, else the CPU.

    >>> resolve_device("cpu")
    device(type='cpu')

    Raises:
        ConfigError: The name is not that of a device, or this machine has no such device.
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
    """The batch on a device; copies to CUDA go through pinned memory, so that they do not block."""
    return {key: _pinned(value, device).to(device, non_blocking=True) for key, value in batch.items()}


def in_double(value: torch.Tensor) -> torch.Tensor:
    """A number in float64, as Python computes, where its device has that."""
    return value if value.device.type == "mps" else value.double()


def read_numbers(values: Sequence[torch.Tensor | float]) -> list[float]:
    """Scalars as numbers; where some are on a device, it is waited for once.

    >>> read_numbers([torch.tensor(0.5), 2.0])
    [0.5, 2.0]
    """
    tensors = [value.detach().reshape(()) for value in values if isinstance(value, torch.Tensor)]
    read = iter(torch.stack(tensors).tolist() if tensors else ())
    return [float(next(read) if isinstance(value, torch.Tensor) else value) for value in values]


def peak_memory(device: torch.device) -> int:
    """Peak bytes so far: of PyTorch's allocator on CUDA, of the whole process elsewhere; 0 if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if resource is None:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _pinned(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor in pinned memory if it is about to be copied from the CPU to CUDA, else unchanged."""
    leaves = device.type == "cuda" and tensor.device.type == "cpu"
    return tensor.pin_memory() if leaves and not tensor.is_pinned() else tensor
