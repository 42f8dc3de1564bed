"""The device of a run: choosing it, moving batches to it, and its memory."""

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

OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "out of memory", "storage size calculation overflow")
"""What PyTorch's errors for too little memory say: of its CPU allocator, of others, and of sizes above 2^63."""


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
    """The batch on a device; copies from the CPU to CUDA go through pinned memory, so that they do not block.

    Any other copy waits: on MPS, one that does not may read memory that has been used for something else since.
    """
    moved = {}
    for key, value in pinned(batch, device).items():
        moved[key] = value.to(device, non_blocking=_leaves(value, device))
    return moved


def pinned(batch: Batch, device: torch.device) -> Batch:
    """The batch with the tensors that are to be copied from the CPU to CUDA in pinned memory, the rest unchanged."""
    return {key: _pinned(value, device) for key, value in batch.items()}


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


def spare_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on CUDA, those that PyTorch keeps for it included; 0 on other devices."""
    if device.type != "cuda":
        return 0
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that there is too little memory, or that no memory could ever hold a tensor."""
    if isinstance(error, MemoryError | OverflowError | torch.OutOfMemoryError):
        return True
    # PyTorch has no class of its own for this on a CPU. Other errors speak of memory too: a GPU's "illegal memory
    # access", a tensor's "memory format".
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in said for words in OUT_OF_MEMORY)


def _leaves(tensor: torch.Tensor, device: torch.device) -> bool:
    """Whether a tensor is about to be copied from the CPU to CUDA."""
    return device.type == "cuda" and tensor.device.type == "cpu"


def _pinned(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor in pinned memory if it is about to be copied from the CPU to CUDA, else unchanged."""
    return tensor.pin_memory() if _leaves(tensor, device) and not tensor.is_pinned() else tensor
