"""Checks of what a server is given to label."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from pemeta.data.words import split_words
from pemeta.errors import ConfigError, DataError, excerpt

Text: TypeAlias = str | Sequence[str]
"""A text; or its words; or two texts."""


def as_words(texts: Iterable[Text]) -> list[tuple[str, ...]]:
    """The words of each text.

    Raises:
        DataError: It is not a list of strings or of lists of words.
    """
    found = _listed(texts, "lists of words")
    return [split_words(text) if isinstance(text, str) else tuple(text) for text in found]


def as_single_texts(texts: Iterable[Text], task: str) -> list[str]:
    """The texts of a task that labels single ones.

    Raises:
        DataError: It is not a list of strings, or one of them is empty.
    """
    found = _listed(texts, "pairs of strings")
    single: list[str] = []
    for number, text in enumerate(found, 1):
        if not isinstance(text, str):
            raise DataError(
                f"task {task!r} labels single texts, but text {number} of {len(found)} is {excerpt(text)}; give it as "
                "one string"
            )
        if not text.strip():
            raise DataError(f"text {number} of {len(found)} is empty; remove it")
        single.append(text)
    return single


def as_pairs(texts: Iterable[Text], task: str) -> list[tuple[str, str]]:
    """The texts of a task that labels pairs.

    Raises:
        DataError: It is not a list of pairs of strings, or one of them is empty.
    """
    found = _listed(texts, "pairs of strings")
    pairs: list[tuple[str, str]] = []
    for number, pair in enumerate(found, 1):
        if isinstance(pair, str) or len(pair) != 2:
            raise DataError(
                f"task {task!r} labels pairs of texts, but text {number} of {len(found)} is {excerpt(pair)}; give "
                "both texts, as (first, second)"
            )
        first, second = pair
        if not first.strip() or not second.strip():
            raise DataError(f"pair {number} of {len(found)} has an empty text; remove the pair")
        pairs.append((first, second))
    return pairs


def _listed(texts: Iterable[Text], sequences: str) -> list[Text]:
    """The texts as a list, in which each is a string or a sequence of strings."""
    wanted = f"texts must be a list of strings or of {sequences}"
    is_array = getattr(texts, "ndim", 1) != 1  # which says that it can be iterated over
    if is_array or isinstance(texts, str | bytes | Mapping) or not isinstance(texts, Iterable):
        raise DataError(f"{wanted}; put a single one in brackets; found {excerpt(texts)}")
    found = list(texts)
    for number, text in enumerate(found, 1):
        if not _is_text(text):
            raise DataError(f"{wanted}; text {number} of {len(found)} is {excerpt(text)}")
    return found


def _is_text(value: object) -> bool:
    """Whether a value is a string or a sequence of strings."""
    if not isinstance(value, Sequence) or isinstance(value, bytes):
        return False
    return all(isinstance(one, str) for one in value)


def check_batch_size(batch_size: int) -> None:
    """Check the number of texts in a batch.

    Raises:
        ConfigError: It is not a positive whole number.
    """
    if not _is_whole(batch_size) or batch_size < 1:
        raise ConfigError(f"batch_size must be positive; found {excerpt(batch_size)}")


def checked_stride(stride: int | None, length: int) -> int:
    """The number of tokens that windows share; by default a quarter of their length.

    Raises:
        ConfigError: It is not a whole number less than the length.
    """
    if stride is None:
        return length // 4
    if not _is_whole(stride) or not 0 <= stride < length:
        raise ConfigError(f"stride must be from 0 to {length - 1}, less than max_length; found {excerpt(stride)}")
    return stride


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
