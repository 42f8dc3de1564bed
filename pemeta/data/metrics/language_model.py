"""Scores of language models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pemeta.data.metrics.base import TaskScores
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
