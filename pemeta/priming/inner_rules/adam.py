"""Adam, with and without decoupled weight decay."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from pemeta.priming.inner_rules.base import InnerRule, Moments, moment


class Adam(InnerRule):
    """Adam (Kingma and Ba, 2015), with PyTorch's defaults.

    Attributes:
        beta1: decay of the mean of gradients; 0.9.
        beta2: decay of the mean of their squares; 0.999.
        eps: added to the denominator; 1e-8.
    """

    name: ClassVar[str] = "adam"

    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    eps: float = Field(1e-8, gt=0)

    def update(self, value: Tensor, gradient: Tensor, name: str, moments: Moments, number: int, rate: float) -> Tensor:
        """A step along the mean gradient, relative to its size."""
        mean = self.beta1 * moment(moments, "mean", name, gradient) + (1 - self.beta1) * gradient
        square = self.beta2 * moment(moments, "square", name, gradient) + (1 - self.beta2) * gradient.square()
        moments["mean"][name], moments["square"][name] = mean, square
        unbiased = mean / (1 - self.beta1 ** (number + 1))
        size = _root(square / (1 - self.beta2 ** (number + 1)))
        return value + -rate * unbiased / (size + self.eps)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019).

    Attributes:
        beta1: decay of the mean of gradients; 0.9.
        beta2: decay of the mean of their squares; 0.999.
        eps: added to the denominator; 1e-8.
        weight_decay: λ of θ ← (1 - α λ) θ; 0.01 (PyTorch's default).
    """

    name: ClassVar[str] = "adamw"

    weight_decay: float = Field(0.01, ge=0)

    def update(self, value: Tensor, gradient: Tensor, name: str, moments: Moments, number: int, rate: float) -> Tensor:
        """Adam's step from the decayed value."""
        return super().update(value * (1 - rate * self.weight_decay), gradient, name, moments, number, rate)


def _root(square: Tensor) -> Tensor:
    """The square root; its derivative at zero, which is infinite, is taken to be zero."""
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, 1.0).sqrt(), 0.0)
