"""Texts with labels, as tokens: one class each, several, or numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from pemeta.data.classes import PROBLEMS, Problem, class_names, class_of, classes_of, number_name, number_of
from pemeta.data.examples import TokenExamples, checked_length
from pemeta.data.metrics import TaskScores, class_scores, label_scores, number_scores
from pemeta.errors import ConfigError, DataError, counted, excerpt
from pemeta.typing import Batch
from pemeta.utils.values import checked_texts, known, listed

TextLabel: TypeAlias = str | tuple[str, ...] | float
"""The label of a text: a class, several classes, or a number."""


@dataclass(frozen=True)
class EncodedTexts(TokenExamples[Any, Any]):
    """Encoded texts, or pairs of texts, with their labels.

    Attributes:
        classes: Classes that the label indices refer to, or the name of the number that is predicted.
        labels: Class of each text; its classes, in their order; or its number.
        input_ids: Token ids including special tokens, one sequence per text.
        type_ids: For each token, 0 or 1 for the first or second text of its pair; None if the tokenizer does not
            distinguish them, or if there are no pairs.
        pad_id: Token id that pads shorter texts of a batch.
        num_truncated: Number of texts longer than ``max_length`` tokens.
        trunk: Hidden states (T, D) of each text, if fine-tuning has computed them.
        pairs: Whether each example is a pair of texts.
        problem: What a label is: ``single_label``, one class; ``multi_label``, any number of classes; or
            ``regression``, a number.
    """

    kind: ClassVar[str] = "sequence_classification"
    unit: ClassVar[str] = "text"
    per_position: ClassVar[bool] = False

    classes: tuple[str, ...]
    labels: tuple[TextLabel, ...]
    input_ids: tuple[torch.Tensor, ...]
    type_ids: tuple[torch.Tensor, ...] | None
    pad_id: int
    num_truncated: int
    trunk: Sequence[torch.Tensor] | None = None
    pairs: bool = False
    problem: Problem = "single_label"

    @property
    def outputs(self) -> tuple[str, ...]:
        """The classes, or the name of the number."""
        return self.classes

    def gold(self, index: int) -> torch.Tensor:
        """The class's index; 1 or 0 for each class (C,); or the number (1,)."""
        label: Any = self.labels[index]
        if self.problem == "single_label":
            return torch.tensor(self.classes.index(label))
        if self.problem == "multi_label":
            return torch.tensor([float(name in label) for name in self.classes])
        return torch.tensor([label], dtype=torch.float32)

    def has_label(self, index: int) -> bool:
        """True; each text has one, and a number that is to be predicted may well be -100."""
        return True

    def tensors(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """``input_ids`` and ``attention_mask`` (B, T), ``labels``, and ``token_type_ids`` (B, T) for pairs.

        The labels are indices (B,) of classes; (B, C), 1 for each class of a text and 0 for others; or numbers (B, 1).
        """
        batch = self.inputs(indices)
        if self.type_ids is not None:
            batch["token_type_ids"] = pad_sequence([self.type_ids[i] for i in indices], batch_first=True)
        batch["labels"] = torch.stack([self.gold(i) for i in indices])
        return batch

    def decode(self, prediction: Any, index: int) -> TextLabel:
        """The predicted class; all classes whose probability is above a half; or the predicted number."""
        if self.problem == "single_label":
            return str(self.classes[prediction])
        if self.problem == "multi_label":
            return tuple(name for name, chosen in zip(self.classes, prediction, strict=True) if chosen)
        return float(prediction[0])

    def scores(self, decoded: Sequence[Any]) -> TaskScores:
        """Accuracy and macro-F1 of predicted classes; micro-F1 and others of several; or the mean squared error."""
        gold: Any = self.labels
        if self.problem == "single_label":
            return class_scores(gold, decoded, self.classes)
        return (
            label_scores(gold, decoded, self.classes) if self.problem == "multi_label" else number_scores(gold, decoded)
        )


def encode_texts(
    texts: Iterable[str],
    labels: Iterable[Any],
    classes: Iterable[str | int] | None,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None = None,
    *,
    pairs: Iterable[str] | None = None,
    problem: Problem = "single_label",
) -> EncodedTexts:
    """Encode texts with their labels.

    Args:
        texts: Texts to encode.
        labels: Class of each text, by its name, or by its index in ``classes``, as data sets with a ClassLabel have
            it. If the classes are integers themselves, a label is one of them. For ``multi_label``, a list of classes,
            which may be empty. For ``regression``, a number, which is learned as it is: bring them to a scale of about
            one first.
        classes: Names of all classes, in the order of their indices; integers are named as they are written. For
            ``regression``, the name of the number alone, or None, for ``value``.
        tokenizer: Tokenizer of the backbone.
        max_length: Most tokens per text, special tokens included; longer texts are truncated at the end (of a pair,
            the longer one) and counted. By default 128, our choice, or the model's limit if that is less.
        pairs: A second text for each text, such as a hypothesis for each premise.
        problem: What a label is: ``single_label``, one class; ``multi_label``, any number of classes; or
            ``regression``, a number.

    Raises:
        ConfigError: The classes are not two or more different names, ``max_length`` is above the model's limit or
            below 3, or there is no such problem.
        DataError: The number of labels, or of second texts, differs from that of texts; a label is not a class, or no
            number; or a text is empty, missing, or no text at all.
    """
    known(problem, "problem", PROBLEMS)
    max_length = checked_length(max_length, 3, tokenizer)
    names, named = _labels(listed(labels, "labels", "[0, 1]"), classes, problem)
    first = checked_texts(texts, with_it=" and its label")
    second = None if pairs is None else checked_texts(pairs, "second text", " and its label")
    if len(named) != len(first):
        raise DataError(
            f"each text needs one label; found {counted(len(first), 'text')} and {counted(len(named), 'label')}"
        )
    if second is not None and len(second) != len(first):
        found = f"{counted(len(first), 'text')} and {counted(len(second), 'second text')}"
        raise DataError(f"each text needs one second text; found {found}")
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
        problem=problem,
    )


def _labels(
    given: Sequence[Any], classes: Iterable[str | int] | None, problem: Problem
) -> tuple[tuple[str, ...], tuple[TextLabel, ...]]:
    """The names of classes or of the number, and the label of each text in their terms."""
    where = [f"text {number} of {len(given)}" for number in range(1, len(given) + 1)]
    if problem == "regression":
        return number_name(classes), tuple(map(number_of, given, where))
    if classes is None:
        raise ConfigError("classes must be two or more different names; found None; only regression needs none")
    names, by_value = class_names(classes, least=2 if problem == "single_label" else 1)
    find = class_of if problem == "single_label" else classes_of
    return names, tuple(find(label, names, by_value, place) for label, place in zip(given, where, strict=True))


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
