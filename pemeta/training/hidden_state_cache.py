"""Hidden states that fine-tuning computes once and reads in every epoch: in memory, or in a file where many."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Self

from pemeta.data.examples import Decoded, Examples, Scored
from pemeta.errors import reason
from pemeta.model.pe_model import PEModel
from pemeta.utils.modules import modes_kept

MEMORY = 2**31
"""Most bytes of hidden states that one fine-tuning run keeps in memory; 2 GiB, our choice. More go to a file."""
SPARE = 2**30
"""Bytes that the file leaves free on its disk; 1 GiB, our choice."""


class HiddenStateCache:
    """Keeps the hidden states of examples that θ_a does not change, as long as its block, a fine-tuning run, lasts.

    These are the last ones for a method that acts on the backbone's output, and for others those that the lowest
    layer with θ_a gets.

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
        """The data with its hidden states; without any where θ_a changes all of them, or there is no room.

        Where there is no room a warning says so, once.
        """
        if not keeps(self.model, data):
            return data.holding(None)
        size = hidden_state_bytes(self.model, data)
        if size <= self._left:
            held = _with_hidden_states_in_memory(self.model, data)
            self._left -= size
        else:
            try:
                held = _with_hidden_states_in_file(self.model, data, size)
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


def hidden_state_bytes(model: PEModel, data: Examples) -> int:
    """What the hidden states of all examples take: positions, times D, times the size of a number."""
    return sum(map(data.length, range(len(data)))) * model.hidden_size * int(model.backbone.dtype.itemsize)


def with_hidden_states(
    model: PEModel, data: Examples[Decoded, Scored], batch_size: int = 32
) -> Examples[Decoded, Scored]:
    """The data with the hidden states that θ_a does not change, computed once; without any where it changes all.

    For use within one fine-tuning run: they are those of the model as it is now. Computed in evaluation mode, so
    for passes without dropout. Equal to computing them anew each time, but for rounding: an example is padded to
    the length of another batch.
    """
    return _with_hidden_states_in_memory(model, data, batch_size) if keeps(model, data) else data.holding(None)


def _with_hidden_states_in_memory(
    model: PEModel, data: Examples[Decoded, Scored], batch_size: int = 32
) -> Examples[Decoded, Scored]:
    # Cloned, because a view would keep the whole padded batch alive.
    trunk = {i: row.clone() for i, row in _hidden_states(model, data, batch_size)}
    return data.holding(tuple(trunk[i] for i in range(len(data))), model.unchanging() or "trunk")


def _with_hidden_states_in_file(
    model: PEModel, data: Examples[Decoded, Scored], size: int
) -> Examples[Decoded, Scored]:
    """The same, with the hidden states in a file.

    Raises:
        OSError: there is no room for it.
    """
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if free < size + SPARE:
        raise OSError(f"{free / 2**30:.1f} GiB are free in {folder}, of which {SPARE / 2**30:.1f} stay free")
    with tempfile.TemporaryFile() as file:
        kept = _through_file(file, model, data)  # mapped, it stays when it is closed
    return data.holding(kept, model.unchanging() or "trunk")


def _through_file(file: BinaryIO, model: PEModel, data: Examples, batch_size: int = 32) -> tuple[Tensor, ...]:
    """The hidden states of each example, written one batch after the other and mapped into memory."""
    order: list[int] = []
    for index, row in _hidden_states(model, data, batch_size):
        file.write(row.contiguous().view(torch.uint8).numpy().data)  # as bytes, because NumPy has no bfloat16
        order.append(index)
    file.flush()
    # SharedGraph with the file: a private mapping would count as memory, and be refused where it is more than there is.
    flat = torch.from_numpy(np.memmap(file, np.uint8, "r+")).view(row.dtype).view(-1, row.shape[-1])
    trunk = dict(zip(order, flat.split([data.length(i) for i in order]), strict=True))
    return tuple(trunk[i] for i in range(len(data)))


@torch.no_grad()
def _hidden_states(model: PEModel, data: Examples, batch_size: int) -> Iterator[tuple[int, Tensor]]:
    """Index and hidden states (T, D) of each example, on the CPU; longest first."""
    data = data.holding(None)
    with modes_kept(model):
        model.eval()
        for indices in data.by_length(batch_size):
            hidden = _of_batch(model, data, indices).cpu()
            yield from ((i, row[: data.length(i)]) for i, row in zip(indices, hidden, strict=True))


def _of_batch(model: PEModel, data: Examples, indices: Sequence[int]) -> Tensor:
    key = model.unchanging()
    assert key is not None  # or nothing would be kept
    return model.reusing([model.placed(data.batch(indices))])[0][key]


@torch.no_grad()
def keeps(model: PEModel, data: Examples) -> bool:
    """Whether there are hidden states that θ_a does not change, one for each position of an example.

    A prompt that another attached method puts before the sequence makes more of them inside the backbone.
    """
    key = model.unchanging()
    if key is None or key == "trunk" or not len(data):
        return key is not None and len(data) > 0
    with modes_kept(model):
        model.eval()
        return _of_batch(model, data.holding(None), [0]).shape[1] == data.length(0)
