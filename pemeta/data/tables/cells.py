"""Words and tags in a cell of a table: lists, or texts that stand for them."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from itertools import pairwise
from typing import Any

from pemeta.errors import DataError, excerpt
from pemeta.utils.values import whole

BLANKS = " \t\r\n"
"""What stands between two words; a no-break space is part of its word."""
NUMBER = re.compile(r"-?\d+")
INTEGERS = re.compile(r"\[\s*-?\d+(\s+-?\d+)*\s*\]")
"""An array of integers, as NumPy writes it."""


def is_list(value: Any) -> bool:
    """Whether a value is a list, or a text that shows one."""
    if not isinstance(value, str):
        return isinstance(value, list | tuple)
    text = value.strip(BLANKS)
    return text == "[]" or text.startswith(("['", '["'))


def words_in(value: Any, where: str) -> Any:
    """The words in a cell: of a text those between blanks, unless it shows a list; anything else as it is.

    Raises:
        DataError: A text begins like a list, but is none.

    >>> words_in("New York 's", "train.csv, line 2"), words_in("['New York', 's']", "train.csv, line 2")
    (['New', 'York', "'s"], ['New York', 's'])
    """
    if not isinstance(value, str):
        return value
    return _literal(value.strip(BLANKS), where, "words") if is_list(value) else split_text(value)


def tags_in(value: Any, where: str) -> Any:
    """The tags in a cell likewise, and as integers if they are.

    Raises:
        DataError: A text begins like a list, but is none.

    >>> tags_in("B-LOC O", "train.csv, line 2"), tags_in("[3 0]", "train.csv, line 2"), tags_in("3 0", "")
    (['B-LOC', 'O'], [3, 0], [3, 0])
    """
    if isinstance(value, str):
        text = value.strip(BLANKS)
        value = _literal(text, where, "tags") if text.startswith("[") else split_text(text)
    elif whole(value) is not None:
        return [value]
    if isinstance(value, list) and value and all(isinstance(tag, str) and NUMBER.fullmatch(tag) for tag in value):
        return list(map(int, value))
    return value


def split_text(text: str) -> list[str]:
    """The words of a text between blanks; no-break spaces are part of words."""
    return [word for word in re.split(f"[{BLANKS}]+", text) if word]


def _literal(text: str, where: str, what: str) -> list[Any]:
    """The list that a text shows, as JSON or as Python writes it."""
    try:
        found = json.loads(text)
    except ValueError:
        found = _python_list(text)
    if not isinstance(found, list):
        raise DataError(
            f"{where}: the {what} look like a list, but cannot be read as one: {excerpt(text)}; write it as JSON does, "
            '["a", "b"], as json.dumps(list(value)) gives it'
        )
    return found


def _python_list(text: str) -> Any:
    """A list as Python writes it, or an array, which has no commas; None for what is neither."""
    try:
        found = ast.literal_eval(text)
        if repr(found) == text:
            return found
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        found = None
    if INTEGERS.fullmatch(text):
        return list(map(int, text[1:-1].split()))
    try:
        tokens = [one for one in tokenize.generate_tokens(io.StringIO(text).readline) if one.string.strip()]
    except (tokenize.TokenError, SyntaxError):
        return None
    kinds = [token.type for token in tokens]
    if (tokenize.STRING, tokenize.STRING) not in pairwise(kinds):
        return found
    # Python would join strings side by side to one.
    if all(kind == tokenize.STRING for kind in kinds[1:-1]):
        return [ast.literal_eval(token.string) for token in tokens[1:-1]]
    return None
