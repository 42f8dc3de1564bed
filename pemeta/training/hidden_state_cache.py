"""A cache of hidden states that fine-tuning computes once and reads in every epoch, in memory or in a file."""

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

from pemeta.data.arrow import Rows
from pemeta.data.examples import Decoded, Examples, Scored
from pemeta.errors import reason
from pemeta.model.pe_model import PEModel
from pemeta.utils.devices import spare_memory
from pemeta.utils.modules import modes_kept

CPU = torch.device("cpu")
MEMORY = 2**31
"""Maximum number of bytes of hidden states that one fine-tuning run keeps in memory; 2 GiB, our choice."""
DEVICE_SHARE = 0.25
"""Share of a GPU's spare memory that hidden states may take; our choice: passes and gradients need the rest."""
SPARE = 2**30
"""Number of bytes that the file leaves free on its disk; 1 GiB, our choice."""


class HiddenStateCache:
    """Keeps hidden states that do not depend on θ_a for the duration of its block, a fine-tuning run.

    For a method that acts on the backbone's output these are the last ones, and otherwise the input of the lowest
    layer that θ_a affects.

    On a GPU they stay where they are computed, if they fit into :data:`DEVICE_SHARE` of its spare memory. Otherwise up
    to :data:`MEMORY` bytes are kept in the processor's memory, and the rest, like all of examples that are in a file
    themselves, in an unnamed file, which disappears when the block or the process ends in any way. It is in the folder
    of Python's temporary files (``TMPDIR``) and is mapped into memory: the system reads only what a batch needs.

    Args:
        model: the model, whose hidden states are computed with its current θ_p in evaluation mode.
    """

    def __init__(self, model: PEModel) -> None:
        self.model = model
        self._left = MEMORY
        self._left_on_device = int(DEVICE_SHARE * spare_memory(model.device))
        self._held: list[Examples] = []
        self._warned = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Release the hidden states even if something (e.g. a traceback) still references the examples."""
        for held in self._held:
            object.__setattr__(held, "trunk", None)

    def hold(self, data: Examples[Decoded, Scored]) -> Examples[Decoded, Scored]:
        """The data with its hidden states; without any if all of them depend on θ_a, or there is not enough space.

        Also without any if they depend on what a sentence is padded to, or are not one for each position. Insufficient
        space is reported by a warning, once.
        """
        if not keeps(self.model, data):
            return data.holding(None)
        size = hidden_state_bytes(self.model, data)
        try:
            if size <= self._left_on_device:
                held = _with_hidden_states_in_memory(self.model, data, device=self.model.device)
                self._left_on_device -= size
            elif size <= self._left and not data.on_disk:
                held = _with_hidden_states_in_memory(self.model, data)
                self._left -= size
            else:
                held = _with_hidden_states_in_file(self.model, data, size)
        except _NotKeptError:
            return data.holding(None)
        except OSError as error:
            self._warn(size, error)
            return data.holding(None)
        self._held.append(held)
        return held

    def _warn(self, size: int, error: OSError) -> None:
        if not self._warned:
            warnings.warn(
                f"{size / 2**30:.1f} GiB of hidden states cannot be kept ({reason(error)}), so each epoch recomputes "
                "them, which is slower; free some space, or set TMPDIR to a folder on a larger disk",
                stacklevel=6,  # where finetune was called
            )
        self._warned = True


def hidden_state_bytes(model: PEModel, data: Examples) -> int:
    """Bytes of the hidden states of all examples: positions, times D, times the size of a number."""
    return int(data.lengths().sum()) * model.hidden_size * int(model.backbone.dtype.itemsize)


def with_hidden_states(
    model: PEModel, data: Examples[Decoded, Scored], batch_size: int = 32
) -> Examples[Decoded, Scored]:
    """The data with the hidden states that do not depend on θ_a; without any if all of them do.

    For use within one fine-tuning run, because they are those of the model in its current state. They are computed in
    evaluation mode, hence for passes without dropout, and equal the recomputed ones up to rounding: an example may be
    padded to a different length. There are none for a backbone that computes something else then.
    """
    try:
        return _with_hidden_states_in_memory(model, data, batch_size) if keeps(model, data) else data.holding(None)
    except _NotKeptError:
        return data.holding(None)


class _NotKeptError(Exception):
    """There is not one hidden state for each position of an example, or another one in each pass."""


def _with_hidden_states_in_memory(
    model: PEModel, data: Examples[Decoded, Scored], batch_size: int = 32, device: torch.device = CPU
) -> Examples[Decoded, Scored]:
    # Cloned, because a view would keep the whole padded batch alive.
    hidden = {i: row.clone() for i, row in _hidden_states(model, data, batch_size, device)}
    return data.holding(tuple(hidden[i] for i in range(len(data))), model.unchanging() or "trunk")


def _with_hidden_states_in_file(
    model: PEModel, data: Examples[Decoded, Scored], size: int
) -> Examples[Decoded, Scored]:
    """The data with its hidden states in a file.

    Raises:
        OSError: there is not enough space for it.
    """
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if free < size + SPARE:
        raise OSError(f"{free / 2**30:.1f} GiB are free in {folder}, of which {SPARE / 2**30:.1f} stay free")
    with tempfile.TemporaryFile() as file:
        kept = map_hidden_states(file, model, data)  # the mapping outlives the file object
    return data.holding(kept, model.unchanging() or "trunk")


class MappedStates(Rows[Tensor]):
    """Hidden states of each example in a file that is mapped into memory.

    Args:
        flat: Those of all examples one after the other, (N, D).
        order: The examples in that order.
        lengths: Number of positions of each example.
    """

    def __init__(self, flat: Tensor, order: np.ndarray, lengths: np.ndarray) -> None:
        self._flat, self._lengths = flat, lengths
        self._starts = np.empty_like(lengths)
        self._starts[order] = np.cumsum(lengths[order]) - lengths[order]

    def __len__(self) -> int:
        return len(self._lengths)

    def row(self, index: int) -> Tensor:  # noqa: D102 - inherited
        return self._flat[self._starts[index] : self._starts[index] + self._lengths[index]]


def map_hidden_states(file: BinaryIO, model: PEModel, data: Examples, batch_size: int = 32) -> MappedStates:
    """The hidden states of each example, written to a file batch by batch and mapped into memory."""
    order = np.empty(len(data), np.int64)
    for place, (index, row) in enumerate(_hidden_states(model, data, batch_size)):
        file.write(row.contiguous().view(torch.uint8).numpy().data)  # as bytes, because NumPy has no bfloat16
        order[place] = index
    file.flush()
    # Mapped as shared: a private mapping would count as memory, and be refused if it exceeds the available memory.
    flat = torch.from_numpy(np.memmap(file, np.uint8, "r+")).view(row.dtype).view(-1, row.shape[-1])
    return MappedStates(flat, order, data.lengths())


@torch.no_grad()
def _hidden_states(
    model: PEModel, data: Examples, batch_size: int, device: torch.device = CPU
) -> Iterator[tuple[int, Tensor]]:
    """Index and hidden states (T, D) of each example on a device, longest first."""
    data = data.holding(None)
    with modes_kept(model), model.padded_as("padded"):  # sorted by length, there is little padding
        model.eval()
        for indices in data.by_length(batch_size):
            hidden = _of_batch(model, data, indices).to(device)
            if hidden.shape[1] != max(map(data.length, indices)):
                raise _NotKeptError
            yield from ((i, row[: data.length(i)]) for i, row in zip(indices, hidden, strict=True))


def _of_batch(model: PEModel, data: Examples, indices: Sequence[int]) -> Tensor:
    key = model.unchanging()
    assert key is not None  # keeps() has checked it
    [batch] = model.reusing([model.placed(data.batch(indices))])
    if key not in batch:  # passes draw random numbers without dropout
        raise _NotKeptError
    return batch[key]


def keeps(model: PEModel, data: Examples) -> bool:
    """Whether some hidden states do not depend on θ_a, nor on what an example is padded to.

    There are more than one for each position inside the backbone if another attached method prepends a prompt.
    """
    key = model.unchanging()
    if key is None or not len(data):
        return False
    if key != "trunk" and any(method.extra_positions for method in model.attached):
        return False
    data = data.holding(None)
    with model.padded_as("padded"):
        batches = [model.placed(data.batch([index])) for index in _spread(data)]
        return len(batches) == 1 or model.joins(batches)


def _spread(data: Examples) -> list[int]:
    """Up to four examples, from the shortest to the longest; two if all are equally long."""
    lengths, last = np.unique(data.lengths()[::-1], return_index=True)
    if len(lengths) == 1:
        return list(range(min(2, len(data))))
    chosen = {part * (len(lengths) - 1) // 3 for part in range(4)}
    return [len(data) - 1 - int(last[number]) for number in sorted(chosen)]
