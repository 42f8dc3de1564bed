"""Last hidden states that fine-tuning computes once and reads in every epoch: in memory, or in a file where many."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import Self

from pemeta.data.examples import Decoded, Examples, Scored
from pemeta.devices import to_device
from pemeta.errors import reason
from pemeta.model import PEModel
from pemeta.partition import modes_kept

MEMORY = 2**31
"""Most bytes of hidden states that one fine-tuning run keeps in memory; 2 GiB, our choice. More go to a file."""
SPARE = 2**30
"""Bytes that the file leaves free on its disk; 1 GiB, our choice."""

_RANDOM = ("drop", "jitter")
"""Words in the names of a configuration's rates of what is random in training mode."""
_OF_HEADS = ("classifier_", "seq_classif_", "qa_", "summary_", "pooler_")
"""How the names of those rates begin that transformers' own heads have, and a backbone does not use."""


class TrunkCache:
    """Keeps the last hidden states of examples for one fine-tuning run, as long as its block lasts.

    They are in memory while all of them take at most :data:`MEMORY` bytes, and the others in a file that has no name:
    nothing of it is left when the block ends, or the process, however that happens. It is where Python's temporary
    files are (``TMPDIR``) and is mapped into memory, so that the system reads what a batch needs.

    Args:
        model: as it is now; the hidden states are those of its θ_p, in evaluation mode.
    """

    def __init__(self, model: PEModel) -> None:
        self.model = model
        self._left = MEMORY
        self._held: list[Examples] = []
        self._warned = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the hidden states, whoever still has the examples: an error's traceback, for one."""
        for held in self._held:
            object.__setattr__(held, "trunk", None)

    def hold(self, data: Examples[Decoded, Scored]) -> Examples[Decoded, Scored]:
        """The data with its last hidden states; without any where θ_a changes them, or there is no room.

        Where there is no room a warning says so, once.
        """
        if not self.model.reuses_trunk():
            return data.holding(None)
        size = trunk_bytes(self.model, data)
        if size <= self._left:
            held = with_trunk(self.model, data)
            self._left -= size
        else:
            try:
                held = _with_trunk_in_file(self.model, data, size)
            except OSError as error:
                self._warn(size, error)
                return data.holding(None)
        self._held.append(held)
        return held

    def _warn(self, size: int, error: OSError) -> None:
        if not self._warned:
            warnings.warn(
                f"hidden states of {size / 2**30:.1f} GiB cannot be kept ({reason(error)}), so each epoch computes "
                "them anew, which is slower; make room, or set TMPDIR to a folder on a larger disk",
                stacklevel=5,  # where finetune was called
            )
        self._warned = True


def trunk_bytes(model: PEModel, data: Examples) -> int:
    """What the last hidden states of all examples take: positions, times D, times the size of a number."""
    return sum(map(data.length, range(len(data)))) * model.hidden_size * int(model.backbone.dtype.itemsize)


def with_trunk(model: PEModel, data: Examples[Decoded, Scored], batch_size: int = 32) -> Examples[Decoded, Scored]:
    """The data with its last hidden states computed once, where θ_a does not change them.

    For use within one fine-tuning run: they are those of the model as it is now. Computed in evaluation mode, so
    for passes without dropout. Equal to computing them anew each time, but for rounding: an example is padded to
    the length of another batch.
    """
    if not model.reuses_trunk():
        return data.holding(None)
    # Cloned, because a view would keep the whole padded batch alive.
    trunk = {i: row.clone() for i, row in _last_hidden_states(model, data, batch_size)}
    return data.holding(tuple(trunk[i] for i in range(len(data))))


def _with_trunk_in_file(model: PEModel, data: Examples[Decoded, Scored], size: int) -> Examples[Decoded, Scored]:
    """The same, with the hidden states in a file.

    Raises:
        OSError: there is no room for it.
    """
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if free < size + SPARE:
        raise OSError(f"{free / 2**30:.1f} GiB are free in {folder}, of which {SPARE / 2**30:.1f} stay free")
    with tempfile.TemporaryFile() as file:
        return data.holding(_through_file(file, model, data))  # mapped, it stays when it is closed


def _through_file(file: BinaryIO, model: PEModel, data: Examples, batch_size: int = 32) -> tuple[Tensor, ...]:
    """The last hidden states of each example, written one batch after the other and mapped into memory."""
    order: list[int] = []
    for index, row in _last_hidden_states(model, data, batch_size):
        file.write(row.contiguous().view(torch.uint8).numpy().data)  # as bytes, because NumPy has no bfloat16
        order.append(index)
    file.flush()
    # Shared with the file: a private mapping would count as memory, and be refused where it is more than there is.
    flat = torch.from_numpy(np.memmap(file, np.uint8, "r+")).view(row.dtype).view(-1, row.shape[-1])
    trunk = dict(zip(order, flat.split([data.length(i) for i in order]), strict=True))
    return tuple(trunk[i] for i in range(len(data)))


@torch.no_grad()
def _last_hidden_states(model: PEModel, data: Examples, batch_size: int) -> Iterator[tuple[int, Tensor]]:
    """Index and last hidden states (T, D) of each example, on the CPU; longest first."""
    data = data.holding(None)
    with modes_kept(model):
        model.eval()
        for indices in data.by_length(batch_size):
            hidden = model.trunk(to_device(data.batch(indices), model.device)).cpu()
            yield from ((i, row[: data.length(i)]) for i, row in zip(indices, hidden, strict=True))


def drops(backbone: nn.Module) -> bool:
    """Whether a pass of the backbone in training mode may differ from one in evaluation mode.

    It may where a rate of dropout, in a module or in the configuration, is above zero; rates of transformers' own
    heads do not count. What cannot be told counts.

    >>> drops(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.0))), drops(nn.Sequential(nn.Dropout(0.1)))
    (False, True)
    """
    modules = [part for part in backbone.modules() if "drop" in type(part).__name__.lower()]
    rates = [getattr(part, "p", getattr(part, "drop_prob", 1.0)) for part in modules]
    batch_norms = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in backbone.modules())
    config = getattr(backbone, "config", None)
    return batch_norms or any(map(_above_zero, rates)) or (config is not None and _mentions_rate(config.to_dict()))


def _mentions_rate(config: Mapping[str, Any]) -> bool:
    """Whether a rate in a configuration, or in one within it, is above zero."""
    for key, value in config.items():
        name = str(key)  # `id2label` has numbers
        named = any(word in name for word in _RANDOM) and not name.startswith(_OF_HEADS)
        if (named and _above_zero(value)) or (isinstance(value, Mapping) and _mentions_rate(value)):
            return True
    return False


def _above_zero(rate: object) -> bool:
    """Whether a rate, or one of several, is above zero."""
    if isinstance(rate, list | tuple):
        return any(map(_above_zero, rate))
    return isinstance(rate, int | float) and rate > 0
