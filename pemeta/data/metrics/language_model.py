"""Scores of language models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pemeta.data.metrics.base import Floats, Form, Metric, Outcomes, Reads, TaskScores, ratio
from pemeta.utils.values import listed


@dataclass(frozen=True)
class LanguageModelScores(TaskScores):
    """Mean negative log-likelihood per predicted token, in nats, and its exponential."""

    loss: float
    perplexity: float

    @property
    def main(self) -> float:
        """The negated loss."""
        return -self.loss

    @property
    def summary(self) -> str:
        """Perplexity."""
        return f"perplexity {self.perplexity:.1f}"


def language_model_scores(log_probabilities: Sequence[Sequence[float]]) -> LanguageModelScores:
    """Scores from the log-probability of each predicted token; all tokens have the same weight, whatever their block.

    >>> language_model_scores([[math.log(0.5)], [math.log(0.5), math.log(0.25)]]).perplexity
    2.519...
    """
    blocks = listed(log_probabilities, "log-probabilities of blocks", "[[-0.5]]")
    values = [value for block in blocks for value in listed(block, "log-probabilities", "[-0.5]")]
    loss = -math.fsum(values) / len(values) if values else 0.0
    try:
        perplexity = math.exp(loss)
    except OverflowError:
        perplexity = math.inf
    return LanguageModelScores(loss, perplexity)


class _OfTokens(Metric):
    """A metric from the log-probabilities of each example's tokens that were to be predicted."""

    higher_is_better: ClassVar[bool] = False
    percent: ClassVar[bool] = False
    decimals: ClassVar[int] = 3
    reads: ClassVar[Reads] = "log_probabilities"
    forms: ClassVar[tuple[Form, ...]] = ("text", "tokens")

    def outcomes(self, gold: Sequence[Any], predicted: Sequence[Any], outputs: Sequence[object]) -> Outcomes:
        """The negative log-likelihood ``nll`` of each example's tokens, and their number ``tokens``."""
        rows = [list(row) for row in predicted]
        return {"nll": [-math.fsum(row) for row in rows], "tokens": [len(row) for row in rows]}

    def value(self, outcomes: Mapping[str, Floats], weights: Floats) -> Floats:
        """The mean negative log-likelihood per token; all tokens have the same weight, whatever their example."""
        return ratio(weights @ outcomes["nll"], weights @ outcomes["tokens"])


class Loss(_OfTokens):
    """The mean negative log-likelihood of a token that was to be predicted, in nats.

    Of a completion these are its own tokens, not those of the prompt.

    >>> Loss().score([None, None], [[math.log(0.5)], [math.log(0.5), math.log(0.25)]])
    0.924...
    """

    name: ClassVar[str] = "loss"
    label: ClassVar[str] = "loss"
    description: ClassVar[str] = "the mean negative log-likelihood of a predicted token, in nats"


class Perplexity(_OfTokens):
    """The exponential of the loss per predicted token.

    >>> Perplexity().score([None, None], [[math.log(0.5)], [math.log(0.5), math.log(0.25)]])
    2.519...
    """

    name: ClassVar[str] = "perplexity"
    label: ClassVar[str] = "perplexity"
    description: ClassVar[str] = "the exponential of the mean negative log-likelihood of a predicted token"
    decimals: ClassVar[int] = 2

    def value(self, outcomes: Mapping[str, Floats], weights: Floats) -> Floats:  # noqa: D102 - inherited
        with np.errstate(over="ignore"):  # infinite
            return np.exp(super().value(outcomes, weights))
