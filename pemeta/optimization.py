"""The optimiser that priming's outer loop and fine-tuning share: AdamW with a linear schedule (§4.2)."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_linear_schedule_with_warmup

from pemeta.errors import TrainingError


class Optimization:
    """AdamW (Loshchilov and Hutter, 2019) whose learning rate falls linearly to zero.

    Args:
        parameters: what is optimised.
        lr: the highest learning rate.
        steps: number of steps after which it is zero.
        weight_decay: decoupled weight decay.
        warmup_steps: steps in which the rate first rises linearly from zero.
        max_grad_norm: the gradient is scaled down to this norm where it is larger; None leaves it.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        steps: int,
        weight_decay: float = 0.01,
        warmup_steps: int = 0,
        max_grad_norm: float | None = None,
    ) -> None:
        self.parameters = list(parameters)
        self.max_grad_norm = max_grad_norm
        self.optimizer = AdamW(self.parameters, lr=lr, weight_decay=weight_decay)
        self.scheduler: LRScheduler = get_linear_schedule_with_warmup(self.optimizer, warmup_steps, steps)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Clip, move the parameters by their gradients, and advance the schedule.

        Raises:
            TrainingError: the gradient is not finite; the parameters are as they were.
        """
        most = float("inf") if self.max_grad_norm is None else self.max_grad_norm
        norm = nn.utils.clip_grad_norm_(self.parameters, most).item()
        check_finite(norm, "the gradient's norm", f"lower the learning rate (now {self.optimizer.defaults['lr']})")
        self.optimizer.step()
        self.scheduler.step()


def check_finite(value: float, what: str, remedy: str) -> None:
    """Refuse to go on from a loss or norm that is not finite.

    Raises:
        TrainingError: it is NaN or infinite.
    """
    if not math.isfinite(value):
        raise TrainingError(f"{what} is {value}; {remedy}")
