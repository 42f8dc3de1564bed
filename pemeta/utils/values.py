"""Checks of what users give: any sequence of the right things is taken, and anything else refused in a sentence."""

from __future__ import annotations

import numbers
import operator
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pemeta.errors import ConfigError, DataError, article, excerpt, reason, unknown_name

T = TypeVar("T")


def listed(values: Iterable[T], what: str, example: str) -> tuple[T, ...]:
    """The values of anything with an order and one dimension: a list, a generator, a column, a data set of PyTorch.

    Args:
        values: What a user gave.
        what: What the values are, in the plural.
        example: How to write one of them in a list.

    Raises:
        DataError: It is one string, a mapping, a set, a table, or no iterable at all.
    """
    if isinstance(values, str | bytes):
        raise DataError(f"{what} must be a list; found the single value {excerpt(values)}; put it in a list: {example}")
    unordered = "; it has no order" if isinstance(values, set | frozenset) else ""
    lazy = hasattr(values, "__len__") and hasattr(values, "__getitem__")  # without the methods of a Sequence
    if (
        isinstance(values, Mapping | set | frozenset)
        or getattr(values, "ndim", 1) != 1
        or not (hasattr(values, "__iter__") or lazy)
    ):
        kind = article(type(values).__name__)
        raise DataError(f"{what} must be a list; found {kind}: {excerpt(values)}{unordered}; give a list: {example}")
    given: Any = values
    try:
        return tuple(given) if hasattr(given, "__iter__") else tuple(given[i] for i in range(len(given)))
    except (TypeError, LookupError) as error:  # an array of no dimension, or what only seems to be a sequence
        raise DataError(f"{what} must be a list; {reason(error)}; give a list: {example}") from None


def whole(value: object) -> int | None:
    """An integer of any library as Python's, or None for anything else.

    >>> import numpy as np
    >>> whole(np.int64(3)), whole(3.0), whole("3")
    (3, None, None)
    """
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):  # a tensor of several values, or of floats
        return None


def checked_size(value: object, what: str, least: int = 1) -> int:
    """A number of things, as Python's integer.

    Raises:
        ConfigError: It is not a whole number, less than ``least``, or of more than 64 bits.
    """
    found = None if isinstance(value, bool) else whole(value)
    if found is None or found < least or found.bit_length() > 63:
        raise ConfigError(f"{what} must be a whole number of at least {least}; found {excerpt(value)}")
    return found


def known(value: object, kind: str, options: Collection[str]) -> str:
    """One of several names.

    Raises:
        ConfigError: It is none of them.
    """
    if not isinstance(value, str) or value not in options:
        raise ConfigError(unknown_name(kind, value if isinstance(value, str) else excerpt(value), options))
    return value


def checked_names(values: Iterable[object], what: str, plural: str = "") -> tuple[str, ...]:
    """Names in an order.

    Raises:
        DataError: They are not a list, or one of them is not a string.
    """
    given = listed(values, plural or f"{what}s", f"[{what!r}]")
    for number, value in enumerate(given, 1):
        if not isinstance(value, str):
            raise DataError(f"{what} {number} of {len(given)} must be a string; found {excerpt(value)}")
    return tuple(str(value) for value in given)


def missing(value: object) -> bool:
    """Whether a value stands for one that is missing in a table: None, not a number, or pandas' own."""
    if value is None or type(value).__name__ in {"NAType", "NaTType"}:
        return True
    return isinstance(value, numbers.Real) and value != value


def text_problem(value: object) -> str | None:
    """The reason why a value is not a text, with the remedy, or None if it is one.

    >>> text_problem("a"), text_problem(None)
    (None, 'is missing (None); remove it')
    """
    if isinstance(value, str):
        return _surrogate(value)
    if missing(value):
        return f"is missing ({value}); remove it"
    found = f"must be a string; found {excerpt(value)}"
    if isinstance(value, Mapping):
        key = next((key for key, one in value.items() if isinstance(one, str)), "text")
        return f"{found}; take the texts out of the rows first: [row[{key!r}] for row in rows]"
    if isinstance(value, bytes):
        return f"{found}; decode it: .decode('utf-8')"
    if isinstance(value, Sequence):
        return f"{found}; join its words with ' '.join(words), or give words with tags to pemeta.encode"
    return f"{found}; convert it with str()"


def _surrogate(text: str) -> str | None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = excerpt(text[error.start])
        return f"holds {half}, half of a surrogate pair, which is no character; read its file as UTF-8, or remove it"
    return None


def checked_texts(texts: Iterable[Any], what: str = "text", with_it: str = "") -> list[str]:
    """Texts as strings.

    Args:
        texts: What a user gave.
        what: What one of them is.
        with_it: What to remove together with a text that is empty or missing.

    Raises:
        DataError: They are not a list, or one of them is not a string, or empty.
    """
    given = listed(texts, f"{what}s", f"[{what!r}]")
    for number, text in enumerate(given, 1):
        problem = text_problem(text)
        if problem is None and not text.strip():
            problem = "is empty; remove it"
        if problem is not None:
            also = with_it if problem.endswith("remove it") else ""
            raise DataError(f"{what} {number} of {len(given)} {problem}{also}")
    return [str(text) for text in given]
