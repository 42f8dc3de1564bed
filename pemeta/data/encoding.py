"""Sentences as tokens: alignment of labels, counted truncation, batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from pemeta.data.arrow import Chunk, chunked, write_rows
from pemeta.data.examples import TokenDigest, TokenExamples, checked_length
from pemeta.data.metrics import SCORINGS, Scores, Scoring, entity_scores
from pemeta.data.sentences import LabelSet, Sentence, checked_labels
from pemeta.data.stored_sentences import StoredSentences
from pemeta.data.stored_tokens import COLUMNS, FirstTokens, TensorColumn, digest_of_file, tokens_file
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
    input_ids: Sequence[torch.Tensor]
    label_ids: Sequence[torch.Tensor]
    first_tokens: Sequence[dict[int, int]]
    pad_id: int
    num_truncated: int
    num_cut_words: int
    trunk: Sequence[torch.Tensor] | None = None
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

    def digest(self) -> str:  # noqa: D102 - inherited
        return digest_of_file(self.input_ids, self.label_ids) or super().digest()

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

    The tokens of sentences in a file (:func:`~pemeta.store_sentences`) go to a file, too, and are made only once for
    each tokenizer and length.

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
        OutputError: The sentences are in a file, and the cache cannot be written.
    """
    checked_labels(labels)
    given = sentences if isinstance(sentences, StoredSentences) else labels.check(sentences)
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"{type(tokenizer).__name__} does not align tokens with words; use a fast tokenizer")
    max_length = checked_length(max_length, 3, tokenizer)
    known(scoring, "scoring", SCORINGS)
    if isinstance(given, StoredSentences):
        return _encode_stored(given, labels, tokenizer, max_length, scoring)
    return _encode(given, labels, tokenizer, max_length, scoring)


def _encode(
    sentences: Sequence[Sentence],
    labels: LabelSet,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    scoring: Scoring = "conlleval",
) -> Encoded:
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


def _encode_stored(
    sentences: StoredSentences,
    labels: LabelSet,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    scoring: Scoring,
) -> Encoded:
    """The same, in a file that is written only once; no more than a chunk of the sentences is in memory."""

    def write(path: Path) -> dict[str, Any]:
        digest, truncated, cut_words = TokenDigest(), 0, 0

        def chunks() -> Iterator[Chunk]:
            nonlocal truncated, cut_words
            for chunk in chunked(_checked(sentences, labels)):
                part = _encode(chunk, labels, tokenizer, max_length)
                digest.update(part)
                truncated, cut_words = truncated + part.num_truncated, cut_words + part.num_cut_words
                yield _columns(part)

        number = write_rows(path, COLUMNS, chunks())
        return {"sentences": number, "digest": digest.value, "truncated": truncated, "cut words": cut_words}

    file = tokens_file([sentences.content, labels.types, max_length], tokenizer, write)
    return Encoded(
        sentences=sentences,
        labels=labels,
        input_ids=TensorColumn(file, "input_ids"),
        label_ids=TensorColumn(file, "label_ids"),
        first_tokens=FirstTokens(file, "first"),
        pad_id=tokenizer.pad_token_id or 0,
        num_truncated=file.about["truncated"],
        num_cut_words=file.about["cut words"],
        scoring=scoring,
    )


def _checked(sentences: StoredSentences, labels: LabelSet) -> Iterator[Sentence]:
    """The sentences, each after a check, since they were stored with a label set of their own."""
    for number, sentence in enumerate(sentences, 1):
        labels.check_sentence(sentence, f"sentence {number} of {len(sentences)}")
        yield sentence


def _columns(part: Encoded) -> Chunk:
    """Encoded sentences as rows of a file."""
    return {
        "input_ids": [ids.tolist() for ids in part.input_ids],
        "label_ids": [ids.tolist() for ids in part.label_ids],
        "first": [[first.get(word, -1) for word in range(max(first, default=-1) + 1)] for first in part.first_tokens],
    }


def _num_cut(words: int, first: dict[int, int], at_the_end: bool) -> int:
    """The number of words beyond the last one of a truncated sentence, or before the first one."""
    return words - 1 - max(first, default=-1) if at_the_end else min(first, default=words)


def _label_ids(sentence: Sentence, first: dict[int, int], length: int, labels: LabelSet) -> torch.Tensor:
    ids = [IGNORE_INDEX] * length
    for word, position in first.items():
        ids[position] = labels.index[sentence.tags[word]]
    return torch.tensor(ids, dtype=torch.long)
