"""A monitor of one step of a model: what is held in each phase, and what that is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from pemeta.estimate.counter import CostCounter, Peak
from pemeta.estimate.findings import Memory, Parameters
from pemeta.model.pe_model import PEModel
from pemeta.priming.algorithms import PhaseMemory
from pemeta.training.lean_adamw import OF_PYTORCH, AdamWKind, moment_bytes
from pemeta.training.optimizer import Optimization
from pemeta.utils.modules import count, only_trainable, parameter_dict
from pemeta.utils.precision import HALF, wide_dtype

REST = "passes and gradients"
"""What an algorithm does outside of its listed phases."""
UPDATE = "optimiser's step"


class StepMonitor:
    """A model, its optimiser after a first step, and a counter that counts what both hold.

    Args:
        model: with shapes and no values.
        trained: names of the parameters that the optimiser moves.
        fused: whether AdamW moves all parameters in one operation, and clipping takes their norm in one.
        cloned: names of the parameters that the inner loop clones.
        phases: memory of the phases that are marked in the step; any others are listed, without a clone.
        vocabulary: size of a language model's vocabulary, whose part is told apart; None for other models.
        kind: of AdamW. PyTorch's is run; the moments are those of this kind.
    """

    def __init__(
        self,
        model: PEModel,
        trained: Sequence[str],
        fused: bool,
        cloned: Sequence[str] = (),
        phases: Mapping[str, PhaseMemory] | None = None,
        vocabulary: int | None = None,
        kind: AdamWKind = "adamw",
    ) -> None:
        self.model, self.names, self.fused = model, trained, fused or kind == "adamw_fused"
        self.cloned, self.phases = cloned, phases or {}
        self.counter, self.vocabulary, self.kind = CostCounter(vocabulary), vocabulary, kind
        self.kept = 0

    def __enter__(self) -> StepMonitor:
        self._only = only_trainable(self.model, self.names)
        self.trained = list(self._only.__enter__().values())
        self.counter.__enter__()  # type: ignore[no-untyped-call]
        self.weights = self.counter.known([*self.model.parameters(), *self.model.buffers()])
        self.optimization = Optimization(self.trained, 1e-3, 10, fused=self.fused or None)
        for parameter in self.trained:
            parameter.grad = torch.zeros_like(parameter)
        self.optimization.step()
        self.optimization.zero_grad()
        self.moments = self.counter.held - self.weights
        self.weights_of_vocabulary = self._of_vocabulary([*self.model.parameters(), *self.model.buffers()])
        return self

    def __exit__(self, *error: Any) -> None:
        self.counter.__exit__(*error)  # type: ignore[no-untyped-call]
        self._only.__exit__(*error)

    @contextmanager
    def observe(self, phase: str) -> Iterator[None]:
        """Attribute what is held within the block to a phase; for :func:`pemeta.utils.phases.observed`."""
        before = self.counter.held
        listed, keeps = self._of(phase).listed, self._of(phase).keeps
        with self.counter.within(phase) if listed else nullcontext():
            yield
        if keeps:
            self.kept = max(self.kept, self.counter.held - before)

    def _of(self, phase: str) -> PhaseMemory:
        return self.phases.get(phase, PhaseMemory())

    def update(self) -> None:
        """Take the optimiser's step."""
        with self.counter.within(UPDATE):
            self.optimization.step()

    def parameters(self, task: str) -> Parameters:
        """Numbers of parameters of the model with one task's head."""
        parts = self.model.partition()
        theta_p, theta_a = count(self.model, parts.theta_p), count(self.model, parts.theta_a)
        theta_h = count(self.model, self.model.head_names(task))
        return Parameters(theta_p, theta_a, theta_h, sum(parameter.numel() for parameter in self.trained))

    def memory(self) -> dict[str, Memory]:
        """Memory of each phase; call it once all gradients exist."""
        return {phase: self._memory(phase, peak) for phase, peak in self.counter.peaks.items() if phase}

    def _memory(self, phase: str, peak: Peak) -> Memory:
        gradients = [parameter.grad for parameter in self.trained if parameter.grad is not None]
        found = self.counter.alive_at(gradients, peak)
        inside = self._of(phase).cloned
        cloned = list(parameter_dict(self.model, self.cloned).values()) if inside else []
        clone = _wide_bytes(cloned)
        kept = self.kept if inside else 0
        rest = peak.held - self.weights - self.moments - found - clone - kept
        part = self._vocabulary(peak, gradients, cloned)
        return Memory(self.weights, self._moments(self.trained), found, clone, kept, rest, vocabulary=part)

    def _vocabulary(self, peak: Peak, gradients: Sequence[Tensor], cloned: Sequence[nn.Parameter]) -> Memory | None:
        """What of the memory at a peak is as large as the vocabulary."""
        if self.vocabulary is None:
            return None
        moved = [parameter for parameter in self.trained if self._is_wide(parameter)]
        found = self.counter.alive_at([gradient for gradient in gradients if self._is_wide(gradient)], peak)
        clone = _wide_bytes([parameter for parameter in cloned if self._is_wide(parameter)])
        held = self.weights_of_vocabulary + self._bytes_of_adamw(moved) + found + clone
        rest = max(0, peak.watched - held)
        return Memory(self.weights_of_vocabulary, self._moments(moved), found, clone, 0, rest)

    def _is_wide(self, tensor: Tensor) -> bool:
        return tensor.ndim > 1 and self.vocabulary in tensor.shape

    def _of_vocabulary(self, tensors: Sequence[Tensor]) -> int:
        return sum(tensor.nbytes for tensor in {id(one): one for one in tensors if self._is_wide(one)}.values())

    def _moments(self, moved: Sequence[nn.Parameter]) -> int:
        """Bytes on the device of the moments of some parameters, and of their float32 values."""
        if self.kind in OF_PYTORCH:
            return self.moments if moved is self.trained else self._bytes_of_adamw(moved)
        stay, _ = moment_bytes(self.kind, moved)
        return stay + 4 * sum(one.numel() for one in moved if one.dtype in HALF)

    def _bytes_of_adamw(self, moved: Sequence[nn.Parameter]) -> int:
        return sum((12 if one.dtype in HALF else 2 * one.itemsize) * one.numel() for one in moved)


def _wide_bytes(parameters: Sequence[nn.Parameter]) -> int:
    """Bytes of a clone's values, which are in float32 where parameters are in half precision."""
    return sum(one.numel() * wide_dtype(one.dtype).itemsize for one in parameters)
