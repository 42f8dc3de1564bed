"""The base of all inner rules: how an inner step follows from gradients."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, PlainSerializer, PlainValidator
from torch import Tensor

from pemeta.utils.registry import Named

Moments = dict[str, dict[str, Tensor]]
"""By kind of moment and name of parameter."""


class InnerRule(Named):
    """How an inner step follows from gradients.

    Every operation of a rule is differentiable, so that in second order the meta-gradient passes through it, moments
    included. Moments belong to one clone, and start at zero unless a rule takes them from the outer optimiser.

    Attributes:
        max_grad_norm: norm that a larger inner gradient, over θ_a and θ_h together, is scaled down to, as TTT-E2E does
            (2512.23675); null for no limit, the paper's.
        warmup_steps: first inner steps, in which the rate rises linearly to ``inner_lr`` (2512.23675); 0, the paper's.
    """

    kind: ClassVar[str] = "inner rule"

    by_element: ClassVar[bool] = False
    """Whether what this very class defines of ``update`` and ``update_all`` moves each element by its own gradient."""

    max_grad_norm: float | None = Field(None, gt=0)
    warmup_steps: int = Field(0, ge=0)

    def step(
        self, values: Mapping[str, Tensor], gradients: Mapping[str, Tensor], moments: Moments, number: int, lr: float
    ) -> dict[str, Tensor]:
        """The values after a step.

        Args:
            values: Values by name.
            gradients: Gradients of the loss by name, of values or of fewer.
            moments: What the rule keeps between the steps of a clone; changed in place.
            number: The step, counted from 0.
            lr: α.

        Returns:
            New values of those that have a gradient.
        """
        rate = lr * min(1.0, (number + 1) / self.warmup_steps) if self.warmup_steps else lr
        if self.max_grad_norm is not None:
            gradients = _clipped(gradients, self.max_grad_norm)
        return self.update_all({name: values[name] for name in gradients}, gradients, moments, number, rate)

    def update_all(
        self, values: Mapping[str, Tensor], gradients: Mapping[str, Tensor], moments: Moments, number: int, rate: float
    ) -> dict[str, Tensor]:
        """The values after a step; by default each by :meth:`update`.

        A rule may override it to do all parameters in a few operations (``torch._foreach_*``), which on a GPU takes a
        few kernels in place of a few for each.

        Args:
            values: Values by name, of the parameters that have a gradient.
            gradients: Their gradients, by the same names in the same order.
            moments: As for :meth:`step`.
            number: As for :meth:`step`.
            rate: The rate of this step.
        """
        return {
            name: self.update(values[name], gradient, name, moments, number, rate)
            for name, gradient in gradients.items()
        }

    @property
    def joins_tasks(self) -> bool:
        """Whether the values of several tasks, stacked, can take a step as if they were those of one."""
        owners = [next(one for one in type(self).__mro__ if name in vars(one)) for name in ("update", "update_all")]
        elements = all(one is InnerRule or vars(one).get("by_element", False) for one in owners)
        return elements and type(self).step is InnerRule.step and self.max_grad_norm is None

    def initial(self, outer: Mapping[str, Mapping[str, Tensor]]) -> Moments:
        """The moments that a clone starts with; none.

        Args:
            outer: The outer optimiser's state of each parameter that it has moved, by name.
        """
        return {}

    @abstractmethod
    def update(self, value: Tensor, gradient: Tensor, name: str, moments: Moments, number: int, rate: float) -> Tensor:
        """The value of one parameter after a step; the arguments are those of :meth:`step`."""


def moment(moments: Moments, kind: str, name: str, like: Tensor) -> Tensor:
    """A moment of a parameter, zero at first."""
    found = moments.setdefault(kind, {}).get(name)
    return torch.zeros_like(like) if found is None else found


def descended(values: Mapping[str, Tensor], directions: Sequence[Tensor], rate: float) -> dict[str, Tensor]:
    """``value + -rate * direction``, for all values at once unless the rate is a tensor, which may be learned."""
    if isinstance(rate, Tensor):
        return {name: v + -rate * d for (name, v), d in zip(values.items(), directions, strict=True)}
    moved = _Descended.apply(rate, *values.values(), *directions)  # type: ignore[no-untyped-call]
    return dict(zip(values, moved, strict=True))


class _Descended(torch.autograd.Function):
    """:func:`descended`, with a graph that keeps no value: that of ``_foreach_add`` keeps those of every step."""

    generate_vmap_rule = True

    @staticmethod
    def forward(rate: float, *given: Tensor) -> tuple[Tensor, ...]:
        half = len(given) // 2
        moved = torch._foreach_mul(given[half:], -rate)
        torch._foreach_add_(moved, given[:half])  # in place: of all of a backbone, one more copy would be much
        return tuple(moved)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.set_materialize_grads(False)
        ctx.rate, ctx.directed = inputs[0], ctx.needs_input_grad[1 + len(output) :]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        there = [g for g, needed in zip(gradients, ctx.directed, strict=True) if needed and g is not None]
        steps = iter(torch._foreach_mul(there, -ctx.rate) if there else ())
        of_directions = [
            next(steps) if needed and g is not None else None for g, needed in zip(gradients, ctx.directed, strict=True)
        ]
        return (None, *gradients, *of_directions)


def _clipped(gradients: Mapping[str, Tensor], most: float) -> dict[str, Tensor]:
    """Gradients scaled down so that their common norm is at most ``most``."""
    # The tiny number keeps the derivative of the root finite if all gradients are zero.
    norm = torch.sqrt(torch.stack([gradient.square().sum() for gradient in gradients.values()]).sum() + 1e-24)
    scale = torch.clamp(most / norm, max=1.0)
    return {name: gradient * scale for name, gradient in gradients.items()}


AnyRule = Annotated[InnerRule, PlainValidator(InnerRule.parse), PlainSerializer(lambda rule: rule.to_config())]
