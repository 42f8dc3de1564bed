"""Priming with higher (https://github.com/facebookresearch/higher; last release in 2020)."""

from __future__ import annotations

import higher  # type: ignore[import-untyped]
import torch
import torch.nn.functional as F
from torch import nn

from pemeta.model.pe_model import PEModel
from pemeta.typing import Batch
from speedbench.cases import Case
from speedbench.contenders.base import INNER_LR, GradientContender


class _Plain(nn.Module):
    """The same model and parameters in plain modules, with the loss as its ``forward``.

    higher makes a functional copy of ``forward`` alone, and cannot copy a class with an abstract base, as pemeta's
    heads have: "Cannot create a consistent method resolution order (MRO) for bases Module, ABC".
    """

    def __init__(self, model: PEModel) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.classifiers = nn.ModuleDict(
            {task: model.get_submodule(f"{model.head_prefix(task)}.classifier") for task in model.tasks}
        )
        self.transform = model.method.transform

    def forward(self, batch: Batch, task: str) -> torch.Tensor:
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        hidden = self.transform(self.backbone, self.backbone(**inputs).last_hidden_state)
        return F.cross_entropy(self.classifiers[task](hidden).flatten(0, 1), batch["labels"].flatten())


class HigherLoop(GradientContender):
    """``higher.innerloop_ctx`` with an optimiser of θ_a and the head.

    In second order the fast weights keep their graph, and the query loss's backward reaches the model. In first
    order (``track_higher_grads=False``) they do not: the gradient at the fast weights is added to the model's.
    higher's optimisers take the gradient of all parameters, whatever their groups hold.
    """

    def __init__(self, case: Case, device: str) -> None:
        super().__init__(case, device)
        self.module = _Plain(self.model)

    def accumulate(self) -> None:
        parameters = dict(self.model.named_parameters())
        for task, support, query in self.sets():
            sgd = torch.optim.SGD([parameters[name] for name in self.adapted_names(task)], lr=INNER_LR)
            with higher.innerloop_ctx(
                self.module, sgd, copy_initial_weights=False, track_higher_grads=not self.case.first_order
            ) as (fast, optimizer):
                for _ in range(self.case.inner_steps):
                    optimizer.step(fast(support, task))
                loss = fast(query, task)
                if self.case.first_order:
                    self._add(torch.autograd.grad(loss, list(fast.parameters()), allow_unused=True))
                else:
                    loss.backward()

    def _add(self, gradients: tuple[torch.Tensor | None, ...]) -> None:
        for parameter, gradient in zip(self.module.parameters(), gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
