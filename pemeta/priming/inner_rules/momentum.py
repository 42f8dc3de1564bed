"""Gradient descent with momentum."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from pemeta.priming.inner_rules.base import InnerRule, Moments, moment


class Momentum(InnerRule):
    """m ← μ m + g; θ ← θ - α m, as ``torch.optim.SGD`` has it (Polyak, 1964).

    Attributes:
        momentum: μ; 0.9, our choice.
    """

    name: ClassVar[str] = "momentum"
    by_element: ClassVar[bool] = True

    momentum: float = Field(0.9, gt=0, lt=1)

    def update(self, value: Tensor, gradient: Tensor, name: str, moments: Moments, number: int, rate: float) -> Tensor:
        """A step against the decaying sum of gradients."""
        total = self.momentum * moment(moments, "sum", name, gradient) + gradient
        moments["sum"][name] = total
        return value + -rate * total
