"""The loss of a large vocabulary at labelled positions only, in chunks whose logits are computed again and not kept.

For N labelled positions with hidden states h (N, D), a matrix W (V, D) and a bias b (V,), the summed cross-entropy is
``Σ_n logsumexp(W h_n + b) - (W h_n + b)[y_n]``. The whole logits, their softmax and their gradient would be three
tensors of N V numbers, 6 GiB for 8 blocks of 512 tokens and a vocabulary of 128k. Here one chunk of positions is alive
at a time, and what the backward passes need of it is computed anew.

With e = softmax - onehot(y), the gradients for a factor g on the loss are ``g e W``, ``g eᵀ h`` and ``g Σ_n e_n``.
These are differentiable once more, by hand and in chunks as well, for second order.

Where a function of single numbers follows the product, such as Gemma 2's cap or Cohere's scale, the logits are its
values, and PyTorch differentiates it within each chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from pemeta.typing import IGNORE_INDEX
from pemeta.utils.precision import wide
from pemeta.utils.remembered import Remembered

CHUNK = 2**25
"""Numbers in one chunk's logits, 128 MiB in float32; our choice."""
Gradients: TypeAlias = tuple[Tensor | None, Tensor | None, Tensor | None]
"""Of hidden states, matrix and bias, of those that are needed."""


After: TypeAlias = Callable[[Tensor], Tensor]
"""A function of single numbers."""


def labelled_places(labels: Tensor, shift: int = 1) -> Tensor | None:
    """Indices (N,) into labels (B, T), flattened, of those that are not -100.

    All of them for labels without values, whose cost is counted; None where it cannot be told, as under ``vmap``.

    Args:
        labels: The labels.
        shift: Whether the first label of each row is left out (1), as nothing predicts it, or not (0).
    """
    if type(labels) is not Tensor:
        return torch.arange(labels.numel(), device=labels.device).view(labels.shape)[:, shift:].flatten()
    try:
        return _places_after_first(labels) if shift else _places(labels)
    except RuntimeError:
        return None


def _find(labels: Tensor) -> Tensor:
    return (labels != IGNORE_INDEX).flatten().nonzero().squeeze(1)


def _find_after_first(labels: Tensor) -> Tensor:
    after_first = (labels != IGNORE_INDEX).index_fill(1, torch.zeros(1, dtype=torch.long, device=labels.device), False)
    return after_first.flatten().nonzero().squeeze(1)


_places = Remembered(_find)
_places_after_first = Remembered(_find_after_first)


def fits(positions: int, classes: int) -> bool:
    """Whether logits, softmax and gradient, whole and all at once, are no more than one chunk's logits."""
    return 4 * positions * classes <= CHUNK


def summed_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, after: After | None = None
) -> Tensor:
    """Cross-entropy summed over N positions, in float32 or wider, of the logits ``after(weight @ hidden + bias)``.

    Args:
        hidden: (N, D), in the type that the products are computed in.
        weight: (V, D), in the same type.
        bias: (V,), in the same type or a wider one.
        labels: (N,), each from 0 to V - 1.
        after: A differentiable function of single numbers without parameters, if one follows.

    Raises:
        RuntimeError: A label is none of these, on the CPU.
    """
    if labels.dtype != torch.long:
        raise RuntimeError(f"labels are of {labels.dtype}")  # int32 would do here, but not in cross_entropy
    graph = torch.is_grad_enabled() and not weight.requires_grad and (hidden.requires_grad or bias.requires_grad)
    total: Tensor = _Loss.apply(hidden, weight, bias, labels, after, graph and after is None)[0]  # type: ignore[no-untyped-call]
    return total


class _Loss(torch.autograd.Function):
    """The loss; and the gradients of hidden states and bias where they are made at once, else two empty tensors."""

    @staticmethod
    def forward(
        hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, after: After | None, at_once: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        total = wide(hidden.new_zeros(()))
        of_hidden = torch.empty_like(hidden) if at_once else hidden.new_empty(0)
        of_bias = torch.zeros_like(wide(bias)) if at_once else bias.new_empty(0)
        done = 0
        with _exactly_these_types(hidden):
            for rows, own in _chunks(hidden, labels, len(bias)):
                logits = _logits(rows, weight, bias, after)
                total -= logits.gather(1, own.unsqueeze(1)).sum()
                highest = logits.amax(1, keepdim=True)
                sums = logits.sub_(highest).exp_().sum(1, keepdim=True)
                total += sums.log().add_(highest).sum()
                if at_once:
                    logits.div_(sums)[torch.arange(len(rows), device=rows.device), own] -= 1
                    of_bias += logits.sum(0)
                    torch.mm(logits.to(hidden.dtype), weight, out=of_hidden[done : done + len(rows)])
                    done += len(rows)
                del logits
        return total, of_hidden, of_bias.to(bias.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.after, ctx.at_once = inputs[4:]
        ctx.save_for_backward(*inputs[:4], *output[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if gradient is None:
            return (None,) * 6
        *given, of_hidden, of_bias = ctx.saved_tensors
        hidden, weight, bias = ctx.needs_input_grad[:3]
        if not ctx.at_once or torch.is_grad_enabled():  # what was made at once is a constant
            found = _Gradient.apply(gradient, *given, (hidden, weight, bias), ctx.after)  # type: ignore[no-untyped-call]
            return (*found, None, None, None)
        return gradient * of_hidden if hidden else None, None, gradient * of_bias if bias else None, None, None, None


class _Gradient(torch.autograd.Function):
    """The gradients ``g e W``, ``g eᵀ h`` and ``g Σ e``, where e is the derivative of the loss by the products."""

    @staticmethod
    def forward(
        factor: Tensor,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        labels: Tensor,
        needed: tuple[bool, ...],
        after: After | None,
    ) -> Gradients:
        own_hidden = torch.empty_like(hidden) if needed[0] else None
        own_weight = torch.zeros_like(wide(weight)) if needed[1] else None
        own_bias = torch.zeros_like(wide(bias)) if needed[2] else None
        done = 0
        with _exactly_these_types(hidden):
            for rows, own in _chunks(hidden, labels, len(bias)):
                wrong = _wrong(rows, weight, bias, own, after).mul_(factor)
                if own_bias is not None:
                    own_bias += wrong.sum(0)
                wrong = wrong.to(hidden.dtype)
                if own_weight is not None:
                    _add_product(own_weight, wrong.T, rows)
                if own_hidden is not None:
                    torch.mm(wrong, weight, out=own_hidden[done : done + len(rows)])
                done += len(rows)
                del wrong
        return (
            own_hidden,
            None if own_weight is None else own_weight.to(weight.dtype),
            None if own_bias is None else own_bias.to(bias.dtype),
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Gradients) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:5])
        ctx.after = inputs[6]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *towards: Tensor | None) -> tuple[Tensor | None, ...]:
        """The gradient of ``<u, g e W> + <v, g eᵀ h> + <w, g Σ e>`` for the directions u, v and w.

        With d = u Wᵀ + h vᵀ + w, the derivative of the products in these directions, it is ``<e, d>`` for g, and
        ``z = g H d`` for the products, with the second derivative H of the loss: ``H d = p ⊙ (d - <p, d>)`` where
        nothing follows them.
        """
        factor, hidden, weight, bias, labels = ctx.saved_tensors
        u, v, w = towards
        found = _Second(factor, hidden, weight, bias, ctx.needs_input_grad[:4], ctx.after)
        done = 0
        with _exactly_these_types(hidden):
            for rows, own in _chunks(hidden, labels, len(bias)):
                found.add(rows, own, None if u is None else u[done : done + len(rows)], v, w)
                done += len(rows)
        return (*found.gradients(), None, None, None)


class _Second:
    """The gradients of the second backward pass, gathered chunk by chunk."""

    def __init__(
        self,
        factor: Tensor,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        needed: tuple[bool, ...],
        after: After | None,
    ) -> None:
        self.given = factor, hidden, weight, bias
        self.factor, self.weight, self.bias, self.after = factor, weight, bias, after
        self.sums = [torch.zeros_like(wide(one)) if use else None for one, use in zip(self.given, needed, strict=True)]
        self.hidden: list[Tensor] = []

    def add(self, rows: Tensor, labels: Tensor, u: Tensor | None, v: Tensor | None, w: Tensor | None) -> None:
        """Add the part of one chunk."""
        kind, (of_factor, of_hidden, of_weight, of_bias) = rows.dtype, self.sums
        along = rows.new_zeros((len(rows), len(self.bias)), dtype=wide(self.bias).dtype)
        if u is not None:
            along += wide(u @ self.weight.T)
        if v is not None:
            along += wide(rows @ v.T)
        if w is not None:
            along += w
        wrong, turned = _turned(rows, self.weight, self.bias, labels, along, self.after)
        if of_factor is not None:
            of_factor += (wrong * along).sum()
        outer = wrong.mul_(self.factor).to(kind)  # g e, which u and v meet
        along = turned.mul_(self.factor)
        if of_bias is not None:
            of_bias += along.sum(0)
        along = along.to(kind)
        if of_weight is not None:
            _add_product(of_weight, along.T, rows)
            if u is not None:
                _add_product(of_weight, outer.T, u)
        if of_hidden is not None:
            own = along @ self.weight
            self.hidden.append(own if v is None else own + outer @ v)

    def gradients(self) -> list[Tensor | None]:
        """Of factor, hidden states, matrix and bias, in their types."""
        if self.sums[1] is not None:
            self.sums[1] = torch.cat(self.hidden)
        return [None if a is None else a.to(b.dtype) for a, b in zip(self.sums, self.given, strict=True)]


def _exactly_these_types(tensor: Tensor) -> torch.autocast:
    """A block without autocast, whose types the caller has chosen."""
    return torch.autocast(tensor.device.type, enabled=False)


def _chunks(hidden: Tensor, labels: Tensor, classes: int) -> Iterator[tuple[Tensor, Tensor]]:
    size = max(1, CHUNK // classes)
    return zip(hidden.split(size), labels.split(size), strict=True)


def _products(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Products of a chunk with the matrix, as far as possible in the types that they are given in."""
    if bias.dtype == weight.dtype:
        return F.linear(rows, weight, bias)
    return F.linear(rows, weight).to(bias.dtype).add_(bias)


def _logits(rows: Tensor, weight: Tensor, bias: Tensor, after: After | None) -> Tensor:
    """Logits of a chunk in float32 or wider."""
    products = _products(rows, weight, bias)
    return wide(products if after is None else after(products))


def _wrong(rows: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, after: After | None) -> Tensor:
    """The derivative of a chunk's loss by the products, in float32 or wider: softmax minus onehot."""
    if after is not None:
        return _derivative(_products(rows, weight, bias), labels, after, graph=False)[1]
    found = _logits(rows, weight, bias, None)
    found.sub_(found.amax(1, keepdim=True)).exp_()
    found.div_(found.sum(1, keepdim=True))
    found[torch.arange(len(rows), device=rows.device), labels] -= 1
    return found


def _turned(
    rows: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, along: Tensor, after: After | None
) -> tuple[Tensor, Tensor]:
    """The same derivative, and the second one times a direction."""
    if after is not None:
        products, wrong = _derivative(_products(rows, weight, bias), labels, after, graph=True)
        with torch.enable_grad():
            (turned,) = torch.autograd.grad((wide(wrong) * along).sum(), products)
        return wide(wrong.detach()), wide(turned)
    wrong = _wrong(rows, weight, bias, labels, None)
    places = torch.arange(len(rows), device=rows.device), labels
    shares = wrong.clone()
    shares[places] += 1  # the probabilities
    turned = along - (shares * along).sum(1, keepdim=True)
    return wrong, turned.mul_(shares)


def _derivative(products: Tensor, labels: Tensor, after: After, graph: bool) -> tuple[Tensor, Tensor]:
    """Products as a leaf, and the derivative of the loss by them, with a graph for one more or without."""
    with torch.inference_mode(False), torch.enable_grad():
        leaf = products.detach().requires_grad_()
        loss = F.cross_entropy(wide(after(leaf)), labels, reduction="sum")
        (found,) = torch.autograd.grad(loss, leaf, create_graph=graph)
    return leaf, found if graph else wide(found)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add ``left @ right`` to a total, which is in float32 where they are in half precision."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
