"""What a column of a file holds: tags, types, numbers of words, or what tells sentences apart."""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pemeta.data.schemes import PREFIXED
from pemeta.data.token_files.shapes import NUMBER, WORDS

BLANK = re.compile(r"\s")
_DIGIT = re.compile(r"\d")
_BRACKETS = re.compile(r"[O*_-]|\([^()*]+\*?\)?|\*?\)")
_OPENED = re.compile(r"\(([^()*]+)")
_OTHER = re.compile(r"\d+|[CR]-.*|V|A(RG)?[A0-5M](-.*)?|TOP")
"""What opens brackets of coreference, of a verb and its arguments, and of a tree."""
MOST = 0.9
"""The share of the lines that must have a property, for it to be a column's: what the others have is odd."""
CHUNKS = frozenset(
    ("NP", "VP", "PP", "ADVP", "ADJP", "SBAR", "PRT", "CONJP", "INTJ", "LST", "UCP", "PC", "VC", "NC", "AC")
)
"""Types of syntactic chunks (CoNLL-2000), which CoNLL-2003 has beside its entities."""


@dataclass(frozen=True)
class Column:
    """What one column holds.

    Attributes:
        values: How often it holds each value.
        number: Lines that have it.
        runs: How often its value differs from that of the line before.
    """

    values: Counter[str]
    number: int
    runs: int

    @classmethod
    def of(cls, values: Sequence[str]) -> Column:
        """The column of some values."""
        return cls(Counter(values), len(values), 1 + sum(map(operator.ne, values, values[1:])))

    def share(self, *values: str) -> float:
        """The share of the lines that hold one of some values."""
        return sum(self.values[value] for value in values) / self.number

    @property
    def types(self) -> dict[str, int]:
        """How often each type is in a tag with a letter."""
        found: Counter[str] = Counter()
        for value, number in self.values.items():
            if (match := PREFIXED.fullmatch(value)) and not BLANK.search(value):
                found[match[2]] += number
        return dict(found)

    @property
    def holds_tags(self) -> bool:
        """Whether the values are tags of a scheme with letters, apart from a few; ``_`` stands where there is none."""
        return self.types != {} and self._fitting() >= MOST

    @property
    def holds_some_tags(self) -> bool:
        """Whether half of the values are tags, as in a small file in which some are wrong."""
        return self.types != {} and self._fitting() >= 0.5

    def _fitting(self) -> float:
        return sum(self.types.values()) / self.number + self.share("O", "_")

    @property
    def holds_brackets(self) -> bool:
        """Whether the values are entities in brackets, as in OntoNotes, and no trees, arguments or coreference."""
        opened = {match[1] for value in self.values for match in _OPENED.finditer(value)}
        whole = all(map(_BRACKETS.fullmatch, self.values))
        return whole and bool(opened) and not any(map(_OTHER.fullmatch, opened))

    @property
    def varies(self) -> bool:
        """Whether most values differ from the one before, and are no numbers, as words do."""
        return self.runs > self.number / 2 and not all(map(NUMBER.fullmatch, self.values))

    @property
    def holds_integers(self) -> bool:
        """Whether the values are integers, which may stand for tags."""
        return all(map(str.isdecimal, self.values))

    @property
    def holds_types(self) -> bool:
        """Whether the values may be types without letters: some are ``O``, and the others are few."""
        if self.holds_brackets:
            return False
        few = 1 < len(self.values) <= 5 + self.number / 5
        return self.share("O") >= 0.05 and few and not self.types and not any(map(BLANK.search, self.values))

    @property
    def holds_nothing(self) -> bool:
        """Whether there is no tag but ``O``."""
        return self.share("O", "_") == 1 and self.share("O") > 0

    def tells_sentences_apart(self, name: str = "") -> bool:
        """Whether a header says so, or each value stands in lines that follow each other, and has a number."""
        if name.lower().startswith("sent") and name.lower() not in WORDS | {"sentence"}:
            return True
        filled = len(self.values) - ("" in self.values)
        if not all(map(_DIGIT.search, filter(None, self.values))):  # as of a few parts of speech
            return False
        if "" in self.values:  # named in its first line alone
            return all(number == 1 for value, number in self.values.items() if value) and 1 < filled < self.number
        return self.runs == len(self.values) and 1 < filled < self.number


def number_words(values: Sequence[str]) -> bool:
    """Whether values number the words of each sentence, as in CoNLL-U.

    >>> number_words(["1", "2", "3-4", "3", "4", "1"]), number_words(["1", "1", "2", "2"])
    (True, False)
    """
    counting = sum(_follows(*pair) for pair in zip(["0", *values], values, strict=False))
    return counting >= MOST * len(values)


def _follows(before: str, value: str) -> bool:
    """Whether a value is the number of the word after another; ranges and empty nodes have parts of such."""
    old, new = NUMBER.fullmatch(before), NUMBER.fullmatch(value)
    if new is None:
        return False
    first = int(new[1])
    return first <= 1 or (old is not None and first - int(old[1]) in ((0, 1) if new[2] or old[2] else (1,)))
