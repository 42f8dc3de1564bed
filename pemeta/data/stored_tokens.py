"""The tokens of stored sentences in a file: made once for each tokenizer, and read when a batch needs them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from pemeta.data.arrow import ArrowFile, Rows
from pemeta.errors import ModelError, reason
from pemeta.utils.cache import DATA, cache_folder, cached_entry, code_and_packages
from pemeta.utils.digests import config_digest

T = TypeVar("T")
HERE = Path(__file__).parent
FORMAT = 1
"""Of the files; part of their names, so that another one is never misread."""
COLUMNS = {"input_ids": "int32", "label_ids": "int32", "first": "int32"}
"""Of a file of tokens; ``first`` has for each word the position of its first token, or -1."""


class Column(Rows[T]):
    """A column of a file of tokens, of which an item is made when it is asked for.

    Attributes:
        file: The file.
        name: Name of the column.
    """

    def __init__(self, file: ArrowFile, name: str) -> None:
        self.file, self.name = file, name

    def __len__(self) -> int:
        return len(self.file)


class TensorColumn(Column[torch.Tensor]):
    """Token ids or label ids: a tensor for each sentence."""

    def row(self, index: int) -> torch.Tensor:  # noqa: D102 - inherited
        return torch.from_numpy(self.file.numbers(self.name, index).astype(np.int64))

    def lengths(self) -> np.ndarray:  # noqa: D102 - inherited
        return self.file.lengths(self.name)


class FirstTokens(Column[dict[int, int]]):
    """For each sentence, a mapping of word indices to the positions of their first tokens."""

    def row(self, index: int) -> dict[int, int]:  # noqa: D102 - inherited
        positions = self.file.numbers(self.name, index).tolist()
        return {word: position for word, position in enumerate(positions) if position >= 0}


def digest_of_file(input_ids: object, label_ids: object) -> str | None:
    """The digest that was made when the tokens were written; None unless both are those of one file."""
    if not isinstance(input_ids, TensorColumn) or not isinstance(label_ids, TensorColumn):
        return None
    same = input_ids.file is label_ids.file and (input_ids.name, label_ids.name) == ("input_ids", "label_ids")
    return str(input_ids.file.about["digest"]) if same else None


def tokens_file(about: Any, tokenizer: PreTrainedTokenizerBase, write: Callable[[Path], dict[str, Any]]) -> ArrowFile:
    """A file of tokens in the cache, which is written only once.

    Args:
        about: A JSON value that tells all that the tokens depend on, besides the tokenizer and the code.
        tokenizer: The tokenizer.
        write: Writes the file, and returns what is to be known about it, as a JSON mapping.

    Raises:
        ModelError: The tokenizer cannot be told from others.
        OutputError: The cache cannot be written.
    """
    entry = (
        cache_folder() / "tokens" / config_digest([FORMAT, about, _tokenizer_state(tokenizer), code_and_packages(HERE)])
    )
    return ArrowFile(entry / DATA, cached_entry(entry, write))


def _tokenizer_state(tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    """All that the tokens of a text depend on.

    This is more than :func:`pemeta.tokenizer_digest`, which tells two tokenizers apart by their vocabulary and by a few
    texts.
    """
    try:
        state = json.loads(tokenizer.backend_tokenizer.to_str())
    except Exception as error:  # such as a part that is written in Python
        raise ModelError(
            f"{type(tokenizer).__name__} cannot be saved ({reason(error)}), so that a file of its tokens could not be "
            "told from that of another tokenizer; encode the sentences in memory: "
            "encode(list(sentences), ...), or without streaming: true"
        ) from None
    for key in ("truncation", "padding"):  # of the call before
        state.pop(key, None)
    options = [getattr(tokenizer, name, None) for name in ("truncation_side", "split_special_tokens")]
    return [type(tokenizer).__module__, type(tokenizer).__qualname__, *options, state]
