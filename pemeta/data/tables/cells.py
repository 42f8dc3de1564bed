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
ABSENT = ("nan", "None")
"""What Python writes for a missing value."""
NUMBER = re.compile(r"-?\d+")
INTEGERS = re.compile(r"\[\s*-?\d+(\s+-?\d+)*\s*\]")
"""An array of integers, as NumPy writes it."""


def is_list(value: Any) -> bool:
    """Whether a value is a list, or a text that shows one, even of values that are no words."""
    if not isinstance(value, str):
        return isinstance(value, list | tuple)
    text = value.strip(BLANKS)
    if text == "[]" or text.startswith(("['", '["')):
        return True
    # A bracket may begin a word, as in "[1]", so the text has to be a list of more than that.
    found = (_shown(text) or ()) if text[:1] in ("[", "(") and text[-1] in "])" and text[1:2] not in BLANKS else ()
    return len(found) > 1 or any(one is None or isinstance(one, str | bytes | list | tuple) for one in found)


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
        DataError: A text begins like a list, but is none, or has commas between tags.

    >>> tags_in("B-LOC O", "train.csv, line 2"), tags_in("[3 0]", "train.csv, line 2"), tags_in("3 0", "")
    (['B-LOC', 'O'], [3, 0], [3, 0])
    """
    if isinstance(value, str):
        text = value.strip(BLANKS)
        value = _literal(text, where, "tags") if text.startswith(("[", "(")) else split_text(text)
        if any(tag.endswith(",") for tag in value[:-1] if isinstance(tag, str)):
            raise DataError(
                f"{where}: expected blanks between tags; found commas: {excerpt(text)}; write words and tags as lists "
                'in JSON, ["a", "b"], or with blanks between them'
            )
    elif whole(value) is not None:
        return [value]
    elif is_list(value) and (odd := [tag for tag in value if isinstance(tag, str) and tag != tag.strip(BLANKS)]):
        raise DataError(
            f"{where}: tag {value.index(odd[0]) + 1} has blanks around it; remove them; found {excerpt(odd[0])}"
        )
    if isinstance(value, list) and value and all(isinstance(tag, str) and NUMBER.fullmatch(tag) for tag in value):
        return list(map(int, value))
    return value


def shows_list(text: str) -> bool:
    """Whether a text that holds classes, and no words, shows a list of them, perhaps of one number only.

    >>> shows_list("[1]"), shows_list("['a', 'b']"), shows_list("a [1]")
    (True, True, False)
    """
    bare = text.strip(BLANKS)
    return is_list(bare) or (bare.startswith("[") and bare.endswith("]")) or bool(re.fullmatch(r"\(.*,\)", bare))


def list_in(text: str, where: str, what: str) -> list[Any]:
    """The list that a text shows; ``what`` its values are is for messages.

    Raises:
        DataError: It begins like a list, but is none.
    """
    return _literal(text.strip(BLANKS), where, what)


def split_text(text: str) -> list[str]:
    """The words of a text between blanks; no-break spaces are part of words."""
    return [word for word in re.split(f"[{BLANKS}]+", text) if word]


def _literal(text: str, where: str, what: str) -> list[Any]:
    """The list that a text shows."""
    found = _shown(text)
    if found is None:
        raise DataError(
            f"{where}: the {what} look like a list, but cannot be read as one: {excerpt(text)}; write it as JSON does, "
            '["a", "b"], as json.dumps(list(value)) gives it'
        )
    return found


def _shown(text: str) -> list[Any] | None:
    """The list that a text shows, as JSON, Python or NumPy writes it; None if it shows none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = _python_list(text)
    return list(found) if isinstance(found, list | tuple) else None


def _python_list(text: str) -> Any:
    """A list as Python writes it, or an array, which has no commas; None, or anything else, for what is neither."""
    found = None
    try:
        found = ast.literal_eval(text)
        if repr(found) == text:
            return found
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # "nan" is a name and no literal
        found = None
    if INTEGERS.fullmatch(text):
        return list(map(int, text[1:-1].split()))
    try:
        tokens = [one for one in tokenize.generate_tokens(io.StringIO(text).readline) if one.string.strip()]
    except (tokenize.TokenError, SyntaxError):
        return None
    inner = tokens[1:-1]
    if found is not None and (tokenize.STRING, tokenize.STRING) not in pairwise(one.type for one in inner):
        return found
    # Python would join strings side by side to one.
    values = inner[::2] if all(one.string == "," for one in inner[1::2]) else inner
    if not all(one.type in (tokenize.STRING, tokenize.NUMBER) or one.string in ABSENT for one in values):
        return None
    if not any(one.type == tokenize.STRING for one in values):
        return None
    return [None if one.string in ABSENT else ast.literal_eval(one.string) for one in values]
