"""How PyTorch computes within a run: products of float32 in TF32, and operations that repeat to the bit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pemeta.errors import ConfigError

TF32_CAPABILITY = (8, 0)
"""The first GPUs that compute in TF32: Ampere's."""


@contextmanager
def numerics(tf32: bool = False, deterministic: bool = False) -> Iterator[None]:
    """Within the block, the settings of PyTorch that a configuration chooses; after it, those that were before.

    Args:
        tf32: compute matrix products of float32 in TF32, which has float32's range and 10 bits after the point;
            otherwise in float32, whatever was set before.
        deterministic: let operations have equal results each time, on a GPU too, or end with an error where they
            cannot.
    """
    precision, repeats = torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without which cuBLAS refuses
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.use_deterministic_algorithms(repeats, warn_only=only_warns)


def check_tf32(device: torch.device) -> None:
    """Check that a device computes in TF32.

    Raises:
        ConfigError: it would compute in float32, although the record says TF32.
    """
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < TF32_CAPABILITY:
        raise ConfigError(
            f"precision: tf32 needs an NVIDIA GPU of the Ampere generation or later; found device {str(device)!r}; "
            "use precision: fp32"
        )


def precision_of(dtype: torch.dtype | None, device: torch.device) -> str:
    """What passes compute in, for the identity of a run: autocast's type, ``tf32``, or ``None`` for the parameters'.

    >>> precision_of(torch.bfloat16, torch.device("cpu")), precision_of(None, torch.device("cpu"))
    ('torch.bfloat16', 'None')
    """
    tf32 = dtype is None and device.type == "cuda" and torch.get_float32_matmul_precision() != "highest"
    return "tf32" if tf32 else str(dtype)
