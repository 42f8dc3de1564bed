"""The value of one metric as the scores of a task."""

from __future__ import annotations

from dataclasses import dataclass

from pemeta.data.metrics.base import Metric, TaskScores


@dataclass(frozen=True)
class SingleScore(TaskScores):
    """The value of a metric, by which epochs are compared.

    Attributes:
        metric: the metric.
        value: its value.
    """

    metric: Metric
    value: float

    @property
    def main(self) -> float:
        """The value, negated if a lower one is better."""
        return self.value if self.metric.higher_is_better else -self.value

    @property
    def summary(self) -> str:
        """The metric's label and its value."""
        return f"{self.metric.label} {self.metric.shown(self.value)}"

    def numbers(self) -> dict[str, float]:
        """The value by the metric's name."""
        return {self.metric.name: self.value}
