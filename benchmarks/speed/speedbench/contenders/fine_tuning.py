"""Plain fine-tuning of everything, which priming's memory is compared with."""

from __future__ import annotations

from speedbench.contenders.base import GradientContender


class FineTuningStep(GradientContender):
    """Forward and backward on the same query sets, all parameters."""

    def accumulate(self) -> None:
        for task, _, query in self.sets():
            self.model.loss(query, task).backward()
