"""The dtypes and the buffers of a saved backbone, which transformers does not restore for all of them."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from pemeta.errors import ModelError, OutputError
from pemeta.model.manifest import MANIFEST, check_file, file_digest, find_file
from pemeta.utils.files import read_tensors, write_tensors

BUFFERS = "buffers.safetensors"


def unusual_dtypes(backbone: nn.Module, dtype: str) -> dict[str, str]:
    """Dtypes, by name, of the floating-point parameters and buffers whose dtype is not ``dtype``."""
    return {name: found for name, value in _tensors(backbone) if (found := _name(value.dtype)) != dtype}


def restore_dtypes(backbone: nn.Module, path: str | Path, dtype: str, unusual: Mapping[str, str] | None) -> None:
    """Give each floating-point parameter and buffer the dtype that it was saved with, and all digits of its value.

    transformers creates some parameters in float32 whatever the model's dtype (XLNet's maps, DeBERTa's biases) and
    rounds the saved values to that; buffers that it computes anew are not in the dtype that they had.

    Args:
        backbone: A backbone just loaded from ``path``.
        path: Its folder, or its name on the hub.
        dtype: Dtype of all tensors but the unusual ones.
        unusual: Other dtypes, by name; None if they are unknown, and only rounded parameters are repaired.
    """
    parameters, read = dict(backbone.named_parameters()), _reader(path)
    for name, value in _tensors(backbone):
        wanted = getattr(torch, (unusual or {}).get(name, dtype))
        rounded = value.itemsize < wanted.itemsize
        if value.dtype == wanted or (unusual is None and not (rounded and name in parameters)):
            continue
        stored = read(name) if rounded else None
        value.data = (value.data if stored is None else stored).to(device=value.device, dtype=wanted)


def write_buffers(plain: nn.Module, whole: nn.Module, folder: Path) -> str | None:
    """Write the buffers that are not in a backbone's own files, and return a digest; None if there are none.

    These are the floating-point ones that transformers computes anew, such as frequencies, since what it computes
    depends on the dtype that a model is made in, and those that methods add, such as VeRA's random projections.

    Args:
        plain: the backbone without methods.
        whole: the backbone with methods.
        folder: the model's folder.
    """
    saved = plain.state_dict().keys()
    values = {name: value for name, value in plain.named_buffers() if name not in saved and value.is_floating_point()}
    values |= added_buffers(plain, whole)
    if not values:
        return None
    write_tensors(folder / BUFFERS, {name: value.detach().cpu() for name, value in values.items()})
    return file_digest(folder / BUFFERS)


def added_buffers(plain: nn.Module, whole: nn.Module) -> dict[str, Tensor]:
    """The buffers, by name, that methods have added to a backbone; ``plain`` shares all others with ``whole``."""
    own = {id(buffer) for buffer in plain.buffers()}
    return {name: buffer for name, buffer in whole.named_buffers() if id(buffer) not in own}


def restore_buffers(buffers: Mapping[str, Tensor], path: str | Path, digest: str | None) -> None:
    """Restore those of the given buffers that :func:`write_buffers` wrote; nothing if it gave no digest.

    Raises:
        ModelError: the file is missing or damaged, or belongs to another model.
    """
    if digest is None:
        return
    file = find_file(path, BUFFERS)
    if file is None:
        raise ModelError(f"{str(path)!r} has no {BUFFERS}, although {MANIFEST} names it; save or download it again")
    check_file(file, digest, MANIFEST)
    try:
        values, _ = read_tensors(file)
    except OutputError as error:
        raise ModelError(f"{error.args[0].rpartition(';')[0]}; save or download the model again") from None
    for name, buffer in buffers.items():
        if name in values:
            buffer.data = values[name].to(buffer.device)


def _tensors(backbone: nn.Module) -> list[tuple[str, Tensor]]:
    every = [*backbone.named_parameters(), *backbone.named_buffers()]
    return [(name, value) for name, value in every if value.is_floating_point()]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _reader(path: str | Path) -> Callable[[str], Tensor | None]:
    """A function that returns a tensor as it is in a model's files; None if it is not there under this name."""
    find = functools.cache(functools.partial(find_file, path))

    def read(name: str) -> Tensor | None:
        file = find(SAFE_WEIGHTS_NAME)
        if file is None and (index := find(SAFE_WEIGHTS_INDEX_NAME)) is not None:
            part = json.loads(index.read_text(encoding="utf-8"))["weight_map"].get(name)
            file = None if part is None else find(part)
        if file is None:
            return None
        with safe_open(file, framework="pt") as opened:
            return opened.get_tensor(name) if name in opened.keys() else None  # noqa: SIM118 - no mapping

    return read
