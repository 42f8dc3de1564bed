"""What a careful user writes with learn2learn's functions."""

from __future__ import annotations

import torch

from pemeta.priming._learn2learn import _load
from speedbench.contenders.base import INNER_LR, GradientContender

(utils,) = _load("utils")


class HandWritten(GradientContender):
    """A clone of the whole model per task; inner gradients and steps for θ_a and the head only."""

    def accumulate(self) -> None:
        second_order = not self.case.first_order
        for task, support, query in self.sets():
            clone = utils.clone_module(self.model)
            names = set(self.adapted_names(task))
            for _ in range(self.case.inner_steps):
                adapted = [parameter for name, parameter in clone.named_parameters() if name in names]
                loss = clone.loss(support, task)
                gradients = torch.autograd.grad(loss, adapted, create_graph=second_order)
                for parameter, gradient in zip(adapted, gradients, strict=True):
                    parameter.update = -INNER_LR * gradient
                utils.update_module(clone)
            clone.loss(query, task).backward()
