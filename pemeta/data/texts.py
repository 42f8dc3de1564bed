"""Texts with one label each, as tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from pemeta.data.classes import class_names, class_of
from pemeta.data.examples import TokenExamples, checked_length
from pemeta.data.metrics import ClassScores, class_scores
from pemeta.errors import DataError, counted, excerpt
from pemeta.typing import Batch
from pemeta.utils.values import checked_texts, listed


@dataclass(frozen=True)
class EncodedTexts(TokenExamples[str, ClassScores]):
    """Encoded texts, or pairs of texts, with one label each.

    Attributes:
        classes: Classes that the label indices refer to.
        labels: Class of each text.
        input_ids: Token ids including special tokens, one sequence per text.
        type_ids: For each token, 0 or 1 for the first or second text of its pair; None if the tokenizer does not
            distinguish them, or if there are no pairs.
        pad_id: Token id that pads shorter texts of a batch.
        num_truncated: Number of texts longer than ``max_length`` tokens.
        trunk: Hidden states (T, D) of each text, if fine-tuning has computed them.
        pairs: Whether each example is a pair of texts.
    """

    kind: ClassVar[str] = "sequence_classification"
    unit: ClassVar[str] = "text"
    per_position: ClassVar[bool] = False

    classes: tuple[str, ...]
    labels: tuple[str, ...]
    input_ids: tuple[torch.Tensor, ...]
    type_ids: tuple[torch.Tensor, ...] | None
    pad_id: int
    num_truncated: int
    trunk: Sequence[torch.Tensor] | None = None
    pairs: bool = False

    @property
    def outputs(self) -> tuple[str, ...]:
        """The classes."""
        return self.classes

    def gold(self, index: int) -> torch.Tensor:  # noqa: D102 - inherited
        return torch.tensor(self.classes.index(self.labels[index]))

    def tensors(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """``input_ids`` and ``attention_mask`` (B, T), ``labels`` (B,), and ``token_type_ids`` (B, T) for pairs."""
        batch = self.inputs(indices)
        if self.type_ids is not None:
            batch["token_type_ids"] = pad_sequence([self.type_ids[i] for i in indices], batch_first=True)
        batch["labels"] = torch.stack([self.gold(i) for i in indices])
        return batch

    def decode(self, prediction: int, index: int) -> str:
        """The name of the predicted class."""
        return self.classes[prediction]

    def scores(self, decoded: Sequence[str]) -> ClassScores:
        """Accuracy and macro-F1 of predicted classes."""
        return class_scores(self.labels, decoded, self.classes)


def encode_texts(
    texts: Iterable[str],
    labels: Iterable[str | int],
    classes: Iterable[str | int],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None = None,
    *,
    pairs: Iterable[str] | None = None,
) -> EncodedTexts:
    """Encode texts with one label each.

    Args:
        texts: Texts to encode.
        labels: Class of each text, by its name, or by its index in ``classes``, as data sets with a ClassLabel have
            it. If the classes are integers themselves, a label is one of them.
        classes: Names of all classes, in the order of their indices; integers are named as they are written.
        tokenizer: Tokenizer of the backbone.
        max_length: Most tokens per text, special tokens included; longer texts are truncated at the end (of a pair,
            the longer one) and counted. By default 128, our choice, or the model's limit if that is less.
        pairs: A second text for each text, such as a hypothesis for each premise.

    Raises:
        ConfigError: The classes are not two or more different names, or ``max_length`` is above the model's limit or
            below 3.
        DataError: The number of labels, or of second texts, differs from that of texts; a label is not a class; or a
            text is empty, missing, or no text at all.
    """
    names, by_value = class_names(classes)
    max_length = checked_length(max_length, 3, tokenizer)
    given = listed(labels, "labels", "[0, 1]")
    first = checked_texts(texts, with_it=" and its label")
    second = None if pairs is None else checked_texts(pairs, "second text", " and its label")
    if len(given) != len(first):
        raise DataError(
            f"each text needs one label; found {counted(len(first), 'text')} and {counted(len(given), 'label')}"
        )
    if second is not None and len(second) != len(first):
        found = f"{counted(len(first), 'text')} and {counted(len(second), 'second text')}"
        raise DataError(f"each text needs one second text; found {found}")
    named = tuple(
        class_of(label, names, by_value, f"text {number} of {len(given)}") for number, label in enumerate(given, 1)
    )
    tokens, cut = _tokens(first, second, tokenizer, max_length)
    types = tokens.get("token_type_ids") if second is not None else None
    return EncodedTexts(
        classes=names,
        labels=named,
        input_ids=tuple(map(torch.tensor, tokens["input_ids"])),
        type_ids=None if types is None else tuple(map(torch.tensor, types)),
        pad_id=tokenizer.pad_token_id or 0,
        num_truncated=cut,
        pairs=pairs is not None,
    )


def _tokens(
    texts: list[str], pairs: list[str] | None, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> tuple[dict[str, Any], int]:
    """The tokenizer's output, and the number of truncated texts."""
    if not texts:
        return {"input_ids": [], "token_type_ids": []}, 0
    whole = tokenizer(texts, pairs, verbose=False)
    for number, ids in enumerate(whole["input_ids"], 1):
        if not ids:
            text = excerpt(texts[number - 1])
            raise DataError(f"text {number} of {len(texts)} has no token in this vocabulary; remove it: {text}")
    cut = sum(len(ids) > max_length for ids in whole["input_ids"])
    # Tokenize again only if a text is truncated, because the special tokens at the end must be kept.
    return dict(tokenizer(texts, pairs, truncation=True, max_length=max_length) if cut else whole), cut
