"""What all metrics have in common, and scores of any kind of task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pemeta.errors import DataError, counted
from pemeta.utils.registry import Named

Form: TypeAlias = Literal["class", "labels", "number", "tags", "text", "tokens"]
"""What an example's answer is: one class, any number of labels, a number, a tag per word, a text, or its tokens."""
Floats: TypeAlias = NDArray[np.float64]
Outcomes: TypeAlias = dict[str, Sequence[float]]
"""Columns of what a metric needs to know of each example, each with as many numbers as there are examples."""
Reads: TypeAlias = Literal["predictions", "probabilities", "log_probabilities"]
"""What a metric is computed from.

``predictions`` are what is predicted of each example, in terms of the data; ``probabilities`` those (C,) of outputs;
and ``log_probabilities`` those of each token that was to be predicted, by the natural logarithm."""


class Metric(Named):
    """A metric of predictions for a task's examples.

    It is computed in two steps, so that it can be computed again on any sample of the examples (the bootstrap of a
    report does): what is known of each example, which a record holds, and the value for examples that count as often as
    given.

    To add one, write one file in ``pemeta/data/metrics/`` with a subclass, and import it in that folder's
    ``__init__.py``.
    """

    kind: ClassVar[str] = "metric"

    label: ClassVar[str]
    """The name in tables and on the terminal as it is within a sentence, such as ``F1`` or ``accuracy``."""
    description: ClassVar[str]
    """What the values are, in a sentence of a report, such as ``entity-level micro F1 as seqeval counts it``."""
    higher_is_better: ClassVar[bool] = True
    percent: ClassVar[bool] = True
    """Whether values are fractions from 0 to 1, which tables show in percent."""
    decimals: ClassVar[int] = 1
    """Digits after the point with which values are shown, in percent where they are."""
    reads: ClassVar[Reads] = "predictions"
    """What ``outcomes`` gets as ``predicted``."""
    forms: ClassVar[tuple[Form, ...]] = ()
    """The answers that it measures; any where empty."""

    @abstractmethod
    def outcomes(self, gold: Sequence[Any], predicted: Sequence[Any], outputs: Sequence[object]) -> Outcomes:
        """What is known of each of N examples.

        A column ``gold``, if there is one, is what the data says, whatever is predicted: two runs whose ``gold``
        differs were not tested on the same examples.

        Args:
            gold: what each should be, in terms of the data.
            predicted: what each was predicted to be, in the same terms; or what ``reads`` says.
            outputs: the meanings of the head's logits, such as all classes.
        """

    @abstractmethod
    def value(self, outcomes: Mapping[str, Floats], weights: Floats) -> Floats:
        """The metric (R,) of N examples that count ``weights`` (R, N) times.

        It is what the metric of a data set would be in which each example occurs that often.

        Args:
            outcomes: columns of ``outcomes``, (N,) each.
            weights: how often each example counts.
        """

    def of(self, outcomes: Mapping[str, Sequence[float]]) -> float:
        """The metric of examples that count once each."""
        columns = {name: np.asarray(column, dtype=np.float64) for name, column in outcomes.items()}
        count = len(next(iter(columns.values()), ()))
        return float(self.value(columns, np.ones((1, count)))[0])

    def score(self, gold: Sequence[Any], predicted: Sequence[Any], outputs: Sequence[object] = ()) -> float:
        """The metric of predictions, with the arguments of ``outcomes``."""
        return self.of(self.outcomes(gold, predicted, outputs))

    def by_output(self, gold: Sequence[Any], predicted: Sequence[Any], outputs: Sequence[object]) -> dict[str, float]:
        """The metric of each class or entity type by itself, with the arguments of ``outcomes``; here none."""
        return {}

    def require(self) -> None:
        """Refuse to be used where a package is missing, before anything is computed; by default, none is needed.

        Raises:
            ConfigError: the package is not installed.
        """

    def shown(self, value: float) -> str:
        """A value as text, in percent where it is a fraction."""
        return f"{100 * value if self.percent else value:.{self.decimals}f}"


class TaskScores(ABC):
    """Scores of predictions for one task of any kind."""

    @property
    @abstractmethod
    def main(self) -> float:
        """The number by which epochs are compared; higher is better."""

    @property
    @abstractmethod
    def summary(self) -> str:
        """Name and value of the metric for a progress bar."""

    def numbers(self) -> dict[str, float]:
        """Every score that is one number, by name."""
        return {name: float(value) for name, value in vars(self).items() if isinstance(value, int | float)}


def ratio(part: Floats, whole: Floats) -> Floats:
    """A quotient, 0 where there is nothing to divide by."""
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole != 0)


def check_pairs(gold: Sequence[Any], predicted: Sequence[Any]) -> None:
    """Refuse predictions for other examples.

    Raises:
        DataError: there are more or fewer.
    """
    check_alike([1] * len(gold), [1] * len(predicted), "example")


def check_alike(gold: list[int], predicted: list[int], unit: str) -> None:
    """Refuse predictions for other data, given the numbers of labels in each text or sentence."""
    if len(gold) != len(predicted):
        raise DataError(
            f"each gold {unit} needs one prediction; found {len(gold)} and {len(predicted)}; predict for the same data"
        )
    for number, (one, other) in enumerate(zip(gold, predicted, strict=True), 1):
        if one != other:
            raise DataError(
                f"{unit} {number} of {len(gold)} has {counted(one, 'gold tag')} and {other} predicted; predict one for "
                "each word"
            )
