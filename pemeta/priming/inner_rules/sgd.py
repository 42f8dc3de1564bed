"""Gradient descent, the paper's inner rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from pemeta.priming.inner_rules.base import InnerRule, Moments, descended


class SGD(InnerRule):
    """θ ← θ - α g (paper, Algorithm 1)."""

    name: ClassVar[str] = "sgd"
    by_element: ClassVar[bool] = True

    def update(self, value: Tensor, gradient: Tensor, name: str, moments: Moments, number: int, rate: float) -> Tensor:
        """A step against the gradient."""
        return value + -rate * gradient

    def update_all(
        self, values: Mapping[str, Tensor], gradients: Mapping[str, Tensor], moments: Moments, number: int, rate: float
    ) -> dict[str, Tensor]:
        """The same for all values at once."""
        if not gradients or type(self).update is not SGD.update:
            return super().update_all(values, gradients, moments, number, rate)
        return descended(values, list(gradients.values()), rate)
