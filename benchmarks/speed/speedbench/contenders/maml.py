"""learn2learn's own MAML."""

from __future__ import annotations

from pemeta.priming._learn2learn import _load
from speedbench.cases import Case
from speedbench.contenders.base import INNER_LR, GradientContender


class Maml(GradientContender):
    """``learn2learn.algorithms.MAML`` on the same model.

    It adapts every parameter: it cannot express priming, since it selects what to adapt by ``requires_grad``, which
    the outer gradient needs too. So its gradients are others, and it is not compared.
    """

    def __init__(self, case: Case, device: str) -> None:
        super().__init__(case, device)
        (module,) = _load("algorithms.maml")
        self.maml = module.MAML(self.model, lr=INNER_LR, first_order=case.first_order, allow_unused=True)

    def accumulate(self) -> None:
        for task, support, query in self.sets():
            clone = self.maml.clone()
            for _ in range(self.case.inner_steps):
                clone.adapt(clone.module.loss(support, task))
            clone.module.loss(query, task).backward()
