"""What contenders have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pemeta.typing import Batch
from pemeta.utils.devices import to_device
from speedbench.cases import Case
from speedbench.sentences import share_of_tokens
from speedbench.shapes import episodes_by_round, make_model, source_of

INNER_LR = 0.03
SAMPLED = 4
LARGEST = 2**20


class Contender(ABC):
    """Something whose steps are measured."""

    def __init__(self, case: Case, device: str) -> None:
        self.case = case
        self.device = device

    @abstractmethod
    def step(self) -> None:
        """What is measured."""

    def reset(self) -> None:  # noqa: B027 - not all have something to forget
        """Forget what a step left behind; not measured."""

    def held_bytes(self) -> int:
        """What is held between steps: parameters, and the optimiser's state."""
        return 0

    def facts(self) -> dict[str, Any]:
        """What a record should say of the last step besides its time."""
        return {}

    def gradients(self) -> dict[str, np.ndarray]:
        """Some of the gradients that the last step left."""
        return {}


class GradientContender(Contender):
    """One that leaves the gradients of an outer step in the parameters' ``grad``.

    The optimiser's step is the same for all, and left out unless the case asks for it.
    """

    def __init__(self, case: Case, device: str) -> None:
        super().__init__(case, device)
        self.model = make_model(case, device)
        self.draw = episodes_by_round(case)
        self.round = 0
        self.episodes = self.draw(0)
        self.optimizer = torch.optim.AdamW(self.model.parameters()) if case.optimizer else None

    def sets(self) -> Iterator[tuple[str, Batch, Batch]]:
        """The name, support and query set of each task, on the device."""
        for episode in self.episodes:
            support, query = (to_device(batch, self.model.device) for batch in (episode.support, episode.query))
            yield episode.task.name, support, query

    @abstractmethod
    def accumulate(self) -> None:
        """The gradients of one outer step, summed over the tasks."""

    def step(self) -> None:
        self.accumulate()
        if self.optimizer is not None:
            self.optimizer.step()

    def reset(self) -> None:
        self.model.zero_grad(set_to_none=True)
        self.round += 1
        self.episodes = self.draw(self.round)

    def facts(self) -> dict[str, Any]:
        """Of real sentences, where they are from, and the share of the first round's positions that are tokens."""
        if self.case.data == "random":
            return {}
        return self._facts

    @cached_property
    def _facts(self) -> dict[str, Any]:
        shares = [
            share_of_tokens(one.task.train, [list(one.support_indices), list(one.query_indices)])
            for one in self.draw(0)
        ]
        return {"sentences": source_of(self.case), "share_of_tokens": round(sum(shares) / len(shares), 3)}

    def adapted_names(self, task: str) -> list[str]:
        """Names of θ_a and the task's head, in the model's order."""
        wanted = {*self.model.partition().theta_a, *self.model.head_names(task)}
        return [name for name, _ in self.model.named_parameters() if name in wanted]

    def held_bytes(self) -> int:
        states = self.optimizer.state.values() if self.optimizer is not None else ()
        state = [value for entry in states for value in entry.values() if isinstance(value, Tensor)]
        return sum(tensor.numel() * tensor.element_size() for tensor in [*self.model.parameters(), *state])

    def gradients(self) -> dict[str, np.ndarray]:
        """Those of a handful of θ_p and of θ_a, evenly spread; of the largest tensors, the sum over the first axis."""
        parameters = dict(self.model.named_parameters())
        parts = self.model.partition()
        chosen = {}
        for name in (*_spread(parts.theta_p), *_spread(parts.theta_a)):
            gradient = parameters[name].grad
            value = torch.zeros(1) if gradient is None else gradient.detach().float().cpu().to_dense()
            chosen[name] = (value if value.numel() <= LARGEST else value.sum(0)).numpy()
        return chosen


def _spread(names: tuple[str, ...]) -> list[str]:
    """The first, the last, and a few between."""
    places = {round(i * (len(names) - 1) / (SAMPLED - 1)) for i in range(SAMPLED)}
    return [names[place] for place in sorted(places)]
