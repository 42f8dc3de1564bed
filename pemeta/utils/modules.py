"""Parameters and training modes of any PyTorch module."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from torch import nn


def parameter_dict(module: nn.Module, names: Collection[str]) -> dict[str, nn.Parameter]:
    """The named parameters of a module, in the module's order."""
    wanted = set(names)
    return {name: parameter for name, parameter in module.named_parameters() if name in wanted}


def count(module: nn.Module, names: Collection[str]) -> int:
    """Number of scalars in the named parameters."""
    return sum(parameter.numel() for parameter in parameter_dict(module, names).values())


def state_digest(module: nn.Module) -> str:
    """A digest of the names and values of all parameters, as twelve hexadecimal digits."""
    sha = hashlib.sha256()
    for name, parameter in module.named_parameters():
        sha.update(name.encode())
        sha.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()[:12]


@contextmanager
def only_trainable(module: nn.Module, names: Collection[str]) -> Iterator[dict[str, nn.Parameter]]:
    """Make exactly the named parameters require gradients within the block; restore all flags afterwards."""
    wanted = set(names)
    before = {parameter: parameter.requires_grad for parameter in module.parameters()}
    try:
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in wanted)
        yield parameter_dict(module, names)
    finally:
        for parameter, required in before.items():
            parameter.requires_grad_(required)


@contextmanager
def modes_kept(module: nn.Module) -> Iterator[None]:
    """Restore the mode of each submodule after the block, which may call ``train`` and ``eval``."""
    before = {part: part.training for part in module.modules()}
    try:
        yield
    finally:
        for part in module.modules():
            part.training = before.get(part, module.training)
