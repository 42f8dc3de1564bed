"""Sentences as tokens: alignment of labels, counted truncation, batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from pemeta.data.examples import TokenExamples, checked_length
from pemeta.data.metrics import SCORINGS, Scores, Scoring, entity_scores
from pemeta.data.sentences import LabelSet, Sentence, checked_labels
from pemeta.data.words import tokenize_words
from pemeta.errors import ModelError
from pemeta.typing import IGNORE_INDEX, Batch
from pemeta.utils.values import known


@dataclass(frozen=True)
class Encoded(TokenExamples[list[str], Scores]):
    """Encoded sentences with a tag for each word.

    Attributes:
        sentences: Original sentences with all their gold tags.
        labels: Label set that the label indices refer to.
        input_ids: Token ids including special tokens, one sequence per sentence.
        label_ids: For each token, the label index of the word that starts there, or -100.
        first_tokens: For each sentence, a mapping of word indices to the positions of their first tokens, without
            words that were cut off or have no token in this vocabulary.
        pad_id: Token id that pads shorter sentences of a batch.
        num_truncated: Number of sentences longer than ``max_length`` tokens.
        num_cut_words: Number of words that were cut off from them.
        trunk: Hidden states (T, D) of each sentence, if fine-tuning has computed them.
        scoring: Rules by which predicted tags are scored, of :func:`~pemeta.data.metrics.entity_scores`.
    """

    kind: ClassVar[str] = "token_classification"
    unit: ClassVar[str] = "sentence"
    per_position: ClassVar[bool] = True

    sentences: Sequence[Sentence]
    labels: LabelSet
    input_ids: tuple[torch.Tensor, ...]
    label_ids: tuple[torch.Tensor, ...]
    first_tokens: tuple[dict[int, int], ...]
    pad_id: int
    num_truncated: int
    num_cut_words: int
    trunk: tuple[torch.Tensor, ...] | None = None
    scoring: Scoring = "conlleval"

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
        """A tag for each word; ``O`` for a word that was cut off or has no token in the vocabulary."""
        tags = ["O"] * len(self.sentences[index].words)
        for word, position in self.first_tokens[index].items():
            tags[word] = self.labels.tags[prediction[position]]
        return tags

    def scores(self, decoded: Sequence[list[str]]) -> Scores:
        """Entity-level scores of predicted tags against all gold tags, including those of cut words."""
        return entity_scores([list(s.tags) for s in self.sentences], decoded, self.labels.types, self.scoring)


def encode(
    sentences: Sequence[Sentence],
    labels: LabelSet,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None = None,
    scoring: Scoring = "conlleval",
) -> Encoded:
    """Encode sentences; the first token of a word carries the word's label (Devlin et al., 2019, §5.3).

    Words become the tokens that they have in running text, whatever the tokenizer: one that marks a word by the space
    before it is given the words with spaces between them. Languages without spaces have none;
    :func:`~pemeta.data.words.running_text` says how they are told, and :func:`~pemeta.data.words.tokenize_words` what
    becomes of a token that would belong to two words.

    Args:
        sentences: Words and tags.
        labels: Label set, which must contain every tag.
        tokenizer: A fast tokenizer, because others do not align tokens with words.
        max_length: Most tokens per sentence, special tokens included; longer sentences are truncated and counted. By
            default 128, our choice, or the model's limit if that is less.
        scoring: What becomes of a predicted ``I-X`` that goes on with no entity when predictions are scored: it begins
            one (``conlleval``), or it is none (``strict``).

    Raises:
        ModelError: The tokenizer is not a fast one.
        ConfigError: ``max_length`` is above the limit of the tokenizer's model or below 3, or there is no such scoring.
        DataError: A tag of any word, cut or not, is not in the label set or cannot follow the one before it in IOB2.
    """
    sentences = checked_labels(labels).check(sentences)
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"{type(tokenizer).__name__} does not align tokens with words; use a fast tokenizer")
    max_length = checked_length(max_length, 3, tokenizer)
    known(scoring, "scoring", SCORINGS)
    tokens = tokenize_words([s.words for s in sentences], tokenizer, max_length)
    first_tokens = tuple(one.first_tokens() for one in tokens)
    at_the_end = getattr(tokenizer, "truncation_side", "right") == "right"
    return Encoded(
        sentences=sentences,
        labels=labels,
        input_ids=tuple(torch.tensor(one.ids, dtype=torch.long) for one in tokens),
        label_ids=tuple(
            _label_ids(s, first, len(one.ids), labels)
            for s, first, one in zip(sentences, first_tokens, tokens, strict=True)
        ),
        first_tokens=first_tokens,
        pad_id=tokenizer.pad_token_id or 0,
        num_truncated=sum(one.cut for one in tokens),
        num_cut_words=sum(
            _num_cut(len(s.words), first, at_the_end)
            for s, first, one in zip(sentences, first_tokens, tokens, strict=True)
            if one.cut
        ),
        scoring=scoring,
    )


def _num_cut(words: int, first: dict[int, int], at_the_end: bool) -> int:
    """The number of words beyond the last one of a truncated sentence, or before the first one."""
    return words - 1 - max(first, default=-1) if at_the_end else min(first, default=words)


def _label_ids(sentence: Sentence, first: dict[int, int], length: int, labels: LabelSet) -> torch.Tensor:
    ids = torch.full((length,), IGNORE_INDEX)
    for word, position in first.items():
        ids[position] = labels.index[sentence.tags[word]]
    return ids
