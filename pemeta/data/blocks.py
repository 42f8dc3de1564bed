"""Running text in blocks of word pieces, for causal language modelling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from pemeta.data.examples import PieceExamples, checked_length
from pemeta.data.metrics import LanguageModelScores, language_model_scores
from pemeta.errors import DataError
from pemeta.typing import IGNORE_INDEX, Batch


@dataclass(frozen=True)
class EncodedBlocks(PieceExamples[list[float], LanguageModelScores]):
    """Blocks of running text, of which each piece after the first is to be predicted from those before it.

    Attributes:
        vocab_size: pieces V of the vocabulary.
        input_ids: word-piece indices, one sequence per block.
        pad_id: index that fills up a shorter block; what is there is not predicted.
        num_truncated: 0, since nothing is cut off.
        trunk: for each block its last hidden states (T, D), where fine-tuning computed them before.
    """

    kind: ClassVar[str] = "causal_lm"
    unit: ClassVar[str] = "block"
    per_position: ClassVar[bool] = True

    vocab_size: int
    input_ids: tuple[torch.Tensor, ...]
    pad_id: int
    num_truncated: int = 0
    trunk: tuple[torch.Tensor, ...] | None = None

    @property
    def outputs(self) -> range:
        """The indices of all pieces."""
        return range(self.vocab_size)

    def gold(self, index: int) -> torch.Tensor:  # noqa: D102 - inherited
        return self.input_ids[index]

    def tensors(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """``input_ids``, ``attention_mask`` and ``labels`` (B, T); the labels are the pieces, -100 on padding."""
        labels = pad_sequence([self.gold(i) for i in indices], batch_first=True, padding_value=IGNORE_INDEX)
        return {**self.inputs(indices), "labels": labels}

    def decode(self, prediction: Sequence[float], index: int) -> list[float]:
        """Log-probabilities of the block's pieces after the first, each given those before it."""
        return list(prediction[1 : self.length(index)])

    def scores(self, decoded: Sequence[Sequence[float]]) -> LanguageModelScores:
        """Mean loss and perplexity per predicted piece."""
        return language_model_scores(decoded)


def encode_language_model(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, block_length: int | None = None
) -> EncodedBlocks:
    """Texts one after the other, in blocks of equal length, as GPT-2 was trained (Radford et al., 2019).

    The tokenizer's end-of-sequence token, where it has one, stands behind each text. Blocks do not overlap: the first
    piece of each is predicted nowhere. The last block is shorter; a single piece that would be left over is dropped,
    since nothing would predict it.

    Args:
        texts: the texts, in their order.
        tokenizer: the backbone's.
        block_length: pieces T of a block. By default 128, our choice, or the model's limit if that is less.

    Raises:
        ConfigError: ``block_length`` is longer than the model takes, or below 2.
        DataError: a text is empty.
    """
    block_length = checked_length(block_length, 2, tokenizer, "block_length")
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    pieces = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    for number, (text, ids) in enumerate(zip(texts, pieces, strict=True), 1):
        if not text.strip() or not ids:
            raise DataError(f"text {number} of {len(texts)} is empty; leave it out")
    running = torch.tensor(list(chain.from_iterable([*ids, *end] for ids in pieces)), dtype=torch.long)
    blocks = tuple(block for block in running.split(block_length) if len(block) > 1)
    return EncodedBlocks(len(tokenizer), blocks, tokenizer.pad_token_id or 0)
