"""Texts with hidden tokens, for masked language modelling."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from pemeta.data.examples import TokenExamples, checked_length
from pemeta.data.metrics import LanguageModelScores, language_model_scores
from pemeta.errors import ConfigError, DataError, excerpt
from pemeta.typing import IGNORE_INDEX, Batch
from pemeta.utils.seeding import numpy_generator
from pemeta.utils.signatures import checked
from pemeta.utils.values import checked_texts


@dataclass(frozen=True)
class EncodedMasked(TokenExamples[list[float], LanguageModelScores]):
    """Pieces of text in which some tokens were hidden, and are to be predicted from those around them.

    Attributes:
        vocab_size: Number V of tokens in the vocabulary.
        input_ids: Token ids with the mask, or another token, in place of hidden ones; one sequence per piece.
        labels: The hidden token's id where there is one, and -100 elsewhere.
        pad_id: Token id that pads shorter pieces; padding is not predicted.
        num_truncated: 0, because nothing is truncated.
        trunk: Hidden states (T, D) of each piece, if fine-tuning has computed them.
    """

    kind: ClassVar[str] = "masked_lm"
    unit: ClassVar[str] = "piece"
    per_position: ClassVar[bool] = True

    vocab_size: int
    input_ids: tuple[torch.Tensor, ...]
    labels: tuple[torch.Tensor, ...]
    pad_id: int
    num_truncated: int = 0
    trunk: Sequence[torch.Tensor] | None = None

    @property
    def outputs(self) -> range:
        """The ids of all tokens."""
        return range(self.vocab_size)

    def gold(self, index: int) -> torch.Tensor:  # noqa: D102 - inherited
        return self.labels[index]

    def tensors(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """``input_ids``, ``attention_mask`` and ``labels`` (B, T)."""
        labels = pad_sequence([self.gold(i) for i in indices], batch_first=True, padding_value=IGNORE_INDEX)
        return {**self.inputs(indices), "labels": labels}

    def decode(self, prediction: Sequence[float], index: int) -> list[float]:
        """Log-probabilities of the piece's hidden tokens."""
        hidden = (self.gold(index) != IGNORE_INDEX).tolist()
        return [value for value, masked in zip(prediction, hidden, strict=False) if masked]

    def scores(self, decoded: Sequence[Sequence[float]]) -> LanguageModelScores:
        """Mean loss and perplexity per hidden token."""
        return language_model_scores(decoded)


@checked(share=(0.0, 1.0), copies=(1, 1000))
def encode_masked_language_model(
    texts: Iterable[str],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None = None,
    *,
    seed: int = 0,
    share: float = 0.15,
    copies: int = 1,
) -> EncodedMasked:
    """Encode texts with some of their tokens hidden, as for the training of BERT (Devlin et al., 2019).

    Of the ordinary tokens of each piece, a share, rounded, and at least one, is drawn to be predicted. Of these, 80 %
    are replaced by the mask, 10 % by a token drawn from the vocabulary, and 10 % stay. The draw depends on the seed and
    on the piece's number alone and is made here, not for each epoch: so examples, their digest and their losses are
    the same on every machine, after every interruption, and in every evaluation. For several draws of each piece, as
    BERT's own code makes ten, ask for as many ``copies``.

    Texts are not joined: a text longer than ``max_length`` becomes several pieces, and nothing is dropped.

    Args:
        texts: Texts.
        tokenizer: Tokenizer of the backbone, with a mask token.
        max_length: Most tokens in a piece, special tokens included. By default 128, our choice, or the model's limit if
            that is less.
        seed: Seed of what is hidden.
        share: Share of the ordinary tokens that is to be predicted.
        copies: Number of times that each piece is there, each with another draw; 1, our choice.

    Raises:
        ConfigError: ``max_length`` is above the model's limit or below 3, or the tokenizer has no mask token.
        DataError: A text is empty, missing, no text at all, or has no ordinary token.
    """
    max_length = checked_length(max_length, 3, tokenizer)
    if tokenizer.mask_token_id is None:
        raise ConfigError(
            f"masked language modelling needs a tokenizer with a mask token; found {excerpt(tokenizer.name_or_path)} "
            "without one; use that of a masked language model, or causal language modelling"
        )
    given = checked_texts(texts)
    special = torch.tensor(sorted(tokenizer.all_special_ids))
    everything = torch.arange(len(tokenizer))
    ordinary = everything[~torch.isin(everything, special)]
    pieces = _pieces(given, tokenizer, max_length)
    masked, labels = [], []
    for copy in range(copies):
        for number, ids in enumerate(pieces):
            places = (~torch.isin(ids, special)).nonzero().squeeze(1)
            if len(places):
                generator = numpy_generator(seed, "masked tokens", copy, number)
                one, own = _masked(ids, places, ordinary, tokenizer.mask_token_id, share, generator)
                masked.append(one)
                labels.append(own)
    return EncodedMasked(len(tokenizer), tuple(masked), tuple(labels), tokenizer.pad_token_id or 0)


def _pieces(texts: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[torch.Tensor]:
    """The tokens of all texts, special ones included, in pieces of at most so many."""
    if not texts:
        return []
    found = tokenizer(texts, truncation=True, max_length=max_length, return_overflowing_tokens=True, verbose=False)
    special = set(tokenizer.all_special_ids)
    pieces, owners = found["input_ids"], found["overflow_to_sample_mapping"]
    known = {owner for ids, owner in zip(pieces, owners, strict=True) if set(ids) - special}
    for number, text in enumerate(texts):
        if number not in known:
            raise DataError(
                f"text {number + 1} of {len(texts)} has no token in this vocabulary but special ones; remove it: "
                f"{excerpt(text)}"
            )
    return [torch.tensor(ids) for ids in pieces]


def _masked(
    ids: torch.Tensor,
    places: torch.Tensor,
    ordinary: torch.Tensor,
    mask: int,
    share: float,
    generator: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids with some at these places hidden, and the labels."""
    count = max(1, round(share * len(places)))
    chosen = places[torch.from_numpy(generator.permutation(len(places))[:count])]
    labels = torch.full_like(ids, IGNORE_INDEX)
    labels[chosen] = ids[chosen]
    draw = torch.from_numpy(generator.random(count))
    drawn = ordinary[torch.from_numpy(generator.integers(len(ordinary), size=count))]
    hidden = ids.clone()
    hidden[chosen] = torch.where(draw < 0.8, mask, torch.where(draw < 0.9, drawn, ids[chosen]))
    return hidden, labels
