"""Running text in blocks of tokens, for causal language modelling."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from pemeta.data.examples import TokenExamples, checked_length
from pemeta.data.metrics import LanguageModelScores, language_model_scores
from pemeta.errors import DataError, excerpt
from pemeta.typing import IGNORE_INDEX, Batch
from pemeta.utils.values import checked_texts


@dataclass(frozen=True)
class EncodedBlocks(TokenExamples[list[float], LanguageModelScores]):
    """Blocks of running text, in which every token after the first is to be predicted from those before it.

    Attributes:
        vocab_size: Number V of tokens in the vocabulary.
        input_ids: Token ids, one sequence per block.
        pad_id: Token id that pads shorter blocks; padding is not predicted.
        num_truncated: 0, because nothing is truncated.
        trunk: Hidden states (T, D) of each block, if fine-tuning has computed them.
    """

    kind: ClassVar[str] = "causal_lm"
    unit: ClassVar[str] = "block"
    per_position: ClassVar[bool] = True

    vocab_size: int
    input_ids: tuple[torch.Tensor, ...]
    pad_id: int
    num_truncated: int = 0
    trunk: Sequence[torch.Tensor] | None = None

    @property
    def outputs(self) -> range:
        """The ids of all tokens."""
        return range(self.vocab_size)

    def gold(self, index: int) -> torch.Tensor:  # noqa: D102 - inherited
        return self.input_ids[index]

    def tensors(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """``input_ids``, ``attention_mask`` and ``labels`` (B, T); the labels are the token ids, -100 on padding."""
        labels = pad_sequence([self.gold(i) for i in indices], batch_first=True, padding_value=IGNORE_INDEX)
        return {**self.inputs(indices), "labels": labels}

    def decode(self, prediction: Sequence[float], index: int) -> list[float]:
        """Log-probabilities of the block's tokens after the first, each given those before it."""
        return list(prediction[1 : self.length(index)])

    def scores(self, decoded: Sequence[Sequence[float]]) -> LanguageModelScores:
        """Mean loss and perplexity per predicted token."""
        return language_model_scores(decoded)


def encode_language_model(
    texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, block_length: int | None = None
) -> EncodedBlocks:
    """Encode concatenated texts in blocks of equal length, as for the training of GPT-2 (Radford et al., 2019).

    The tokenizer's end-of-sequence token, if it has one, follows each text. Blocks do not overlap, so the first token
    of each is never predicted. The last block may be shorter; a single remaining token is dropped, because nothing
    would predict it.

    Args:
        texts: Texts, in order.
        tokenizer: Tokenizer of the backbone.
        block_length: Number T of tokens in a block. By default 128, our choice, or the model's limit if that is less.

    Raises:
        ConfigError: ``block_length`` is above the model's limit or below 2.
        DataError: A text is empty, missing, or no text at all.
    """
    block_length = checked_length(block_length, 2, tokenizer, "block_length")
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    given = checked_texts(texts)
    tokens = tokenizer(given, add_special_tokens=False, verbose=False)["input_ids"] if given else []
    for number, (text, ids) in enumerate(zip(given, tokens, strict=True), 1):
        if not ids:
            raise DataError(
                f"text {number} of {len(given)} has no token in this vocabulary; remove it: {excerpt(text)}"
            )
    running = torch.tensor(list(chain.from_iterable([*ids, *end] for ids in tokens)), dtype=torch.long)
    blocks = tuple(block for block in running.split(block_length) if len(block) > 1)
    return EncodedBlocks(len(tokenizer), blocks, tokenizer.pad_token_id or 0)
