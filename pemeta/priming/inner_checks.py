"""Refusal of rates, losses and attention that an inner loop cannot work with."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import islice
from typing import Any

from torch import Tensor, nn

from pemeta.backbone.attention import attention_of
from pemeta.errors import ConfigError, DataError, ModelError, NotFiniteError, excerpt
from pemeta.methods.base import PEMethod
from pemeta.model.pe_model import PEModel
from pemeta.training.reach import check_theta_a
from pemeta.typing import IGNORE_INDEX
from pemeta.utils.devices import read_numbers
from pemeta.utils.registry import plain


def check_rate(inner_lr: Any) -> Any:
    """The inner rate, unless it is no positive number; a tensor of one element may be learned.

    Raises:
        ConfigError: it is something else.
    """
    number = inner_lr.item() if isinstance(inner_lr, Tensor) and inner_lr.numel() == 1 else plain(inner_lr)
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ConfigError(f"inner_lr must be a number; found {excerpt(inner_lr)}")
    if not 0 < number < math.inf:
        raise ConfigError(f"inner_lr must be {'finite' if number == math.inf else 'positive'}; found {number}")
    return inner_lr if isinstance(inner_lr, Tensor) else number


def check_loss(loss: object) -> None:
    """Refuse what has no gradient: autograd's own message would not say why.

    Raises:
        ModelError: it is no scalar, or has no graph.
    """
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        found = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else excerpt(loss)
        raise ModelError(f"adapt takes a loss, which is a scalar; found {found}; compute it with loss(batch, task)")
    if not loss.requires_grad:
        raise ModelError(
            "this loss was computed without a graph (under no_grad or inference_mode, or detached), so that nothing "
            "can be adapted to it; compute it with the clone's loss(batch, task), which is not affected by these"
        )


def finite(losses: Sequence[float], inner_lr: object) -> list[float]:
    """The losses of an inner loop's steps, unless one is not finite.

    Raises:
        NotFiniteError: a loss is not finite.
    """
    for step, value in enumerate(losses, 1):
        if not math.isfinite(value):
            where = f" of step {step}" if len(losses) > 1 else ""
            raise NotFiniteError(f"the inner loss{where} is {value}; lower inner_lr (now {inner_lr})")
    return list(losses)


class InnerLosses:
    """The losses of an inner loop, each before its step, which stay on their device until someone asks for numbers.

    Args:
        measured: the losses.
        labels: labels of the batch of each step.
        inner_lr: α, for a message.
    """

    def __init__(
        self, measured: Sequence[Tensor] = (), labels: Sequence[Tensor | None] = (), inner_lr: object = None
    ) -> None:
        self.measured, self._labels, self._inner_lr = tuple(measured), tuple(labels), inner_lr

    def checked(self, losses: Sequence[float]) -> list[float]:
        """The losses as numbers, which they are.

        Raises:
            NotFiniteError: a loss is not finite.
            DataError: a loss is zero because its batch has no label.
        """
        found = finite(losses, self._inner_lr)
        if 0.0 in found:  # on the CPU, the loss itself has refused it
            _refuse_unlabelled(self._labels[found.index(0.0)])
        return found


def read_losses(inner: Sequence[InnerLosses], outer: Sequence[Tensor | float]) -> tuple[list[list[float]], list[float]]:
    """The losses of several inner loops, checked, and outer losses as numbers; the device is waited for once.

    Raises:
        NotFiniteError: A loss of an inner loop is not finite.
        DataError: One is zero because its batch has no label.
    """
    found = iter(read_numbers([*(loss for task in inner for loss in task.measured), *outer]))
    return [task.checked(list(islice(found, len(task.measured)))) for task in inner], list(found)


def adapted(values: dict[str, Tensor], task: str | None) -> dict[str, Tensor]:
    """The values that an inner step adapts.

    Raises:
        ConfigError: there are none.
    """
    if not values:
        whose = "the heads have" if task is None else f"the head of task {task!r} has"
        raise ConfigError(
            f"the inner loop adapts nothing, because its method leaves θ_a empty and {whose} no parameters; choose a "
            "method with a θ_a, or a head with parameters (output='own' of a language model's)"
        )
    return values


def check_used(
    used: Collection[str], theta_a: Sequence[str], heads: Sequence[str], one_task: bool, module: nn.Module
) -> None:
    """Refuse a loss that does not depend on all values that it should adapt.

    Args:
        used: names of the values that the loss has a gradient with respect to.
        theta_a: names in θ_a.
        heads: names of the parameters of heads that the clone has values for.
        one_task: whether these are of one task's head, which then is used as a whole.
        module: the module that computed the loss.

    Raises:
        ModelError: it does not.
    """
    unused = [name for name in theta_a if name not in used]
    if unused and not used:
        raise ModelError(
            "this loss depends on none of the clone's present values; compute it with this clone, for the task that it "
            "was cloned for, and anew for each step"
        )
    if unused and isinstance(module, PEModel):
        check_theta_a(module, theta_a, unused)
    elif unused:
        raise ModelError(
            f"θ_a without a gradient: {', '.join(unused)}; the loss does not depend on it, so remove it from θ_a"
        )
    # A clone with all tasks' heads adapts those that the loss uses; a clone for one task adapts that task's.
    reached = [name for name in heads if name in used]
    if heads and (not reached or (one_task and len(reached) < len(heads))):
        raise ModelError(
            f"the loss does not depend on the clone's head ({', '.join(heads[:3])}); compute it with this clone "
            "and for the task that it was cloned for"
        )


def _refuse_unlabelled(labels: Tensor | None) -> None:
    """Refuse a support set of which all labels are -100, from which an inner step would learn nothing.

    Raises:
        DataError: no label is another.
    """
    if labels is not None and not (labels != IGNORE_INDEX).any():
        raise DataError("the support set has no label: all are -100; leave it out, or give it labels")


def needs_math(model: PEModel, method: PEMethod | None) -> bool:
    """Whether second order needs PyTorch's math kernel for SDPA, because its fused kernels have no second derivative.

    Raises:
        ModelError: the backbone's attention is neither eager nor SDPA, and has no second derivative.
    """
    attention = attention_of(model.backbone)
    if attention == "eager" or model.reuses_hidden_states(method):
        return False
    if attention != "sdpa":
        raise ModelError(
            f"second order needs the second derivative of the backbone's attention, which {attention!r} attention "
            "lacks; load the backbone with attention: sdpa or eager, or set first_order: true"
        )
    return True
