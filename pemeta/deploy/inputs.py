"""Checks of what a server is given to label."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np

from pemeta.data.words import split_words
from pemeta.errors import ConfigError, DataError, excerpt
from pemeta.utils.values import listed, text_problem, whole

Text: TypeAlias = str | Iterable[str]
"""A text; or its words; or two texts."""


def as_words(texts: Iterable[Text]) -> list[tuple[str, ...]]:
    """The words of each text.

    Raises:
        DataError: It is not a list of strings or of lists of words.
    """
    found = _listed(texts, "strings or of lists of words")
    return [split_words(text) if isinstance(text, str) else text for text in found]


def as_single_texts(texts: Iterable[Text], task: str) -> list[str]:
    """The texts of a task that labels single ones.

    Raises:
        DataError: It is not a list of strings, or one of them is empty.
    """
    found = _listed(texts, "strings")
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


def as_prompts(prompts: Iterable[Any], task: str) -> list[str | list[dict[str, str]]]:
    """The prompts of a task that completes them: texts, or lists of turns.

    Raises:
        DataError: It is not a list of these, or one of them is empty.
    """
    wanted = f"task {task!r} completes prompts: a list of strings, or of lists of turns with role and content"
    try:
        given = listed(prompts, "prompts", "")
    except DataError:
        raise DataError(f"{wanted}; put a single one in brackets; found {excerpt(prompts)}") from None
    found: list[str | list[dict[str, str]]] = []
    for number, prompt in enumerate(given, 1):
        where = f"prompt {number} of {len(given)}"
        one: Any = prompt if isinstance(prompt, str) else _turns(prompt)
        if one is None:
            raise DataError(f"{wanted}; {where} is {excerpt(prompt)}")
        problem = text_problem(one) if isinstance(one, str) else None
        if problem is not None:
            raise DataError(f"{where} {problem}")
        if not one or (isinstance(one, str) and not one.strip()):
            raise DataError(f"{where} is empty; remove it")
        found.append(one)
    return found


def _turns(prompt: Any) -> list[dict[str, str]] | None:
    """Turns as mappings; None for anything else."""
    if not isinstance(prompt, list | tuple) or not all(isinstance(turn, Mapping) for turn in prompt):
        return None
    turns = [dict(turn) for turn in prompt]
    return turns if all(isinstance(turn.get(key), str) for turn in turns for key in ("role", "content")) else None


def _listed(texts: Iterable[Text], kinds: str) -> list[str | tuple[str, ...]]:
    """The texts as a list, in which each is a string or a tuple of strings."""
    wanted = f"texts must be a list of {kinds}"
    try:
        table = isinstance(texts, np.ndarray) and texts.ndim == 2  # of pairs, or of sentences of one length
        given = listed(list(texts) if table else texts, "texts", "")
    except DataError:
        raise DataError(f"{wanted}; put a single one in brackets; found {excerpt(texts)}") from None
    found = [_text(text) for text in given]
    for number, (text, original) in enumerate(zip(found, given, strict=True), 1):
        where = f"text {number} of {len(found)}"
        if text is None:
            raise DataError(f"{wanted}; {where} is {excerpt(original)}")
        problem = next(filter(None, map(text_problem, (text,) if isinstance(text, str) else text)), None)
        if problem is not None:
            raise DataError(f"{where} {problem}")
    return [text for text in found if text is not None]


def _text(value: Text) -> str | tuple[str, ...] | None:
    """A string, or a sequence of strings as a tuple; None for anything else."""
    if isinstance(value, str):
        return str(value)
    try:
        parts = listed(value, "words", "")
    except DataError:
        return None
    return tuple(map(str, parts)) if all(isinstance(part, str) for part in parts) else None


def checked_stride(stride: int | None, length: int) -> int:
    """The number of tokens that windows share; by default a quarter of their length.

    Raises:
        ConfigError: It is not a whole number less than the length.
    """
    if stride is None:
        return length // 4
    found = None if isinstance(stride, bool) else whole(stride)
    if found is None or not 0 <= found < length:
        raise ConfigError(f"stride must be from 0 to {length - 1}, less than max_length; found {excerpt(stride)}")
    return found
