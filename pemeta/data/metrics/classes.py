"""Scores of predicted classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pemeta.data.metrics.base import TaskScores, check_alike
from pemeta.utils.values import checked_names, listed


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

    Macro-F1 is the mean F1 of the classes that occur in ``gold`` or ``predicted``, as in scikit-learn; any other class
    has an F1 of 0 in ``f1_per_class`` and does not count.

    Raises:
        DataError: There is not one predicted class for each gold class.

    >>> scores = class_scores(["a", "a", "b"], ["a", "b", "b"], ["a", "b", "c"])
    >>> round(scores.accuracy, 3), round(scores.macro_f1, 3)
    (0.667, 0.667)
    """
    gold, predicted = listed(gold, "gold classes", "['good']"), listed(predicted, "predictions", "['good']")
    classes = checked_names(classes, "class", "classes")
    check_alike([1] * len(gold), [1] * len(predicted), "text")
    pairs = list(zip(gold, predicted, strict=True))
    # F1 = 2 TP / (2 TP + FP + FN); the denominator is the sum of the two counts.
    sizes = {name: list(gold).count(name) + list(predicted).count(name) for name in classes}
    f1 = {name: 2 * pairs.count((name, name)) / size if size else 0.0 for name, size in sizes.items()}
    present = [f1[name] for name, size in sizes.items() if size]
    return ClassScores(
        accuracy=sum(g == p for g, p in pairs) / len(pairs) if pairs else 0.0,
        macro_f1=sum(present) / len(present) if present else 0.0,
        f1_per_class=f1,
    )
