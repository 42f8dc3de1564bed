"""What a data set holds, counted sentence by sentence: lengths, entity types, repetitions, and what is odd."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pemeta.data.look.oddities import Oddities, odd_character
from pemeta.data.rows import Row
from pemeta.data.schemes import Scheme, converted
from pemeta.errors import excerpt

LONG = 128
"""Words above which a sentence is named: it is longer than the default ``max_length`` in tokens."""
MOJIBAKE = re.compile("[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac")
"""What UTF-8 becomes where it is read as Latin-1 or Windows-1252."""


@dataclass
class Counts:
    """What is counted of examples of any kind.

    Attributes:
        oddities: What is odd about them.
        lengths: How many there are of each number of words.
        longest: Where the longest is.
        repeated: Number of those that an earlier one equals.
        first_repeated: Where the first of them is, and the one that it repeats.
        seen: Where each is first, by a hash of its content, with one of what it should be predicted to be.
    """

    oddities: Oddities
    lengths: Counter[int] = field(default_factory=Counter)
    longest: str = ""
    repeated: int = 0
    first_repeated: tuple[str, str] | None = None
    seen: dict[int, tuple[str, int]] = field(default_factory=dict)

    @property
    def examples(self) -> int:
        """Number of examples."""
        return sum(self.lengths.values())

    @property
    def words(self) -> int:
        """Number of words."""
        return sum(length * number for length, number in self.lengths.items())

    def quantile(self, share: float) -> int:
        """The length that a share of the examples does not exceed."""
        left = share * self.examples
        for length in sorted(self.lengths):
            left -= self.lengths[length]
            if left <= 0:
                return length
        return max(self.lengths, default=0)

    def repeats(self, other: Mapping[int, object]) -> int:
        """How many of another data set's examples, by the hashes of their content, are here too."""
        return len(self.seen.keys() & other.keys())


@dataclass
class Tally(Counts):
    """What some sentences hold.

    Attributes:
        scheme: Scheme of their tags.
        entities: How many entities there are of each type.
        with_entity: Number of sentences that have one.
        documents: Numbers of their documents.
    """

    scheme: Scheme | None = None
    entities: Counter[str] = field(default_factory=Counter)
    with_entity: int = 0
    documents: set[int | None] = field(default_factory=set)
    _tags: dict[str, tuple[int, str]] = field(default_factory=dict)
    _odd: dict[str, tuple[str, str] | None] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        """Count a sentence: a row with the columns ``tokens``, ``tags`` and ``document``."""
        words, tags = row.values["tokens"], row.values["tags"]
        if len(words) > max(self.lengths, default=0):
            self.longest = _at(row, 0)
        self.lengths[len(words)] += 1
        self.documents.add(row.values.get("document"))
        self._look_at_words(row, words)
        self._look_at_tags(row, tags)
        self._look_for_repetition(row, words, tags)

    def finish(self) -> None:
        """Name what only the whole shows: tags that are there once, and types that differ in capitals alone."""
        for tag, (number, where) in self._tags.items():
            if number == 1 and tag != "O":
                self.oddities.add("a tag that occurs once", where, excerpt(tag), "it may be a mistake")
        kinds: dict[str, list[str]] = {}
        for kind in self.entities:
            kinds.setdefault(kind.lower(), []).append(kind)
        for alike in kinds.values():
            if len(alike) > 1:
                hint = "map one to the other with types, if they are the same"
                self.oddities.add("types that differ in capitals alone", None, " ".join(alike), hint)

    def _look_at_words(self, row: Row, words: Sequence[str]) -> None:
        if len(words) > LONG:
            hint = f"max_length is {LONG} tokens by default, and cuts what is longer"
            self.oddities.add(f"a sentence of more than {LONG} words", _at(row, 0), f"{len(words)} words", hint)
        joined = "".join(words)
        if not any(map(str.isalnum, joined)):
            shown = excerpt(" ".join(words), 40)
            self.oddities.add("a sentence without a letter or digit", _at(row, 0), shown)
        for character in set(joined):
            if character not in self._odd:
                self._odd[character] = odd_character(character)
            if found := self._odd[character]:
                for index, word in enumerate(words):
                    if character in word:
                        self.oddities.add(found[0], _at(row, index), excerpt(word, 40), found[1])
        if " " in joined:
            for index, word in enumerate(words):
                if " " in word:
                    self.oddities.add("a blank within a word", _at(row, index), excerpt(word, 40))
        if not joined.isascii() and MOJIBAKE.search(joined):
            for index, word in enumerate(words):
                if MOJIBAKE.search(word):
                    hint = "its UTF-8 was once read as another encoding"
                    self.oddities.add("two letters in place of one", _at(row, index), excerpt(word, 40), hint)

    def _look_at_tags(self, row: Row, tags: Sequence[str]) -> None:
        for index, tag in enumerate(tags):
            number, where = self._tags.get(tag, (0, ""))
            self._tags[tag] = (number + 1, where or _at(row, index))
        made, misfit = converted(tags, self.scheme or "conlleval")
        if misfit:
            index, why = misfit
            hint = "mend the tags"
            if self.scheme is not None:
                self.oddities.add(f"a tag that does not fit {self.scheme}", _at(row, index), why, hint)
        begun = [tag[2:] for tag in made if tag.startswith("B-")]
        self.entities.update(begun)
        self.with_entity += bool(begun)

    def _look_for_repetition(self, row: Row, words: Sequence[str], tags: Sequence[str]) -> None:
        key, own = hash(tuple(words)), hash(tuple(tags))
        where = _at(row, 0)
        if key not in self.seen:
            self.seen[key] = (where, own)
            return
        first, others = self.seen[key]
        self.repeated += 1
        self.first_repeated = self.first_repeated or (where, first)
        if own != others:
            self.oddities.add("a sentence that occurs before with other tags", where, f"first at {first}")


def _at(row: Row, index: int) -> str:
    """Where a word stands, without its file: ``line 12``."""
    return row.place(index).removeprefix(f"{row.source}, ")
