"""Scores of each kind of task."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from seqeval.metrics import classification_report


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
    report = classification_report(gold, predicted, output_dict=True, zero_division=0) if _any(gold, predicted) else {}
    micro = report.get("micro avg", {"f1-score": 0.0, "precision": 0.0, "recall": 0.0})
    return Scores(
        f1=float(micro["f1-score"]),
        precision=float(micro["precision"]),
        recall=float(micro["recall"]),
        f1_per_type={kind: float(report[kind]["f1-score"]) if kind in report else 0.0 for kind in types},
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
