"""Scores of each kind of task."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from seqeval.metrics.sequence_labeling import get_entities, precision_recall_fscore_support


class TaskScores(ABC):
    """Scores of one task's predictions, of whatever kind."""

    @property
    @abstractmethod
    def main(self) -> float:
        """The one number that decides which epoch is the best, higher being better."""

    @property
    @abstractmethod
    def summary(self) -> str:
        """The metric's name and value, as a progress bar shows them."""

    def numbers(self) -> dict[str, float]:
        """Every score that is one number, by name."""
        return {name: float(value) for name, value in vars(self).items() if isinstance(value, int | float)}


@dataclass(frozen=True)
class Scores(TaskScores):
    """Entity-level micro precision, recall and F1, and F1 per entity type; fractions from 0 to 1."""

    f1: float
    precision: float
    recall: float
    f1_per_type: dict[str, float]

    @property
    def main(self) -> float:
        """F1."""
        return self.f1

    @property
    def summary(self) -> str:
        """F1 in per cent."""
        return f"F1 {100 * self.f1:.1f}"


def entity_scores(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], types: Sequence[str]) -> Scores:
    """Scores of predicted IOB2 tags by seqeval, in its default mode, which is that of the ``conlleval`` script.

    An entity counts when its type and both its ends are right. A predicted ``I-X`` that continues nothing
    starts an entity. Where there is nothing to find or nothing was found, the score is 0.

    >>> entity_scores([["B-PER", "I-PER", "O"]], [["B-PER", "O", "O"]], ["PER"]).f1
    0.0
    """
    if not _any(gold, predicted):
        return Scores(0.0, 0.0, 0.0, dict.fromkeys(types, 0.0))
    # Not seqeval's report, which finds all entities ten times over: it would be most of an epoch on cached states.
    score = partial(precision_recall_fscore_support, gold, predicted, zero_division=0, warn_for=())
    precision, recall, f1, _ = score(average="micro")
    found = sorted({tag[2:] for tags in (gold, predicted) for sentence in tags for tag in sentence if tag != "O"})
    per_type = dict(zip(found, score(average=None)[2], strict=True))
    return Scores(float(f1), float(precision), float(recall), {t: float(per_type.get(t, 0.0)) for t in types})


@dataclass(frozen=True)
class EntityCounts:
    """What micro F1 is made of, sentence by sentence: with it F1 on any sample of the sentences can be computed.

    Attributes:
        correct: entities that were found with the right type and ends, in each sentence.
        predicted: entities that were found.
        gold: entities that are there.
    """

    correct: tuple[int, ...]
    predicted: tuple[int, ...]
    gold: tuple[int, ...]


def entity_counts(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> EntityCounts:
    """The entities of each sentence, counted as :func:`entity_scores` counts them.

    >>> entity_counts([["B-PER", "I-PER", "O"], ["B-LOC"]], [["B-PER", "O", "O"], ["B-LOC"]])
    EntityCounts(correct=(0, 1), predicted=(1, 1), gold=(1, 1))
    """
    found = [(set(get_entities(list(g))), set(get_entities(list(p)))) for g, p in zip(gold, predicted, strict=True)]
    return EntityCounts(
        tuple(len(g & p) for g, p in found), tuple(len(p) for _, p in found), tuple(len(g) for g, _ in found)
    )


def _any(*sequences: Sequence[Sequence[str]]) -> bool:
    """Whether any entity is there at all; seqeval fails without one."""
    return any(tag != "O" for tags in sequences for sentence in tags for tag in sentence)


@dataclass(frozen=True)
class ClassScores(TaskScores):
    """Accuracy, macro-F1 and F1 per class; fractions from 0 to 1."""

    accuracy: float
    macro_f1: float
    f1_per_class: dict[str, float]

    @property
    def main(self) -> float:
        """Accuracy."""
        return self.accuracy

    @property
    def summary(self) -> str:
        """Accuracy in per cent."""
        return f"accuracy {100 * self.accuracy:.1f}"


def class_scores(gold: Sequence[str], predicted: Sequence[str], classes: Sequence[str]) -> ClassScores:
    """Scores of one predicted class per text.

    Macro-F1 is the mean of the F1 of the classes that are in ``gold`` or were predicted, as in scikit-learn; a class
    that is nowhere has an F1 of 0 in ``f1_per_class`` and does not count.

    >>> scores = class_scores(["a", "a", "b"], ["a", "b", "b"], ["a", "b", "c"])
    >>> round(scores.accuracy, 3), round(scores.macro_f1, 3)
    (0.667, 0.667)
    """
    pairs = list(zip(gold, predicted, strict=True))
    # F1 = 2 TP / (2 TP + FP + FN), and the two sizes add up to that denominator.
    sizes = {name: list(gold).count(name) + list(predicted).count(name) for name in classes}
    f1 = {name: 2 * pairs.count((name, name)) / size if size else 0.0 for name, size in sizes.items()}
    present = [f1[name] for name, size in sizes.items() if size]
    return ClassScores(
        accuracy=sum(g == p for g, p in pairs) / len(pairs) if pairs else 0.0,
        macro_f1=sum(present) / len(present) if present else 0.0,
        f1_per_class=f1,
    )


@dataclass(frozen=True)
class LanguageModelScores(TaskScores):
    """Mean negative log-likelihood per predicted piece, in nats, and its exponential."""

    loss: float
    perplexity: float

    @property
    def main(self) -> float:
        """The loss with its sign turned."""
        return -self.loss

    @property
    def summary(self) -> str:
        """Perplexity."""
        return f"perplexity {self.perplexity:.1f}"


def language_model_scores(log_probabilities: Sequence[Sequence[float]]) -> LanguageModelScores:
    """Scores from the log-probability of each predicted piece; every piece weighs the same, whatever its block.

    >>> language_model_scores([[math.log(0.5)], [math.log(0.5), math.log(0.25)]]).perplexity
    2.519...
    """
    pieces = [value for block in log_probabilities for value in block]
    loss = -math.fsum(pieces) / len(pieces) if pieces else 0.0
    try:
        perplexity = math.exp(loss)
    except OverflowError:
        perplexity = math.inf
    return LanguageModelScores(loss, perplexity)
