"""Passes of an inner loop with LoRA, in which a constant map W and the pair beside it are one map: ``W + s B A``.

What the pair costs on its own is two thin products and an addition in each direction, which on small shapes is as much
as the map itself. One map with the pair in it costs a product of the size of W, whatever the number of tokens. No
gradient of that map is ever made: those of A and B are products of rank r, and so is what second order adds.

Maps of one input (query, key and value) also add up its gradient within their products. For that, each gives an alias
of its input to the next, whose gradient comes back before its own.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from pemeta.backbone.layer_reuse import is_compiled
from pemeta.backbone.row_groups import groups_of
from pemeta.methods.low_rank import LowRank

_INCLUDES = "pemeta_includes"


def includes(output: Tensor, pair: nn.Module) -> bool:
    """Whether what a map gave has what the pair adds in it."""
    return getattr(output, _INCLUDES, None) is pair


@contextmanager
def merged_maps(backbone: nn.Module, child: str) -> Iterator[None]:
    """Within the block, compute maps and pairs as one where that is certain to be the same, and cheaper.

    A pass of anything else is what it was: with a map that is no plain ``nn.Linear`` of constants, that has hooks of
    others, or whose pair has dropout; with autocast, numbers of half precision or TF32, in which a small pair would be
    lost in the sum; with few tokens for the size of the map; and in a compiled graph.

    Args:
        backbone: The backbone.
        child: Name of the pairs in the maps.
    """
    own: list[tuple[nn.Module, Any]] = []
    if not is_compiled(backbone):
        latest = _Latest()
        parents = [part for part in backbone.modules() if any(child in one._modules for one in part.children())]
        maps = {one: None for part in parents for one in part.children() if type(one) is nn.Linear}
        own = [(one, partial(_forward, one, child, latest)) for one in maps if "forward" not in vars(one)]
    for one, forward in own:
        one.__dict__["forward"] = forward
    try:
        yield
    finally:
        for one, forward in own:
            if vars(one).get("forward") is forward:
                del one.__dict__["forward"]


class _Latest:
    """The latest input of a map, and its alias."""

    def __init__(self) -> None:
        self._known: tuple[weakref.ref[Tensor], int, Tensor] | None = None

    def alias(self, x: Tensor) -> Tensor:
        """The alias of the tensor, or itself."""
        if self._known is not None:
            latest, version, alias = self._known
            if latest() is x and version == x._version:
                return alias
        return x

    def note(self, x: Tensor, alias: Tensor) -> None:
        self._known = weakref.ref(x), x._version, alias


def _forward(linear: nn.Linear, child: str, latest: _Latest, x: Tensor) -> Tensor:
    """``nn.Linear``'s, with what the map's pair adds if the output says so."""
    pair = linear._modules.get(child)
    if not _is_plain(linear, child, x) or not (x.requires_grad if pair is None else _gains(linear, pair, x)):
        return F.linear(x, linear.weight, linear.bias)
    own: tuple[Any, ...] = (linear.weight, None, None, 1.0)
    if isinstance(pair, LowRank):
        down, up = pair.down.weight, pair.up.weight
        with torch.no_grad():
            one = (torch.addmm if up.ndim == 2 else torch.baddbmm)(linear.weight, up, down, alpha=pair.scaling)
        own = one, down, up, pair.scaling
    out: Tensor
    out, alias = _Merged.apply(latest.alias(x), linear.weight, linear.bias, *own)  # type: ignore[no-untyped-call]
    if x.requires_grad:
        latest.note(x, alias)
    if pair is not None:
        setattr(out, _INCLUDES, pair)
    return out


def _is_plain(linear: nn.Linear, child: str, x: object) -> bool:
    """Whether a map of constants, without hooks of others, is called for a graph, in numbers that keep a small pair."""
    if type(x) is not Tensor or x.ndim < 2 or not x.numel() or not torch.is_grad_enabled():
        return False
    given = [value for value in linear._parameters.values() if value is not None]
    if any(type(value) not in (Tensor, nn.Parameter) for value in given):
        return False  # quantised weights have products of their own
    if any(value.requires_grad or value.dtype != x.dtype or value.device != x.device for value in given):
        return False
    if x.dtype is not torch.float64 and (
        x.dtype is not torch.float32 or torch.get_float32_matmul_precision() != "highest"
    ):
        return False
    if torch.compiler.is_compiling() or torch.is_autocast_enabled(x.device.type):
        return False
    hooks = [getattr(hook, "child", None) for hook in linear._forward_hooks.values()]
    others = linear._forward_pre_hooks or linear._backward_hooks or linear._backward_pre_hooks
    if others or _has_any_global_hook() or hooks != [child] * (child in linear._modules):
        return False
    return not torch._C._are_functorch_transforms_active()


def _gains(linear: nn.Linear, pair: object, x: Tensor) -> bool:
    """Whether one map with the pair in it gives the same as both, and is cheaper."""
    if type(pair) is not LowRank or not pair.is_plain() or (pair.dropout.training and pair.dropout.p):
        return False
    down, up = pair.down.weight, pair.up.weight
    if down.ndim != up.ndim or any(one.dtype != x.dtype or one.device != x.device for one in (down, up)):
        return False
    number, tokens = 1, x.shape[:-1].numel()
    if up.ndim == 3:  # of several tasks, whose examples are behind each other
        groups = groups_of(pair.down)
        if groups is None or not groups.divide(x):
            return False
        number = len(up)
    # The sum is read and written once; what the pair adds, and its gradient, are as large as output and input.
    return number * linear.in_features * linear.out_features <= tokens * (linear.in_features + linear.out_features)


def _rows(x: Tensor, one: Tensor) -> Tensor:
    """The tokens (N, D), or (G, N / G, D) if there is a map for each of G groups."""
    return x.reshape(-1, x.shape[-1]) if one.ndim == 2 else x.reshape(len(one), -1, x.shape[-1])


def _product(a: Tensor, b: Tensor, added: Tensor | None = None) -> Tensor:
    """``a b``, or that added to something, of matrices or of batches of them."""
    if a.ndim == b.ndim == 2:
        return torch.mm(a, b) if added is None else torch.addmm(added, a, b)
    b = b.expand(len(a), *b.shape[-2:])
    return torch.bmm(a, b) if added is None else torch.baddbmm(added, a, b)


def _scaled(a: Tensor, b: Tensor, factor: float) -> Tensor:
    """``factor a b`` as one operation."""
    add = torch.addmm if a.ndim == 2 else torch.baddbmm
    return add(_unused(a.dtype, a.device), a, b, beta=0, alpha=factor)  # differentiable once more, for second order


@cache
def _unused(dtype: torch.dtype, device: torch.device) -> Tensor:
    """What is added to a product with a `beta` of 0, so that only the product is left."""
    with torch.inference_mode(False):
        return torch.zeros((), dtype=dtype, device=device)


class _Merged(torch.autograd.Function):
    """``x oneᵀ + bias`` for a constant ``weight``, of which ``one`` is ``weight + s up down``; and an alias of ``x``.

    ``one`` is a constant, and the gradients are those of its parts. Without a pair it is the weight itself.
    """

    @staticmethod
    def forward(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        one: Tensor,
        down: Tensor | None,
        up: Tensor | None,
        scaling: float,
    ) -> tuple[Tensor, Tensor]:
        out = _product(_rows(x, one), one.transpose(-2, -1), bias)
        # Not a view, as a linear map's output is none: a backbone may divide queries in place.
        return torch.ops.aten._unsafe_view(out, (*x.shape[:-1], out.shape[-1])), x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, weight, _, one, down, up, ctx.scaling = inputs
        ctx.set_materialize_grads(False)
        ctx.shape = x.shape
        ctx.save_for_backward(None if up is None else x, weight, one, down, up)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None, later: Tensor | None) -> tuple[Tensor | None, ...]:
        if gradient is None:
            return (later, *[None] * 6)
        x, weight, one, down, up = ctx.saved_tensors
        given = _rows(gradient, one)
        of_x = None if later is None else _rows(later, one)
        of_down = of_up = thin = None
        if up is not None:
            rows, thin = _rows(x, one), _scaled(given, up, ctx.scaling)
            if ctx.needs_input_grad[4]:
                of_down = _product(thin.transpose(-2, -1), rows)
            if ctx.needs_input_grad[5]:
                of_up = _scaled(given.transpose(-2, -1), _product(rows, down.transpose(-2, -1)), ctx.scaling)
        if not ctx.needs_input_grad[0]:
            return None, None, None, None, of_down, of_up, None
        if thin is not None and torch.is_grad_enabled():  # `one` is a constant, and would have no second derivative
            of_x = _product(given, weight, _product(thin, down, of_x))
        else:
            of_x = _product(given, one, of_x)
        return of_x.view(ctx.shape), None, None, None, of_down, of_up, None
