"""Metrics of predicted numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from pemeta.data.metrics.base import Floats, Form, Metric, Outcomes, check_pairs, ratio

CONSTANT = 1e-24
"""A variance below this share of the largest square is a rounding error."""


class _OfNumbers(Metric):
    """A metric from the number that each example should have and the one that is predicted."""

    percent: ClassVar[bool] = False
    decimals: ClassVar[int] = 3
    forms: ClassVar[tuple[Form, ...]] = ("number",)

    def outcomes(self, gold: Sequence[Any], predicted: Sequence[Any], outputs: Sequence[object]) -> Outcomes:
        """The ``gold`` and the ``predicted`` number of each example."""
        check_pairs(gold, predicted)
        return {"gold": [float(g) for g in gold], "predicted": [float(p) for p in predicted]}


class Pearson(_OfNumbers):
    """Pearson's correlation of predicted numbers with those that they should be; 0 if either are all the same.

    >>> round(Pearson().score([1, 2, 3], [2, 4, 6]), 6)
    1.0
    """

    name: ClassVar[str] = "pearson"
    label: ClassVar[str] = "Pearson correlation"
    description: ClassVar[str] = "Pearson's correlation with the right numbers"

    def value(self, outcomes: Mapping[str, Floats], weights: Floats) -> Floats:  # noqa: D102 - inherited
        return _correlation(outcomes["gold"][None], outcomes["predicted"][None], weights)


class Spearman(_OfNumbers):
    """Spearman's correlation: Pearson's of ranks, where equal numbers share the mean of theirs.

    >>> round(Spearman().score([1, 2, 3], [2, 4, 60]), 6)
    1.0
    """

    name: ClassVar[str] = "spearman"
    label: ClassVar[str] = "Spearman correlation"
    description: ClassVar[str] = "Spearman's correlation with the right numbers"

    def value(self, outcomes: Mapping[str, Floats], weights: Floats) -> Floats:  # noqa: D102 - inherited
        gold, predicted = (_ranks(outcomes[name], weights) for name in ("gold", "predicted"))
        return _correlation(gold, predicted, weights)


class MeanSquaredError(_OfNumbers):
    """The mean squared difference of predicted numbers from those that they should be.

    >>> MeanSquaredError().score([1, 2], [1, 4])
    2.0
    """

    name: ClassVar[str] = "mse"
    label: ClassVar[str] = "MSE"
    description: ClassVar[str] = "the mean squared error"
    higher_is_better: ClassVar[bool] = False

    def value(self, outcomes: Mapping[str, Floats], weights: Floats) -> Floats:  # noqa: D102 - inherited
        return ratio(weights @ (outcomes["gold"] - outcomes["predicted"]) ** 2, weights.sum(1))


def _correlation(one: Floats, other: Floats, weights: Floats) -> Floats:
    """Pearson's correlation (R,) of columns (1 or R, N) whose numbers count ``weights`` (R, N) times."""
    off = []
    for column in (one, other):
        size = np.abs(column).max(initial=0.0)
        away = column - ratio((weights * column).sum(1), weights.sum(1))[:, None]
        constant = ratio((weights * away**2).sum(1), weights.sum(1)) <= CONSTANT * size**2
        off.append(np.where(constant[:, None], 0.0, away))
    spread = np.sqrt((weights * off[0] ** 2).sum(1)) * np.sqrt((weights * off[1] ** 2).sum(1))
    return ratio((weights * off[0] * off[1]).sum(1), spread)


def _ranks(values: Floats, weights: Floats) -> Floats:
    """The rank (R, N) of each number where each counts ``weights`` (R, N) times."""
    if not len(values):
        return np.zeros_like(weights)
    order = np.argsort(values, kind="stable")
    begins = np.flatnonzero(np.diff(values[order], prepend=np.nan) != 0)  # of groups of equal numbers
    sizes = np.add.reduceat(weights[:, order], begins, axis=1)
    ranks = np.cumsum(sizes, axis=1) - (sizes - 1) / 2
    placed = np.empty_like(weights)
    placed[:, order] = np.repeat(ranks, np.diff(begins, append=len(values)), axis=1)
    placed[:, np.isnan(values)] = np.nan  # of a model that diverged
    return placed
