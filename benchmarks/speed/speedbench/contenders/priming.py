"""pemeta's own step."""

from __future__ import annotations

from typing import Any

from pemeta.priming.algorithms import MetaPriming
from speedbench.cases import Case
from speedbench.contenders.base import INNER_LR, GradientContender


class Priming(GradientContender):
    """``MetaPriming.accumulate``, without dropout so that all contenders compute the same."""

    def __init__(self, case: Case, device: str) -> None:
        super().__init__(case, device)
        settings: dict[str, Any] = {"batch_tasks": True} if case.batch_tasks else {}
        self.algorithm = MetaPriming(
            inner_steps=case.inner_steps,
            inner_lr=INNER_LR,
            first_order=case.first_order,
            inner_dropout=False,
            outer_dropout=False,
            **settings,
        )

    def accumulate(self) -> None:
        self.algorithm.accumulate(self.model, self.episodes)
