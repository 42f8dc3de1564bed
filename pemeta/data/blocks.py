"""Running text in blocks of tokens, for causal language modelling."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import ClassVar

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from pemeta.backbone.documents import DOCUMENTS
from pemeta.data.completion_tokens import Ends
from pemeta.data.examples import TokenExamples, checked_length
from pemeta.data.metrics import LanguageModelScores, language_model_scores
from pemeta.errors import DataError, excerpt
from pemeta.typing import IGNORE_INDEX, Batch
from pemeta.utils.signatures import checked
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
        documents: For each block, the numbers of tokens of the documents in it, of which a token sees its own alone;
            None if a token sees all tokens of its block that are before it.
    """

    kind: ClassVar[str] = "causal_lm"
    unit: ClassVar[str] = "block"
    per_position: ClassVar[bool] = True

    vocab_size: int
    input_ids: tuple[torch.Tensor, ...]
    pad_id: int
    num_truncated: int = 0
    trunk: Sequence[torch.Tensor] | None = None
    documents: tuple[tuple[int, ...], ...] | None = None

    @property
    def outputs(self) -> range:
        """The ids of all tokens."""
        return range(self.vocab_size)

    def gold(self, index: int) -> torch.Tensor:
        """The token ids; -100 for the first token of each document, which nothing predicts."""
        if self.documents is None:
            return self.input_ids[index]
        return self.input_ids[index].index_fill(0, torch.tensor(self._starts(index)), IGNORE_INDEX)

    def _starts(self, index: int) -> list[int]:
        """Where in a block its documents begin."""
        assert self.documents is not None
        return list(accumulate((0, *self.documents[index])))[:-1]

    def tensors(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """``input_ids``, ``attention_mask`` and ``labels`` (B, T); the labels are the token ids, -100 on padding.

        Where blocks consist of documents, the batch also says which document each token is of, and the labels are -100
        at the first token of each.
        """
        labels = pad_sequence([self.gold(i) for i in indices], batch_first=True, padding_value=IGNORE_INDEX)
        batch = {**self.inputs(indices), "labels": labels}
        if self.documents is not None:
            own = [torch.arange(len(one)).repeat_interleave(torch.tensor(one)) for one in map(self._lengths, indices)]
            batch[DOCUMENTS] = pad_sequence(own, batch_first=True, padding_value=-1)
        return batch

    def _lengths(self, index: int) -> tuple[int, ...]:
        assert self.documents is not None
        return self.documents[index]

    def decode(self, prediction: Sequence[float], index: int) -> list[float]:
        """Log-probabilities of the block's tokens after the first of each document, each given those before it."""
        first = {0} if self.documents is None else set(self._starts(index))
        return [value for place, value in enumerate(prediction[: self.length(index)]) if place not in first]

    def scores(self, decoded: Sequence[Sequence[float]]) -> LanguageModelScores:
        """Mean loss and perplexity per predicted token."""
        return language_model_scores(decoded)


@checked(texts=None, tokenizer=None, block_length=None)
def encode_language_model(
    texts: Iterable[str],
    tokenizer: PreTrainedTokenizerBase,
    block_length: int | None = None,
    *,
    document_masks: bool = False,
) -> EncodedBlocks:
    """Encode texts in blocks of tokens, as for the training of GPT-2 (Radford et al., 2019), or with document masks.

    The tokenizer's end-of-sequence token, if it has one, follows each text. By default, all texts behind each other are
    cut into blocks of equal length, which do not overlap, so the first token of each is never predicted. The last block
    may be shorter; a single remaining token is dropped, because nothing would predict it.

    With document masks, a token sees those of its own text only, and the positions of each begin anew: a block gives
    the losses that its texts give alone. Texts are then put into blocks by best fit, the longest first (Ding et al.,
    2024), so that only one that is longer than a block is cut; and each begins with the BOS token if the tokenizer puts
    one. A single remaining token is dropped here, too.

    Args:
        texts: Texts, in order.
        tokenizer: Tokenizer of the backbone.
        block_length: Number T of tokens in a block, at most with document masks. By default 128, our choice, or the
            model's limit if that is less.
        document_masks: Whether texts in one block do not see each other.

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
    size, pad = len(tokenizer), tokenizer.pad_token_id or 0
    if document_masks:
        begin = Ends(tokenizer).begin
        whole = [torch.tensor([*begin, *ids, *end], dtype=torch.long) for ids in tokens]
        return _of_documents([part for one in whole for part in one.split(block_length)], block_length, size, pad)
    running = torch.tensor(list(chain.from_iterable([*ids, *end] for ids in tokens)), dtype=torch.long)
    blocks = tuple(block for block in running.split(block_length) if len(block) > 1)
    return EncodedBlocks(size, blocks, pad)


def _of_documents(documents: Sequence[torch.Tensor], length: int, size: int, pad: int) -> EncodedBlocks:
    """Blocks of documents that are at most as long as a block."""
    kept = [document for document in documents if len(document) > 1]
    rows = best_fit(list(map(len, kept)), length)
    return EncodedBlocks(
        size,
        tuple(torch.cat([kept[i] for i in row]) for row in rows),
        pad,
        documents=tuple(tuple(len(kept[i]) for i in row) for row in rows),
    )


def best_fit(sizes: Sequence[int], length: int) -> list[list[int]]:
    """Indices of sizes in rows of at most ``length``: the largest first, each where it leaves the least room.

    Rows are in the order of their first indices, and so are the indices in each.

    >>> best_fit([3, 9, 4, 2, 6], 10)
    [[0, 3], [1], [2, 4]]
    """
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # left in rows, sorted, with their numbers
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        at = bisect_left(room, (sizes[index], -1))
        left, row = room.pop(at) if at < len(room) else (length, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(index)
        insort(room, (left - sizes[index], row))
    return sorted(map(sorted, rows))
