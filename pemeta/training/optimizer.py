"""The optimiser that priming's outer loop and fine-tuning share: AdamW with a linear schedule (§4.2)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_linear_schedule_with_warmup

from pemeta.errors import ConfigError, NotFiniteError
from pemeta.training.lean_adamw import OF_PYTORCH, AdamWKind, lean_adamw
from pemeta.training.master_values import MasterAdamW, MasterValues
from pemeta.typing import State

NotFinite: TypeAlias = Literal["stop", "skip"]
"""The policy for losses and gradients that are not finite; the run ends, or the step is skipped and counted."""
MOST_SKIPPED = 10
"""Number of consecutive steps that may be skipped before the run is ended."""


class LossScale:
    """A factor on losses that keeps small gradients from vanishing in float16 (Micikevicius et al., 2018, §3.2).

    It is halved when a gradient is not finite, and doubled after ``patience`` steps that were.

    Args:
        value: initial factor; 2^16 (PyTorch's default), or 1 for losses that are never scaled.
        patience: 2000 steps (PyTorch's default).
    """

    def __init__(self, value: float = 1.0, patience: int = 2000) -> None:
        self.value = value
        self.enabled = value != 1
        self.patience = patience
        self.good_steps = 0
        self._before: tuple[float, int] | None = None  # the step that is being tried again

    @classmethod
    def suited_to(cls, dtype: torch.dtype | None) -> LossScale:
        """For gradients that are computed, or held, in a type: a factor for float16 only."""
        return cls(2.0**16) if dtype is torch.float16 else cls()

    def lower(self) -> bool:
        """Halve the factor, to try the step again; False, and the factor as before, if that has helped at no value."""
        self._before = self._before or (self.value, self.good_steps)
        if self.value <= 1:
            (self.value, self.good_steps), self._before = self._before, None
            return False
        self.value, self.good_steps = self.value / 2, 0
        return True

    def succeeded(self) -> None:
        """Count a step that was taken."""
        self.good_steps, self._before = self.good_steps + 1, None
        if self.enabled and self.good_steps == self.patience:
            self.value, self.good_steps = self.value * 2, 0


class Optimization:
    """AdamW (Loshchilov and Hutter, 2019) whose learning rate falls linearly to zero.

    Parameters in half precision are moved by way of float32 values (:class:`MasterAdamW`).

    Args:
        parameters: what is optimised.
        lr: the highest learning rate.
        steps: number of steps after which it is zero.
        weight_decay: decoupled weight decay.
        warmup_steps: steps in which the rate first rises linearly from zero.
        max_grad_norm: the gradient is scaled down to this norm where it is larger; None leaves it.
        scale: of the losses that the gradients are of; none by default.
        fused: take the norm, and move all parameters, in one operation each; by default on CUDA only.
        kind: of AdamW: PyTorch's, or one whose moments take less of the device's memory.

    Raises:
        ConfigError: that kind cannot be used here.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        steps: int,
        weight_decay: float = 0.01,
        warmup_steps: int = 0,
        max_grad_norm: float | None = None,
        scale: LossScale | None = None,
        fused: bool | None = None,
        kind: AdamWKind = "adamw",
    ) -> None:
        self.parameters = list(parameters)
        self.max_grad_norm = max_grad_norm
        self.scale = scale or LossScale()
        self._fused = fused
        self.optimizer = _made(kind, self.parameters, lr, weight_decay, fused)
        self.scheduler: LRScheduler = get_linear_schedule_with_warmup(self.optimizer, warmup_steps, steps)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def load_moments(self, moments: Mapping[int, State], groups: Any) -> None:
        """Put back what the optimiser keeps of each parameter, by its place, and its groups.

        Raises:
            ValueError: the state is of other parameters.
        """
        self.optimizer.load_moments(moments, groups)

    def groups(self) -> list[dict[str, Any]]:
        """The optimiser's groups, for a checkpoint: rates, and the places of their parameters."""
        return list(self.optimizer.state_dict()["param_groups"])

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def step(self) -> float:
        """Unscale and clip the gradients, update the parameters, and advance the schedule; returns the norm.

        The norm is that of the whole gradient before clipping.

        Raises:
            NotFiniteError: the gradient is not finite; the parameters are as they were.
        """
        self.optimizer.take_gradients(self.scale.value)
        most = float("inf") if self.max_grad_norm is None else self.max_grad_norm
        norm = nn.utils.clip_grad_norm_(self.optimizer.moved, most, foreach=self._fused).item()
        check_finite(norm, "the gradient's norm", f"lower the learning rate (now {self.optimizer.defaults['lr']})")
        self.optimizer.take_values()
        self.optimizer.step()
        self.optimizer.give_values()
        self.scheduler.step()
        self.scale.succeeded()
        return norm


def _made(
    kind: AdamWKind, parameters: list[nn.Parameter], lr: float, weight_decay: float, fused: bool | None
) -> MasterValues:
    if kind in OF_PYTORCH:
        return MasterAdamW(parameters, lr, weight_decay, True if kind == "adamw_fused" else fused)
    return lean_adamw(kind, parameters, lr, weight_decay)


def check_finite(value: float, what: str, remedy: str) -> None:
    """Refuse to continue from a loss or norm that is not finite.

    Raises:
        NotFiniteError: it is NaN or infinite.
    """
    if not math.isfinite(value):
        raise NotFiniteError(f"{what} is {value}; {remedy}")


def check_choices(not_finite: str, checkpoint_every: int) -> None:
    """Refuse invalid options before the first step.

    Raises:
        ConfigError: ``not_finite`` or ``checkpoint_every`` is not one of the possible values.
    """
    if not_finite not in get_args(NotFinite):
        raise ConfigError(f"not_finite is 'stop' or 'skip'; found {not_finite!r}")
    if checkpoint_every < 1:
        raise ConfigError(f"checkpoint_every counts steps, 1 or more; found {checkpoint_every}")


def too_many(skipped: Sequence[int]) -> bool:
    """Whether the last skipped steps, given by number, are too many in a row to continue."""
    last = skipped[-MOST_SKIPPED:]
    return len(last) == MOST_SKIPPED and last[-1] - last[0] == MOST_SKIPPED - 1
