"""Gradient descent, the paper's inner rule."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from pemeta.priming.inner_rules.base import InnerRule, Moments


class SGD(InnerRule):
    """θ ← θ - α g (paper, Algorithm 1)."""

    name: ClassVar[str] = "sgd"
    by_element: ClassVar[bool] = True

    def update(self, value: Tensor, gradient: Tensor, name: str, moments: Moments, number: int, rate: float) -> Tensor:
        """A step against the gradient."""
        return value + -rate * gradient
