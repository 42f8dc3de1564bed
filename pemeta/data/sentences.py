"""Labelled sentences, label sets and corpora."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from pemeta.errors import ConfigError, DataError, excerpt

Split: TypeAlias = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Sentence:
    """Words with one IOB2 tag each.

    >>> Sentence(("Ada", "slept"), ("B-PER", "O")).tags[0]
    'B-PER'
    """

    words: tuple[str, ...]
    tags: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.words or len(self.words) != len(self.tags):
            raise DataError(
                f"a sentence needs as many tags as words and at least one of each; found {len(self.words)} "
                f"words and {len(self.tags)} tags: {' '.join(self.words)[:80]!r}"
            )


@dataclass(frozen=True)
class LabelSet:
    """The IOB2 tags of a task: ``O``, then ``B-`` and ``I-`` for each entity type, in the types' order.

    WikiAnn's three types give seven labels, as in the paper.

    >>> LabelSet(("PER", "LOC")).tags
    ('O', 'B-PER', 'I-PER', 'B-LOC', 'I-LOC')
    """

    types: tuple[str, ...]
    tags: tuple[str, ...] = field(init=False)
    index: dict[str, int] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.types or len(set(self.types)) != len(self.types) or not all(self.types):
            raise ConfigError(f"a label set needs one or more different entity types; found {list(self.types)}")
        tags = ("O", *(f"{prefix}-{kind}" for kind in self.types for prefix in "BI"))
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
            return f"unknown tag {excerpt(tag)}; the label set is {', '.join(self.tags)}"
        if tag.startswith("I-") and previous[2:] != tag[2:]:
            return f"tag {tag!r} follows {previous!r}, but in IOB2 an entity starts with {'B-' + tag[2:]!r}"
        return None


@dataclass(frozen=True)
class Corpus:
    """The sentences of one language (or customer, or domain) in three splits."""

    name: str
    labels: LabelSet
    train: Sequence[Sentence]
    validation: Sequence[Sentence]
    test: Sequence[Sentence]

    def split(self, name: Split) -> Sequence[Sentence]:
        """The sentences of one split."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    def limited(self, **sizes: int | None) -> Corpus:
        """The corpus with the first ``sizes[split]`` sentences of each split, or all if that is None."""
        return Corpus(self.name, self.labels, *(self.split(split)[: sizes.get(split)] for split in SPLITS))


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
