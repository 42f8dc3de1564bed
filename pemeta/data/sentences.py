"""Labelled sentences, label sets and corpora."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from pemeta.errors import ConfigError, DataError, counted, excerpt, shortened
from pemeta.utils.values import listed, missing, text_problem, whole

Split: TypeAlias = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Sentence:
    """Words with one IOB2 tag each.

    Attributes:
        words: One string or more, none of them empty.
        tags: A string for each word.
        document: Number of its document in the file or split that it is from, if that says; sentences are equal
            whatever their documents.

    Raises:
        DataError: There is no word, a word or tag is not a string, their numbers differ, or the document is no number.

    >>> Sentence(("Ada", "slept"), ("B-PER", "O")).tags[0]
    'B-PER'
    """

    words: tuple[str, ...]
    tags: tuple[str, ...]
    document: int | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        words, tags = listed(self.words, "words", "['Ada', 'slept']"), listed(self.tags, "tags", "['B-PER', 'O']")
        object.__setattr__(self, "words", words)  # a tuple, whatever was given
        object.__setattr__(self, "tags", tags)
        if not _are_words(words):
            raise DataError(f"{_word_problem(words)}; the words are {excerpt(words)}")
        if not words or len(words) != len(tags):
            raise DataError(
                f"a sentence needs as many tags as words and at least one of each; found "
                f"{counted(len(words), 'word')} and {counted(len(tags), 'tag')}: {' '.join(words)[:80]!r}"
            )
        for number, tag in enumerate(tags, 1):
            if not isinstance(tag, str):
                raise DataError(f"tag {number} of {len(tags)} {_tag_problem(tag)}; the words are {excerpt(words)}")
        if self.document is not None:
            object.__setattr__(self, "document", checked_document(self.document))


def checked_document(document: object) -> int:
    """The number of a document, as Python's integer.

    Raises:
        DataError: It is no whole number, or negative.
    """
    number = None if isinstance(document, bool) else whole(document)
    if number is None or number < 0:
        raise DataError(f"document must be a whole number of at least 0, or None; found {excerpt(document)}")
    return number


def _are_words(values: tuple[object, ...]) -> bool:
    """Whether all values are strings that a file could hold and none is empty, checked at once, which is fast."""
    try:
        "".join(values).encode()  # type: ignore[arg-type]
    except (TypeError, UnicodeEncodeError):
        return False
    return "" not in values


def _word_problem(words: tuple[object, ...]) -> str:
    """The first word that is none, and why."""
    for number, word in enumerate(words, 1):
        problem = "is empty; remove it" if word == "" else text_problem(word)
        if problem:
            also = " and its tag" if problem.endswith("remove it") else ""
            return f"word {number} of {len(words)} {problem}{also}"
    return "the words cannot be read"


def _tag_problem(tag: object) -> str:
    if missing(tag):
        return f"is missing ({tag}); give the word a tag, or O"
    return (
        f"must be a string such as 'O'; found {excerpt(tag)}; if tags are indices into names, as in a data set with a "
        "ClassLabel, give the names: [names[i] for i in tags]"
    )


@dataclass(frozen=True)
class LabelSet:
    """The IOB2 tags of a task: ``O``, then ``B-`` and ``I-`` for each entity type, in the types' order.

    WikiAnn's three types give seven labels, as in the paper.

    Attributes:
        types: Names of the entity types, without a prefix.
        tags: All tags, in the order of the label indices.
        index: Each tag's index.

    Raises:
        ConfigError: The types are not one or more different names in an order; one string is none, and tags are not
            types.

    >>> LabelSet(("PER", "LOC")).tags
    ('O', 'B-PER', 'I-PER', 'B-LOC', 'I-LOC')
    """

    types: tuple[str, ...]
    tags: tuple[str, ...] = field(init=False)
    index: dict[str, int] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        try:
            types = listed(self.types, "entity types", "LabelSet(['PER'])")
        except DataError as error:  # an argument that a configuration holds, too
            raise ConfigError(str(error)) from None
        if not types or len(set(map(repr, types))) != len(types) or not all(types):
            raise ConfigError(f"a label set needs one or more different entity types; found {list(types)}")
        for kind in types:
            _check_type(kind)
        tags = ("O", *(f"{prefix}-{kind}" for kind in types for prefix in "BI"))
        object.__setattr__(self, "types", types)
        object.__setattr__(self, "tags", tags)
        object.__setattr__(self, "index", {tag: i for i, tag in enumerate(tags)})

    def __len__(self) -> int:
        return len(self.tags)

    def problem(self, previous: str, tag: str) -> str | None:
        """The reason why ``tag`` cannot follow ``previous`` in IOB2, or None if it can.

        >>> LabelSet(("PER",)).problem("O", "I-PER")
        "tag 'I-PER' follows 'O', but in IOB2 an entity starts with 'B-PER'"
        """
        if tag not in self.index:
            return f"unknown tag {excerpt(tag)}; the label set is {shortened(', '.join(self.tags), 200)}"
        if tag.startswith("I-") and previous[2:] != tag[2:]:
            return f"tag {tag!r} follows {previous!r}, but in IOB2 an entity starts with {'B-' + tag[2:]!r}"
        return None

    def check(self, sentences: Iterable[Sentence]) -> tuple[Sentence, ...]:
        """The sentences, after checking that each has tags of this label set, in IOB2.

        Raises:
            DataError: They are no list of sentences, or a tag is unknown or cannot follow the one before it.
        """
        given = listed(sentences, "sentences", "[Sentence(words, tags)]")
        for number, sentence in enumerate(given, 1):
            if not isinstance(sentence, Sentence):
                raise DataError(
                    f"sentence {number} of {len(given)} must be a pemeta.Sentence; found {excerpt(sentence)}; make one "
                    "of its words and tags: Sentence(words, tags)"
                )
            for previous, tag in zip(("O", *sentence.tags), sentence.tags, strict=False):
                problem = self.problem(previous, tag)
                if problem:
                    advice = (
                        ""
                        if tag in self.index
                        else "; list the entity types of all tags in data.types, or in the LabelSet"
                    )
                    raise DataError(
                        f"sentence {number} of {len(given)}: {problem}{advice}; in the sentence "
                        f"{' '.join(sentence.words)[:80]!r}"
                    )
        return given


def checked_labels(labels: object) -> LabelSet:
    """A label set, and not a list of tags or anything else.

    Raises:
        ConfigError: It is not a :class:`LabelSet`.
    """
    if not isinstance(labels, LabelSet):
        raise ConfigError(
            f"expected a label set; found {excerpt(labels)}; make one of the entity types: LabelSet(['PER', 'LOC'])"
        )
    return labels


def _check_type(kind: object) -> None:
    """Refuse what is not the name of an entity type."""
    if not isinstance(kind, str) or kind != kind.strip() or not kind.isprintable():
        raise ConfigError(f"an entity type must be a name without blanks around it; found {excerpt(kind)}")
    if kind == "O" or kind.startswith(("B-", "I-")):
        raise ConfigError(
            f"a label set needs entity types, not tags; found {kind!r}; give the types without prefixes, such as "
            f"LabelSet([{kind[2:] or 'PER'!r}])"
        )


def digest(sentences: Sequence[Sentence]) -> str:
    """A digest of all words and tags, as twelve hexadecimal digits.

    >>> a, b = Sentence(("x",), ("O",)), Sentence(("y",), ("O",))
    >>> digest([a]) == digest([a]), digest([a]) == digest([b])
    (True, False)
    """
    sha = hashlib.sha256()
    for sentence in sentences:
        for word, tag in zip(sentence.words, sentence.tags, strict=True):
            sha.update(f"{word}\t{tag}\n".encode())
        sha.update(b"\n")
    return sha.hexdigest()[:12]
