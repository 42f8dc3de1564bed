"""Scores of predicted classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pemeta.data.metrics.base import Floats, Form, Metric, Outcomes, TaskScores, check_alike, check_pairs, ratio
from pemeta.errors import DataError, unknown_name
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


class Accuracy(Metric):
    """The share of examples whose prediction is equal to what it should be.

    Of sets of labels, all must be right (subset accuracy).

    >>> Accuracy().score(["a", "a", "b"], ["a", "b", "b"])
    0.666...
    """

    name: ClassVar[str] = "accuracy"
    label: ClassVar[str] = "accuracy"
    description: ClassVar[str] = "the share of examples predicted right"
    forms: ClassVar[tuple[Form, ...]] = ("class", "labels", "text")

    def outcomes(self, gold: Sequence[Any], predicted: Sequence[Any], outputs: Sequence[object]) -> Outcomes:
        """Whether each example is ``correct``, as 0 or 1."""
        check_pairs(gold, predicted)
        return {"correct": [int(bool(g == p)) for g, p in zip(gold, predicted, strict=True)]}

    def value(self, outcomes: Mapping[str, Floats], weights: Floats) -> Floats:  # noqa: D102 - inherited
        return ratio(weights @ outcomes["correct"], weights.sum(1))

    def by_output(self, gold: Sequence[Any], predicted: Sequence[Any], outputs: Sequence[object]) -> dict[str, float]:
        """The share predicted right of each class's examples; 0 for a class without any."""
        return {str(output): self._of_class(output, gold, predicted) for output in outputs}

    def _of_class(self, output: object, gold: Sequence[Any], predicted: Sequence[Any]) -> float:
        own = [(g, p) for g, p in zip(gold, predicted, strict=True) if g == output]
        return self.score(*zip(*own, strict=True)) if own else 0.0


class _OfClasses(Metric):
    """A metric from the class that each example has and the one that it is predicted to have."""

    forms: ClassVar[tuple[Form, ...]] = ("class",)

    def outcomes(self, gold: Sequence[Any], predicted: Sequence[Any], outputs: Sequence[object]) -> Outcomes:
        """The places of the ``gold`` and the ``predicted`` class among the outputs; -1 for a prediction that is none.

        Raises:
            DataError: what an example should be is not among the outputs.
        """
        check_pairs(gold, predicted)
        places = {output: place for place, output in enumerate(outputs)}
        odd = next((name for name in gold if name not in places), None)
        if odd is not None:
            raise DataError(f"{unknown_name('class', odd, map(str, outputs))}; score with the classes of the data")
        return {"gold": [places[name] for name in gold], "predicted": [places.get(name, -1) for name in predicted]}


class MacroF1(_OfClasses):
    """The mean F1 of the classes that occur among what examples should be or are predicted to be.

    A prediction that is no class at all, which generation can make, is wrong, and has no F1 of its own.

    >>> MacroF1().score(["a", "a", "b"], ["a", "b", "b"], ["a", "b", "c"])
    0.666...
    """

    name: ClassVar[str] = "macro_f1"
    label: ClassVar[str] = "macro F1"
    description: ClassVar[str] = "the mean F1 of the classes that occur, as scikit-learn counts it"

    def value(self, outcomes: Mapping[str, Floats], weights: Floats) -> Floats:  # noqa: D102 - inherited
        both, gold, predicted = _counts(outcomes, weights)
        sizes = (gold + predicted)[:, 1:]
        return ratio(ratio(2 * both[:, 1:], sizes).sum(1), (sizes > 0).sum(1).astype(np.float64))

    def by_output(self, gold: Sequence[Any], predicted: Sequence[Any], outputs: Sequence[object]) -> dict[str, float]:
        """F1 of each class; 0 for one that does not occur."""
        pairs = list(zip(gold, predicted, strict=True))
        sizes = {output: list(gold).count(output) + list(predicted).count(output) for output in outputs}
        return {
            str(output): 2 * pairs.count((output, output)) / size if size else 0.0 for output, size in sizes.items()
        }


class MatthewsCorrelation(_OfClasses):
    """Matthews' correlation of what examples are predicted to be with what they should be, for any number of classes.

    From -1 to 1; 0 if all are predicted to be, or should be, the same (Gorodkin, 2004). Predictions that are no class
    at all count as one class more.

    >>> MatthewsCorrelation().score(["a", "a", "b"], ["a", "b", "b"], ["a", "b"])
    0.5
    """

    name: ClassVar[str] = "mcc"
    label: ClassVar[str] = "MCC"
    description: ClassVar[str] = "Matthews' correlation coefficient, as scikit-learn computes it"
    percent: ClassVar[bool] = False
    decimals: ClassVar[int] = 3

    def value(self, outcomes: Mapping[str, Floats], weights: Floats) -> Floats:  # noqa: D102 - inherited
        both, gold, predicted = _counts(outcomes, weights)
        size = weights.sum(1)
        covariance = both.sum(1) * size - (gold * predicted).sum(1)
        spread = (size**2 - (gold**2).sum(1)) * (size**2 - (predicted**2).sum(1))
        return ratio(covariance, np.sqrt(spread))


def _counts(outcomes: Mapping[str, Floats], weights: Floats) -> tuple[Floats, Floats, Floats]:
    """How often each class is predicted rightly, is right and is predicted, (R, 1 + C) each; no class at all first."""
    gold, predicted = (outcomes[name].astype(np.int64) + 1 for name in ("gold", "predicted"))
    one_hot = np.eye(1 + max(gold.max(initial=0), predicted.max(initial=0)))
    right = one_hot[gold] * (gold == predicted)[:, None]
    return weights @ right, weights @ one_hot[gold], weights @ one_hot[predicted]
