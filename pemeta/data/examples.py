"""What data ready for a backbone is to the rest of the library, whatever the kind of task."""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Generic

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase
from typing_extensions import Self, TypeVar

from pemeta.data.metrics import TaskScores
from pemeta.errors import ConfigError
from pemeta.typing import Batch

Decoded = TypeVar("Decoded", default=Any)
Scored = TypeVar("Scored", bound=TaskScores, default=Any)


class HiddenStates(tuple[torch.Tensor, ...]):
    """Hidden states (T, D) of each example: the last ones, or those that a layer gets.

    Attributes:
        key: what a batch calls them.
    """

    key: str

    def __new__(cls, rows: Iterable[torch.Tensor], key: str) -> Self:
        """From one tensor for each example."""
        made = super().__new__(cls, rows)
        made.key = key
        return made


class Examples(ABC, Generic[Decoded, Scored]):
    """Examples with their gold labels, ready for a backbone: one subclass for each kind of task.

    Nothing else in the library asks which kind it has: priming and fine-tuning see batches, prediction sees what
    :meth:`decode` makes of a head's output, and the best epoch is the one with the highest ``scores(...).main``.
    """

    kind: ClassVar[str]
    """Name of the :class:`~pemeta.HeadSpec` that suits the examples."""
    unit: ClassVar[str] = "example"
    """What messages call one of the examples."""
    per_position: ClassVar[bool]
    """Whether a head gives logits for each position, (B, T, C), or for each example, (B, C)."""

    num_truncated: int
    """Examples that were longer than the backbone is to see."""
    trunk: tuple[torch.Tensor, ...] | None
    """For each example its hidden states (T, D), where they were computed before."""

    @property
    @abstractmethod
    def outputs(self) -> Sequence[object]:
        """What each of the head's C logits stands for, such as labels or word-piece indices."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of examples."""

    @abstractmethod
    def length(self, index: int) -> int:
        """Positions of an example, without the padding that a batch puts behind them."""

    @abstractmethod
    def tensors(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """The inputs of the backbone and ``labels``, for the examples at ``indices``, on the CPU."""

    @abstractmethod
    def digest(self) -> str:
        """Twelve hexadecimal digits that change when any input or label does."""

    @abstractmethod
    def decode(self, prediction: Any, index: int) -> Decoded:
        """What a head predicts for the example at ``index``, in the terms of the data.

        Args:
            prediction: the example's row of :meth:`pemeta.Head.predictions`, as numbers.
            index: of the example.
        """

    @abstractmethod
    def scores(self, decoded: Sequence[Decoded]) -> Scored:
        """Scores of what was decoded for every example, in their order."""

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """The examples at ``indices`` as tensors on the CPU, with their ``trunk`` where it is there."""
        batch = self.tensors(indices)
        if self.trunk is not None:
            key = self.trunk.key if isinstance(self.trunk, HiddenStates) else "trunk"
            batch[key] = pad_sequence([self.trunk[i] for i in indices], batch_first=True)
        return batch

    def by_length(self, size: int) -> Iterator[list[int]]:
        """Indices of all examples in batches of up to ``size`` of similar length, longest first."""
        order = sorted(range(len(self)), key=lambda i: -self.length(i))
        return (order[start : start + size] for start in range(0, len(order), size))

    def holding(self, trunk: tuple[torch.Tensor, ...] | None, key: str = "trunk") -> Self:
        """The same examples with other hidden states, or without any; batches have them under ``key``."""
        held = copy.copy(self)
        kept = None if trunk is None else HiddenStates(trunk, key)
        object.__setattr__(held, "trunk", kept)  # a copy of a frozen value, which nobody has yet
        return held

    def describe_outputs(self, most: int = 20) -> str:
        """The outputs as a message names them."""
        shown = ", ".join(map(str, self.outputs[:most]))
        return f"{shown} ..." if len(self.outputs) > most else shown


class PieceExamples(Examples[Decoded, Scored]):
    """Examples that are word pieces.

    Attributes:
        input_ids: word-piece indices, one sequence per example.
        pad_id: index that fills up shorter examples of a batch.
    """

    input_ids: tuple[torch.Tensor, ...]
    pad_id: int

    @abstractmethod
    def gold(self, index: int) -> torch.Tensor:
        """The labels of one example: a scalar, or one for each piece."""

    def __len__(self) -> int:
        return len(self.input_ids)

    def length(self, index: int) -> int:  # noqa: D102 - inherited
        return len(self.input_ids[index])

    def inputs(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """``input_ids`` and ``attention_mask`` (B, T)."""
        ids = [self.input_ids[i] for i in indices]
        padded = pad_sequence(ids, batch_first=True, padding_value=self.pad_id)
        lengths = torch.tensor([len(i) for i in ids])
        mask = torch.arange(padded.shape[1]) < lengths[:, None]
        return {"input_ids": padded, "attention_mask": mask.to(padded.dtype)}

    def digest(self) -> str:
        """Twelve hexadecimal digits that change when any piece or label does."""
        sha = hashlib.sha256()
        for index, ids in enumerate(self.input_ids):
            sha.update(ids.numpy().tobytes())
            sha.update(self.gold(index).numpy().tobytes())
            sha.update(b"|")
        return sha.hexdigest()[:12]


def checked_length(length: int | None, least: int, tokenizer: PreTrainedTokenizerBase, what: str = "max_length") -> int:
    """A number of pieces that the tokenizer's model takes; by default 128, our choice, or the model's limit if less.

    Raises:
        ConfigError: it is longer than the model takes, or below ``least``.
    """
    if length is None:
        length = min(128, tokenizer.model_max_length)
    if not least <= length <= tokenizer.model_max_length:
        raise ConfigError(f"{what} must be from {least} to the model's {tokenizer.model_max_length}; found {length}")
    return length
