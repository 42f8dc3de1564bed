"""Scores of predicted sets of classes, and of predicted numbers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pemeta.data.metrics.base import TaskScores
from pemeta.data.metrics.multilabel import MultilabelMacroF1, MultilabelMicroF1
from pemeta.data.metrics.regression import MeanSquaredError, Pearson, Spearman
from pemeta.utils.values import checked_names, listed


@dataclass(frozen=True)
class LabelScores(TaskScores):
    """Micro-F1, macro-F1 and F1 per class of sets of classes; fractions from 0 to 1."""

    micro_f1: float
    macro_f1: float
    f1_per_class: dict[str, float]

    @property
    def main(self) -> float:
        """Micro-F1."""
        return self.micro_f1

    @property
    def summary(self) -> str:
        """Micro-F1 in per cent."""
        return f"micro F1 {100 * self.micro_f1:.1f}"


@dataclass(frozen=True)
class NumberScores(TaskScores):
    """Mean squared error of predicted numbers, and their correlations with those that they should be."""

    mse: float
    pearson: float
    spearman: float

    @property
    def main(self) -> float:
        """The negated error."""
        return -self.mse

    @property
    def summary(self) -> str:
        """The error."""
        return f"mse {self.mse:.3g}"


def label_scores(
    gold: Sequence[Collection[str]], predicted: Sequence[Collection[str]], classes: Sequence[str]
) -> LabelScores:
    """Scores of predicted sets of classes, one per text.

    Raises:
        DataError: There is not one predicted set for each gold one, or a class is not among all.

    >>> scores = label_scores([("a", "b"), ()], [("a",), ()], ["a", "b"])
    >>> round(scores.micro_f1, 3), scores.f1_per_class
    (0.667, {'a': 1.0, 'b': 0.0})
    """
    gold, predicted = listed(gold, "gold classes", "[('a', 'b')]"), listed(predicted, "predictions", "[('a', 'b')]")
    names = checked_names(classes, "class", "classes")
    micro = MultilabelMicroF1()
    return LabelScores(
        micro_f1=micro.score(gold, predicted, names),
        macro_f1=MultilabelMacroF1().score(gold, predicted, names),
        f1_per_class=micro.by_output(gold, predicted, names),
    )


def number_scores(gold: Sequence[float], predicted: Sequence[float]) -> NumberScores:
    """Scores of one predicted number per text.

    Raises:
        DataError: There is not one predicted number for each gold one.

    >>> number_scores([1.0, 2.0], [1.0, 4.0]).mse
    2.0
    """
    gold, predicted = listed(gold, "gold numbers", "[0.5]"), listed(predicted, "predictions", "[0.5]")
    values = (metric.score(gold, predicted) for metric in (MeanSquaredError(), Pearson(), Spearman()))
    return NumberScores(*values)
