"""A model that is watched while a step is taken: what is held in which phase, and what it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch

from pemeta.estimate.findings import Memory, Parameters
from pemeta.estimate.tracker import Peak, Tracker
from pemeta.model.pe_model import PEModel
from pemeta.priming.algorithms import PrimingAlgorithm
from pemeta.training.optimizer import Optimization
from pemeta.utils.modules import count, only_trainable, parameter_dict

PHASES = {
    "_supports": "support passes below θ_a",
    "_queries": "query passes below θ_a",
    "_inner_loop": "inner loop",
    "_query_pass": "query pass",
}
"""Parts of an outer step, by the methods of :class:`~pemeta.MetaPriming` that they are."""
REST = "passes and gradients"
UPDATE = "optimiser's step"


class StepMonitor:
    """A model whose trained parameters have an optimiser that has taken a step, and a tracker that knows both.

    Args:
        model: with shapes and no values.
        trained: names of what the optimiser moves.
        cloned: names of what the inner loop has a clone of.
        fused: whether AdamW moves all parameters in one operation.
    """

    def __init__(self, model: PEModel, trained: Sequence[str], cloned: Sequence[str], fused: bool) -> None:
        self.model, self.names, self.cloned = model, trained, cloned
        self.fused = fused
        self.tracker = Tracker()
        self.kept = 0

    def __enter__(self) -> StepMonitor:
        self._only = only_trainable(self.model, self.names)
        self.trained = list(self._only.__enter__().values())
        self.tracker.__enter__()  # type: ignore[no-untyped-call]
        self.weights = self.tracker.known([*self.model.parameters(), *self.model.buffers()])
        self.optimization = Optimization(self.trained, 1e-3, 10)
        for group in self.optimization.optimizer.param_groups:
            group["foreach"] = self.fused
        for parameter in self.trained:
            parameter.grad = torch.zeros_like(parameter)
        self.optimization.step()
        self.optimization.zero_grad()
        self.moments = self.tracker.held - self.weights
        return self

    def __exit__(self, *error: Any) -> None:
        self.tracker.__exit__(*error)  # type: ignore[no-untyped-call]
        self._only.__exit__(*error)

    def update(self) -> None:
        """The optimiser's step."""
        with self.tracker.within(UPDATE):
            self.optimization.step()

    def parameters(self, task: str) -> Parameters:
        """Of the model with one task's head."""
        parts = self.model.partition()
        theta_p, theta_a = count(self.model, parts.theta_p), count(self.model, parts.theta_a)
        theta_h = count(self.model, self.model.head_names(task))
        return Parameters(theta_p, theta_a, theta_h, sum(parameter.numel() for parameter in self.trained))

    def memory(self) -> dict[str, Memory]:
        """Of each phase, once all gradients are there."""
        return {phase: self._memory(phase, peak) for phase, peak in self.tracker.peaks.items() if phase}

    def _memory(self, phase: str, peak: Peak) -> Memory:
        gradients = [parameter.grad for parameter in self.trained if parameter.grad is not None]
        found = self.tracker.alive_at(gradients, peak)
        inside = phase in (PHASES["_inner_loop"], PHASES["_query_pass"])
        clone = sum(p.nbytes for p in parameter_dict(self.model, self.cloned).values()) if inside else 0
        kept = self.kept if inside else 0
        rest = peak.held - self.weights - self.moments - found - clone - kept
        return Memory(self.weights, self.moments, found, clone, kept, rest)


def telling(algorithm: PrimingAlgorithm, watched: StepMonitor) -> PrimingAlgorithm:
    """A copy of the algorithm that tells the tracker which of :data:`PHASES` is on."""
    copy = algorithm.model_copy()
    for name, phase in PHASES.items():
        part = getattr(algorithm, name, None)
        if part is not None:
            object.__setattr__(copy, name, _told(part, phase, watched))  # the model is frozen
    return copy


def _told(part: Callable[..., Any], phase: str, watched: StepMonitor) -> Callable[..., Any]:
    @wraps(part)
    def call(*arguments: Any, **kwargs: Any) -> Any:
        before = watched.tracker.held
        with watched.tracker.within(phase):
            found = part(*arguments, **kwargs)
        if "below" in phase:
            watched.kept = max(watched.kept, watched.tracker.held - before)
        return found

    return call
