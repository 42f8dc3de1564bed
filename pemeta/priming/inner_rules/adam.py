"""Adam, with and without decoupled weight decay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

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
        moments: what an inner loop's moments start from: zero (``own``, our choice), or those that the outer AdamW has
            at that step (``outer``; MAML-en-LLM, 2405.11446); zero for heads, which it does not move.
    """

    name: ClassVar[str] = "adam"
    by_element: ClassVar[bool] = True

    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    eps: float = Field(1e-8, gt=0)
    moments: Literal["own", "outer"] = "own"

    def initial(self, outer: Mapping[str, Mapping[str, Tensor]]) -> Moments:
        """Zero, or the outer optimiser's moments, with the number of its steps for the correction of their bias."""
        if self.moments == "own":
            return {}
        kinds = {"mean": "exp_avg", "square": "exp_avg_sq", "steps": "step"}
        found = {kind: {name: state[key].detach() for name, state in outer.items()} for kind, key in kinds.items()}
        # Another tensor, because the optimiser counts in place; double, so that powers are not rounded.
        found["steps"] = {name: steps.double() for name, steps in found["steps"].items()}
        return found

    def update(self, value: Tensor, gradient: Tensor, name: str, moments: Moments, number: int, rate: float) -> Tensor:
        """A step along the mean gradient, relative to its size."""
        mean = self.beta1 * moment(moments, "mean", name, gradient) + (1 - self.beta1) * gradient
        square = self.beta2 * moment(moments, "square", name, gradient) + (1 - self.beta2) * gradient.square()
        moments["mean"][name], moments["square"][name] = mean, square
        steps = number + 1 + moments.get("steps", {}).get(name, 0)
        unbiased = mean / (1 - self.beta1**steps)
        size = _root(square / (1 - self.beta2**steps))
        return value + -rate * unbiased / (size + self.eps)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019).

    Attributes:
        beta1: decay of the mean of gradients; 0.9.
        beta2: decay of the mean of their squares; 0.999.
        eps: added to the denominator; 1e-8.
        moments: what an inner loop's moments start from: zero (``own``, our choice), or those that the outer AdamW has
            at that step (``outer``; MAML-en-LLM, 2405.11446); zero for heads, which it does not move.
        weight_decay: λ of θ ← (1 - α λ) θ; 0.01 (PyTorch's default).
    """

    name: ClassVar[str] = "adamw"
    by_element: ClassVar[bool] = True

    weight_decay: float = Field(0.01, ge=0)

    def update(self, value: Tensor, gradient: Tensor, name: str, moments: Moments, number: int, rate: float) -> Tensor:
        """Adam's step from the decayed value."""
        return super().update(value * (1 - rate * self.weight_decay), gradient, name, moments, number, rate)


def _root(square: Tensor) -> Tensor:
    """The square root; its derivative at zero, which is infinite, is taken to be zero."""
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, 1.0).sqrt(), 0.0)
