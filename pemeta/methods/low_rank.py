"""LoRA's pair of maps, which is added to what a linear map gives."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from pemeta.backbone.row_groups import groups_of
from pemeta.utils.modules import is_hooked


class _Added(torch.autograd.Function):
    """``output + s inner upᵀ``, where the factor is part of the products in both passes and no operation of its own."""

    generate_vmap_rule = True

    @staticmethod
    def forward(output: Tensor, inner: Tensor, up: Tensor, scaling: float) -> Tensor:
        return torch.addmm(output, inner, up.t(), alpha=scaling)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:3])
        ctx.scaling = inputs[3]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inner, up = ctx.saved_tensors
        unused = up.detach()[0]  # `beta` is 0; differentiable once more, for second order
        of_inner = of_up = None
        if ctx.needs_input_grad[1]:
            of_inner = torch.addmm(unused, gradient, up, beta=0, alpha=ctx.scaling)
        if ctx.needs_input_grad[2]:
            of_up = torch.addmm(unused, gradient.t(), inner, beta=0, alpha=ctx.scaling)
        return gradient, of_inner, of_up, None


class LowRank(nn.Module):
    """``s B A dropout(x)``, mapping (..., in) to (..., out) through r units.

    ``A`` (``down``, (r, in)) is initialised as in PEFT and the authors' code, uniformly like ``nn.Linear``'s
    weights, and ``B`` (``up``, (out, r)) to zero.
    """

    def __init__(self, width: int, out: int, rank: int, scaling: float, dropout: float) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, out, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.scaling = scaling
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out), to be added to the linear map's output."""
        return self.up(self.down(self.dropout(x))) * self.scaling  # type: ignore[no-any-return]

    def is_plain(self) -> bool:
        """Whether a call is the two maps' products and dropout, and nothing of a user's."""
        maps = (self.down, self.up)
        plain = all(type(one) is nn.Linear and one.bias is None for one in maps)
        plain = plain and all("forward" not in vars(one) or groups_of(one) is not None for one in maps)
        own = type(self).forward is LowRank.forward and "forward" not in vars(self)
        return plain and own and not any(is_hooked(one) for one in (self, self.dropout, *maps))

    def beside(self, x: Tensor, output: Tensor) -> Tensor:
        """``output + s B A dropout(x)`` by one product that adds, so that nothing else of the output's size is made.

        Where a call of this module, or of its maps, does anything else, such as a user's hook, they are called.
        """
        if not self.is_plain():
            return output + self(x)  # type: ignore[no-any-return]
        inner = self.down(self.dropout(x))
        if inner.dtype != output.dtype or inner.shape[:-1] != output.shape[:-1] or output.ndim < 2:
            return output + self.up(inner) * self.scaling  # type: ignore[no-any-return]
        up = self.up.weight.to(inner.dtype)  # as autocast would
        if up.ndim > 2:  # of several tasks, whose examples are behind each other
            outputs, inners = (value.reshape(len(up), -1, value.shape[-1]) for value in (output, inner))
            return torch.baddbmm(outputs, inners, up.transpose(1, 2), alpha=self.scaling).view(output.shape)
        rows = output.flatten(0, -2), inner.flatten(0, -2)
        if torch.compiler.is_compiling():
            return torch.addmm(*rows, up.t(), alpha=self.scaling).view(output.shape)
        added: Tensor = _Added.apply(*rows, up, self.scaling)  # type: ignore[no-untyped-call]
        return added.view(output.shape)
