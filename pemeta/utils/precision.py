"""Half precision: parameters of 16 bits, which cannot take small updates, beside values in float32, which can."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

HALF = (torch.bfloat16, torch.float16)
"""Types whose numbers are too far apart for small updates: the next number above 1 is 1.008, or 1.001."""


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type that values are updated in: float32 in place of half precision, and otherwise the same.

    >>> wide_dtype(torch.bfloat16), wide_dtype(torch.float64)
    (torch.float32, torch.float64)
    """
    return torch.float32 if dtype in HALF else dtype


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float32 if it is in half precision, and otherwise itself; differentiable."""
    return tensor.float() if tensor.dtype in HALF else tensor


def in_double(tensor: Tensor) -> Tensor:
    """A number in double precision, as Python's are, where its device has that."""
    return tensor if tensor.device.type == "mps" else tensor.double()


def as_held(value: Tensor, held: Tensor) -> Tensor:
    """A value as a pass computes with it in a parameter's place: in the parameter's type if that is half precision."""
    return value.to(held.dtype) if held.dtype in HALF else value


def casts_itself(tensor: Tensor) -> bool:
    """Whether PyTorch's autocast is on, which chooses the types of operations and needs no casts of ours."""
    return torch.is_autocast_enabled(tensor.device.type)


def first_half(values: Any) -> Tensor | None:
    """The first tensor in half precision among nested tuples, None if there is none."""
    if isinstance(values, Tensor):
        return values if values.dtype in HALF else None
    if isinstance(values, tuple):
        for value in values:
            if (found := first_half(value)) is not None:
                return found
    return None


def widened(values: Any) -> Any:
    """Nested tuples with their tensors in float32 where they are in half precision; anything else as it is."""
    if isinstance(values, Tensor):
        return wide(values)
    return tuple(map(widened, values)) if type(values) is tuple else values


def narrowed(values: Any, like: Any) -> Any:
    """The inverse of :func:`widened`: tensors in the types of those at the same places in ``like``."""
    if isinstance(values, Tensor) and isinstance(like, Tensor):
        return as_held(values, like)
    if type(values) is tuple and type(like) is tuple and len(values) == len(like):
        return tuple(map(narrowed, values, like))
    return values


@contextmanager
def kept_wide(module: nn.Module, names: Collection[str]) -> Iterator[None]:
    """Undo, for the named parameters, a conversion to half precision within the block; they are in float32 after it."""
    values = {name: value for name in names if (value := module.get_parameter(name).detach()).dtype not in HALF}
    yield
    for name, value in values.items():
        parameter = module.get_parameter(name)
        if parameter.dtype in HALF:
            parameter.data = value.to(parameter.device, torch.float32)
