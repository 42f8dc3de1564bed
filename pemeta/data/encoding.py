"""Sentences as word pieces: alignment, truncation that is counted, batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from pemeta.data.examples import PieceExamples, checked_length
from pemeta.data.metrics import Scores, entity_scores
from pemeta.data.sentences import LabelSet, Sentence
from pemeta.errors import DataError, ModelError
from pemeta.typing import IGNORE_INDEX, Batch


@dataclass(frozen=True)
class Encoded(PieceExamples[list[str], Scores]):
    """Sentences with a tag for each word, ready for a backbone.

    Attributes:
        sentences: as they were read, with their gold tags in full length.
        labels: the label set that the label indices refer to.
        input_ids: word-piece indices with special tokens, one sequence per sentence.
        label_ids: for each piece the label index of the word that starts there, or -100.
        first_pieces: for each sentence, word index to the position of its first piece; a word that was
            cut off, or that has no piece in this vocabulary, has none.
        pad_id: index that fills up shorter sentences of a batch.
        num_truncated: sentences that were longer than ``max_length`` pieces.
        num_cut_words: words that were cut off in them.
        trunk: for each sentence its last hidden states (T, D), where fine-tuning computed them before.
    """

    kind: ClassVar[str] = "token_classification"
    unit: ClassVar[str] = "sentence"
    per_position: ClassVar[bool] = True

    sentences: Sequence[Sentence]
    labels: LabelSet
    input_ids: tuple[torch.Tensor, ...]
    label_ids: tuple[torch.Tensor, ...]
    first_pieces: tuple[dict[int, int], ...]
    pad_id: int
    num_truncated: int
    num_cut_words: int
    trunk: tuple[torch.Tensor, ...] | None = None

    @property
    def outputs(self) -> tuple[str, ...]:
        """The tags."""
        return self.labels.tags

    def gold(self, index: int) -> torch.Tensor:  # noqa: D102 - inherited
        return self.label_ids[index]

    def tensors(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """``input_ids``, ``attention_mask`` and ``labels`` (B, T)."""
        labels = pad_sequence([self.gold(i) for i in indices], batch_first=True, padding_value=IGNORE_INDEX)
        return {**self.inputs(indices), "labels": labels}

    def decode(self, prediction: Sequence[int], index: int) -> list[str]:
        """A tag for each word; ``O`` where a word was cut off, or has no piece in the vocabulary."""
        tags = ["O"] * len(self.sentences[index].words)
        for word, position in self.first_pieces[index].items():
            tags[word] = self.labels.tags[prediction[position]]
        return tags

    def scores(self, decoded: Sequence[list[str]]) -> Scores:
        """Entity-level scores of predicted tags, against the gold tags in full length."""
        return entity_scores([list(s.tags) for s in self.sentences], decoded, self.labels.types)


def encode(
    sentences: Sequence[Sentence], labels: LabelSet, tokenizer: PreTrainedTokenizerBase, max_length: int | None = None
) -> Encoded:
    """Word pieces and their labels: the first piece of a word carries its label (Devlin et al., 2019, §5.3).

    Args:
        sentences: words and tags.
        labels: the label set; every tag must be in it.
        tokenizer: a fast tokenizer; only those tell which word a piece is from.
        max_length: pieces per sentence, special tokens included; longer sentences are cut, and counted. By
            default 128, our choice, or the model's limit if that is less.

    Raises:
        ModelError: the tokenizer is not a fast one.
        ConfigError: ``max_length`` is longer than the tokenizer's model takes, or below 3.
        DataError: a tag is not in the label set.
    """
    if not tokenizer.is_fast:
        raise ModelError(f"{type(tokenizer).__name__} does not align pieces with words; use a fast tokenizer")
    max_length = checked_length(max_length, 3, tokenizer)
    if not sentences:
        return Encoded((), labels, (), (), (), tokenizer.pad_token_id or 0, 0, 0)
    pieces = tokenizer(
        [list(s.words) for s in sentences], is_split_into_words=True, truncation=True, max_length=max_length
    )
    first_pieces = tuple(_first_pieces(pieces.word_ids(i)) for i in range(len(sentences)))
    # A sentence was cut where the tokenizer kept the rest aside.
    cut = [bool(encoding.overflowing) for encoding in pieces.encodings]
    return Encoded(
        sentences=sentences,
        labels=labels,
        input_ids=tuple(torch.tensor(ids) for ids in pieces["input_ids"]),
        label_ids=tuple(
            _label_ids(s, first, len(ids), labels)
            for s, first, ids in zip(sentences, first_pieces, pieces["input_ids"], strict=True)
        ),
        first_pieces=first_pieces,
        pad_id=tokenizer.pad_token_id or 0,
        num_truncated=sum(cut),
        num_cut_words=sum(
            len(s.words) - 1 - max(first, default=-1)
            for s, first, c in zip(sentences, first_pieces, cut, strict=True)
            if c
        ),
    )


def _first_pieces(word_ids: list[int | None]) -> dict[int, int]:
    """Word index to the position of its first piece."""
    first: dict[int, int] = {}
    for position, word in enumerate(word_ids):
        if word is not None:
            first.setdefault(word, position)
    return first


def _label_ids(sentence: Sentence, first: dict[int, int], length: int, labels: LabelSet) -> torch.Tensor:
    ids = torch.full((length,), IGNORE_INDEX)
    for word, position in first.items():
        tag = sentence.tags[word]
        if tag not in labels.index:
            raise DataError(f"{labels.problem('O', tag)}; in the sentence {' '.join(sentence.words)[:80]!r}")
        ids[position] = labels.index[tag]
    return ids
