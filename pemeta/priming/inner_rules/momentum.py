"""Gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from pemeta.priming.inner_rules.base import InnerRule, Moments, descended, moment


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

    def update_all(
        self, values: Mapping[str, Tensor], gradients: Mapping[str, Tensor], moments: Moments, number: int, rate: float
    ) -> dict[str, Tensor]:
        """The same for all values at once."""
        if not gradients or type(self).update is not Momentum.update:
            return super().update_all(values, gradients, moments, number, rate)
        before = [moment(moments, "sum", name, gradient) for name, gradient in gradients.items()]
        total = torch._foreach_add(torch._foreach_mul(before, self.momentum), list(gradients.values()))
        moments["sum"].update(zip(gradients, total, strict=True))
        return descended(values, total, rate)
