"""Predictions of served tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from torch import Tensor

from pemeta.data.words import running_text
from pemeta.heads import TokenClassification

Prompt: TypeAlias = str | Sequence[Mapping[str, str]]
"""A text, or the turns of a conversation, each with a ``role`` and its ``content``."""


@dataclass(frozen=True)
class Entity:
    """An entity ``words[start:end]``, with the mean probability of its words' tags as score."""

    type: str
    start: int
    end: int
    text: str
    score: float


@dataclass(frozen=True)
class Tagged:
    """A text's words, their tags (None for a word that has no token), and the entities in them."""

    words: tuple[str, ...]
    tags: tuple[str | None, ...]
    entities: tuple[Entity, ...]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    def __str__(self) -> str:
        opens = {entity.start: entity for entity in self.entities}
        closes = {entity.end - 1: entity for entity in self.entities}
        parts = [
            f"{'[' if i in opens else ''}{word}{f' {closes[i].type}]' if i in closes else ''}"
            for i, word in enumerate(self.words)
        ]
        found = [f"  {one.type:8} {one.text}  {one.score:.2f}" for one in self.entities]
        return "\n".join([" ".join(parts), *found])


@dataclass(frozen=True)
class Classified:
    """A label, with its probability as score, and the text, or both texts of a pair."""

    text: str | tuple[str, str]
    label: str
    score: float

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.label} {self.score:.2f}  {_in_a_line(self.text)}"


@dataclass(frozen=True)
class Labelled:
    """The labels that are more probable than not, the probability of each there is, and the text or both of a pair."""

    text: str | tuple[str, str]
    labels: tuple[str, ...]
    scores: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    def __str__(self) -> str:
        shown = ", ".join(f"{label} {self.scores[label]:.2f}" for label in self.labels) or "-"
        return f"{shown}  {_in_a_line(self.text)}"


@dataclass(frozen=True)
class Estimated:
    """A number for each target, by its name, and the text or both texts of a pair."""

    text: str | tuple[str, str]
    values: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    def __str__(self) -> str:
        single = len(self.values) == 1
        shown = ", ".join(f"{value:.4g}" if single else f"{name} {value:.4g}" for name, value in self.values.items())
        return f"{shown}  {_in_a_line(self.text)}"


@dataclass(frozen=True)
class Completed:
    """What a language model wrote after a prompt, and whether it came to an end before it had to."""

    prompt: Prompt
    text: str
    finished: bool

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    def __str__(self) -> str:
        return self.text


Prediction: TypeAlias = Tagged | Classified | Labelled | Estimated | Completed


def _in_a_line(text: str | tuple[str, str]) -> str:
    return text if isinstance(text, str) else "  |  ".join(text)


def tagged(words: tuple[str, ...], probabilities: Mapping[int, Tensor], spec: TokenClassification) -> Tagged:
    """Label each word with the tag of its first token.

    Args:
        words: the words of a text.
        probabilities: label probabilities (C,) at the first token of each word that has one.
        spec: the task's head.
    """
    tags: list[str | None] = [None] * len(words)
    scores = [0.0] * len(words)
    for word, row in probabilities.items():
        score, index = row.max(-1)
        tags[word], scores[word] = spec.labels[int(index)], float(score)
    return Tagged(words, tuple(tags), tuple(_entities(words, tags, scores)))


def _entities(words: Sequence[str], tags: Sequence[str | None], scores: Sequence[float]) -> Iterator[Entity]:
    """Entities of ``B-`` and ``I-`` tags; an ``I-`` tag of a new type starts an entity, as in CoNLL's scoring."""
    start = 0
    for end in range(1, len(tags) + 1):
        kind = _kind(tags[start])
        following = tags[end] if end < len(tags) else None
        if kind is not None and following == f"I-{kind}":
            continue
        if kind is not None:
            yield Entity(kind, start, end, running_text(words[start:end]), sum(scores[start:end]) / (end - start))
        start = end


def _kind(tag: str | None) -> str | None:
    return tag[2:] if tag is not None and tag[:2] in {"B-", "I-"} else None
