"""The interface of encoded data to the rest of the library, for every kind of task."""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar, Generic

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase
from typing_extensions import Self, TypeVar

from pemeta.data.arrow import Rows
from pemeta.data.metrics import Metric, SingleScore, TaskScores
from pemeta.errors import ConfigError, DataError, excerpt
from pemeta.typing import IGNORE_INDEX, Batch
from pemeta.utils.values import checked_size, listed, whole

Decoded = TypeVar("Decoded", default=Any)
Scored = TypeVar("Scored", bound=TaskScores, default=Any)


class HiddenStates(Rows[torch.Tensor]):
    """Hidden states (T, D) of each example: the last ones, or the input of a layer.

    Args:
        rows: A tensor for each example.
        key: Key of the hidden states in a batch.
    """

    def __init__(self, rows: Sequence[torch.Tensor], key: str) -> None:
        self._rows, self.key = rows, key

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> torch.Tensor:  # noqa: D102 - inherited
        return self._rows[index]


class Examples(ABC, Generic[Decoded, Scored]):
    """Encoded examples with their gold labels; one subclass for each kind of task.

    Nothing else in the library depends on the kind: priming and fine-tuning see batches, prediction sees the results
    of :meth:`decode`, and the best epoch is the one with the highest ``scores(...).main``.
    """

    kind: ClassVar[str]
    """Name of the :class:`~pemeta.HeadSpec` that suits the examples."""
    unit: ClassVar[str] = "example"
    """Word for an example in messages."""
    per_position: ClassVar[bool]
    """Whether a head returns logits for each position, (B, T, C), or for each example, (B, C)."""
    pairs: bool = False
    """Whether each example is a pair of texts, which a head for single texts would misread, and the reverse."""

    num_truncated: int
    """Number of examples that exceeded the maximum length and were truncated."""
    trunk: Sequence[torch.Tensor] | None
    """Hidden states (T, D) of each example, if they have been computed."""
    judge: Callable[[Sequence[Any]], TaskScores] | None = None
    """What gives the scores by which epochs are compared, given the decoded predictions, in place of :meth:`scores`."""

    @property
    @abstractmethod
    def outputs(self) -> Sequence[object]:
        """The meanings of the head's C logits, such as labels or token ids."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of examples."""

    @abstractmethod
    def length(self, index: int) -> int:
        """Number of positions of an example, without the padding of a batch."""

    def lengths(self) -> np.ndarray:
        """:meth:`length` of all examples."""
        return np.fromiter(map(self.length, range(len(self))), np.int64, len(self))

    @property
    def on_disk(self) -> bool:
        """Whether the examples are read from a file when they are used, as those that do not fit into memory are."""
        return False

    @abstractmethod
    def tensors(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """The backbone's inputs and the ``labels`` of the examples at ``indices``, on the CPU."""

    @abstractmethod
    def digest(self) -> str:
        """A digest of all inputs and labels, as twelve hexadecimal digits."""

    @abstractmethod
    def decode(self, prediction: Any, index: int) -> Decoded:
        """A head's prediction for the example at ``index``, in terms of the data.

        Args:
            prediction: Row of the example in :meth:`pemeta.Head.predictions`, as numbers.
            index: Index of the example.
        """

    @abstractmethod
    def scores(self, decoded: Sequence[Decoded]) -> Scored:
        """Scores of the decoded predictions for all examples, in order."""

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """The examples at ``indices`` as tensors on the CPU, with their ``trunk`` if they have one.

        Raises:
            DataError: There are no indices.
        """
        given = listed(indices, "indices", "[0, 1]")
        indices = given if isinstance(indices, Iterator) else indices
        if not given:
            raise DataError(f"a batch needs one {self.unit} or more; found none; give their indices")
        try:
            batch = self.tensors(indices)
        except IndexError as error:
            raise DataError(
                f"a batch takes indices of {self.unit}s, from 0 to {len(self) - 1}; found {excerpt(indices)}"
            ) from error
        if self.trunk is not None:
            key = self.trunk.key if isinstance(self.trunk, HiddenStates) else "trunk"
            batch[key] = pad_sequence([self.trunk[i] for i in indices], batch_first=True)
        return batch

    def has_label(self, index: int) -> bool:
        """Whether the example at ``index`` has a label other than -100; without any it teaches nothing."""
        labels = self.tensors([index]).get("labels")
        return labels is None or bool((labels != IGNORE_INDEX).any())

    def by_length(self, size: int) -> Iterator[list[int]]:
        """Indices of all examples in batches of up to ``size`` examples of similar length, longest first.

        Raises:
            ConfigError: ``size`` is not a positive whole number.
        """
        size = checked_size(size, "the number of examples in a batch")
        order = np.argsort(-self.lengths(), kind="stable")
        return (order[start : start + size].tolist() for start in range(0, len(order), size))

    def holding(self, trunk: Sequence[torch.Tensor] | None, key: str = "trunk") -> Self:
        """A copy with the given hidden states, or without any; batches hold them under ``key``."""
        held = copy.copy(self)
        kept = None if trunk is None else HiddenStates(trunk, key)
        object.__setattr__(held, "trunk", kept)  # a frozen value, but a new copy
        return held

    def judged_by(self, metric: Metric, gold: Sequence[Any]) -> Self:
        """A copy of which a metric of predictions is what compares epochs.

        Args:
            metric: The metric.
            gold: What each example should be predicted to be.
        """
        judged = copy.copy(self)
        judge = partial(_score, metric, gold, self.outputs)
        object.__setattr__(judged, "judge", judge)  # a frozen value, but a new copy
        return judged

    def describe_outputs(self, most: int = 20) -> str:
        """The outputs for a message, truncated after ``most``."""
        shown = ", ".join(map(str, self.outputs[:most]))
        return f"{shown} ..." if len(self.outputs) > most else shown


def _score(metric: Metric, gold: Sequence[Any], outputs: Sequence[object], decoded: Sequence[Any]) -> SingleScore:
    return SingleScore(metric, metric.score(gold, decoded, outputs))


class TokenExamples(Examples[Decoded, Scored]):
    """Examples that are sequences of tokens.

    Attributes:
        input_ids: Token ids, one sequence per example.
        pad_id: Token id that pads shorter examples of a batch.
    """

    input_ids: Sequence[torch.Tensor]
    pad_id: int

    @abstractmethod
    def gold(self, index: int) -> torch.Tensor:
        """The labels of one example: a scalar, or one for each token."""

    def __len__(self) -> int:
        return len(self.input_ids)

    def length(self, index: int) -> int:  # noqa: D102 - inherited
        return len(self.input_ids[index])

    def lengths(self) -> np.ndarray:  # noqa: D102 - inherited
        return self.input_ids.lengths() if isinstance(self.input_ids, Rows) else super().lengths()

    @property
    def on_disk(self) -> bool:  # noqa: D102 - inherited
        return isinstance(self.input_ids, Rows)

    def inputs(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """``input_ids`` and ``attention_mask`` (B, T)."""
        ids = [self.input_ids[i] for i in indices]
        padded = pad_sequence(ids, batch_first=True, padding_value=self.pad_id)
        lengths = torch.tensor([len(i) for i in ids])
        mask = torch.arange(padded.shape[1]) < lengths[:, None]
        return {"input_ids": padded, "attention_mask": mask.to(padded.dtype)}

    def has_label(self, index: int) -> bool:  # noqa: D102 - inherited
        return bool((self.gold(index) != IGNORE_INDEX).any())

    def digest(self) -> str:
        """A digest of all tokens and labels, as twelve hexadecimal digits."""
        sha = TokenDigest()
        sha.update(self)
        return sha.value


class TokenDigest:
    """A digest of the tokens and labels of examples that come in parts, one after the other."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()

    def update(self, examples: TokenExamples) -> None:
        """Add examples."""
        for index, ids in enumerate(examples.input_ids):
            self._sha.update(ids.numpy().tobytes())
            self._sha.update(examples.gold(index).numpy().tobytes())
            self._sha.update(b"|")

    @property
    def value(self) -> str:
        """Twelve hexadecimal digits."""
        return self._sha.hexdigest()[:12]


def checked_length(length: int | None, least: int, tokenizer: PreTrainedTokenizerBase, what: str = "max_length") -> int:
    """A valid number of tokens for the tokenizer's model; by default 128, our choice, or the model's limit if less.

    Raises:
        ConfigError: The number is not a whole number, above the model's limit or below ``least``; or there is none.
    """
    limit = getattr(tokenizer, "model_max_length", None)
    if limit is None or not callable(tokenizer):
        raise ConfigError(
            f"expected the backbone's tokenizer; found {excerpt(tokenizer)}; load it with "
            "AutoTokenizer.from_pretrained(...)"
        )
    if length is None:
        length = min(128, limit)
    found = None if isinstance(length, bool) else whole(length)
    if found is None or not least <= found <= limit:
        raise ConfigError(f"{what} must be from {least} to the model's {limit}; found {excerpt(length)}")
    return found
