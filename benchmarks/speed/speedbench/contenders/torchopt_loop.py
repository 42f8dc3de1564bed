"""Priming with TorchOpt (https://github.com/metaopt/torchopt)."""

from __future__ import annotations

import torch
import torchopt
from torch import Tensor
from torch.func import functional_call
from torchopt.base import GradientTransformation
from torchopt.typing import OptState

from pemeta.typing import Batch
from speedbench.contenders.base import INNER_LR, GradientContender


class TorchOptLoop(GradientContender):
    """TorchOpt's functional optimiser on θ_a and the head, and ``torch.func.functional_call`` for the model.

    Its ``MetaSGD`` always keeps the graph and takes whole modules; the functional one does first order too, and
    fits methods whose parameters lie spread over the backbone.
    """

    def accumulate(self) -> None:
        parameters: dict[str, Tensor] = dict(self.model.named_parameters())
        optimizer = torchopt.sgd(lr=INNER_LR)
        for task, support, query in self.sets():
            adapted = {name: parameters[name] for name in self.adapted_names(task)}
            state = optimizer.init(adapted)
            for _ in range(self.case.inner_steps):
                adapted, state = self._inner_step(optimizer, state, adapted, support, task)
            self._loss(adapted, query, task).backward()

    def _inner_step(
        self,
        optimizer: GradientTransformation,
        state: OptState,
        adapted: dict[str, Tensor],
        support: Batch,
        task: str,
    ) -> tuple[dict[str, Tensor], OptState]:
        loss = self._loss(adapted, support, task)
        found = torch.autograd.grad(loss, list(adapted.values()), create_graph=not self.case.first_order)
        gradients = dict(zip(adapted, found, strict=True))
        updates, state = optimizer.update(gradients, state, params=adapted, inplace=False)
        return torchopt.apply_updates(adapted, updates, inplace=False), state

    def _loss(self, adapted: dict[str, Tensor], batch: Batch, task: str) -> Tensor:
        logits = functional_call(self.model, adapted, (batch, task))
        return self.model.head(task).loss(logits, batch)
