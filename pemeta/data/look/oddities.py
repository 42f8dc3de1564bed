"""What is odd in a file: each kind once, with how often it is there and the first lines that have it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field

SHOWN = 3
"""Most lines that are named of each kind."""
JOINERS = "\u200c\u200d"
"""Invisible, and part of how Persian, Hindi and emoji are written."""


@dataclass
class Oddity:
    """Something odd.

    Attributes:
        what: What it is.
        hint: What it means for training, or what to do about it.
        number: How often it is there.
        places: Where the first are, such as ``line 12``, each with what stands there.
    """

    what: str
    hint: str = ""
    number: int = 0
    places: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Oddities:
    """All that is odd in a file, by kind."""

    kinds: dict[str, Oddity] = field(default_factory=dict)

    def add(self, what: str, where: str | None = None, content: str = "", hint: str = "") -> None:
        """Count one more; what concerns the whole file has no place."""
        kind = self.kinds.setdefault(what, Oddity(what, hint))
        kind.number += 1
        if len(kind.places) < SHOWN and (where or content):
            kind.places.append((where or "", content))

    def __iter__(self) -> Iterator[Oddity]:
        return iter(self.kinds.values())

    def __len__(self) -> int:
        return len(self.kinds)


def odd_character(character: str) -> tuple[str, str] | None:
    r"""What is odd about a character, and what that means; None if nothing is.

    >>> odd_character("a"), odd_character("\u200d")
    (None, None)
    >>> odd_character("\u00a0")[0]
    'a blank other than a space: U+00A0 NO-BREAK SPACE'
    """
    category = unicodedata.category(character)
    shown = f"U+{ord(character):04X} {unicodedata.name(character, '')}".rstrip()
    if category == "Cc" and character not in "\t\r\n":
        return f"a control character: {shown}", "replace or remove it, if it is not meant"
    if category == "Cf" and character not in JOINERS and ord(character) < 0xE0000:
        return f"an invisible character: {shown}", "words that look alike differ; remove it, if it is not meant"
    if category in ("Zs", "Zl", "Zp") and character != " ":
        return f"a blank other than a space: {shown}", "most tools do not split words there"
    if category == "Co":
        return f"a character of private use: {shown}", "only its font knows what it means"
    if character == "\ufffd":
        return f"a character that was lost: {shown}", "the text was converted from the wrong encoding before"
    return None
