"""The least that any exact first-order step of an output method can do."""

from __future__ import annotations

import torch

from speedbench.contenders.base import GradientContender


class Floor(GradientContender):
    """For each task the support set through the backbone once, without a graph, and one step on the query set."""

    def accumulate(self) -> None:
        for task, support, query in self.sets():
            with torch.no_grad():
                self.model.hidden_states(support)
            self.model.loss(query, task).backward()
