"""The inner loop: a learner that clones and adapts θ_a and θ_h, and shares θ_p."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pemeta._learn2learn import BaseLearner, clone_module, update_module
from pemeta.anatomy import attention_of
from pemeta.errors import ConfigError, ModelError, TrainingError
from pemeta.methods.base import PEMethod
from pemeta.model import PEModel
from pemeta.partition import Partition, parameter_dict


class PrimingLearner(BaseLearner):  # type: ignore[misc]
    """MAML's learner for parameter-efficient fine-tuning (paper, Algorithm 1, lines 4-8).

    A clone shares θ_p with the original *by identity*, so that the query loss's backward pass reaches the
    original θ_p, and has its own θ_a and θ_h, which :meth:`adapt` moves::

        θ_a ← θ_a - α ∇_{θ_a} L        θ_h ← θ_h - α ∇_{θ_h} L

    The clone's θ_a stays connected to the original, which therefore gets its meta-gradient from the same
    backward pass. θ_h gets none (Algorithm 1 takes an adapted value for it, line 11): a clone starts from
    its values, detached.

    Args:
        module: a :class:`~pemeta.PEModel`, or any module together with ``partition``.
        inner_lr: α; 0.03 (§4.2).
        method: for a ``PEModel``, the method that the inner loop simulates; by default the one that
            fine-tuning uses.
        partition: the three name sets, for a module that is not a ``PEModel``.
        first_order: take the inner gradients as constants (first-order MAML, as the paper does, §4.2),
            or differentiate through them.

    Raises:
        ConfigError: ``inner_lr`` is not positive.
        ModelError: the module cannot be cloned faithfully (accelerate hooks, gradient checkpointing), or
            second order would have to pass through fused attention.
        MissingLearn2LearnError: on import, where learn2learn is not installed.
    """

    def __init__(
        self,
        module: nn.Module,
        inner_lr: float = 0.03,
        *,
        method: PEMethod | None = None,
        partition: Partition | None = None,
        first_order: bool = True,
    ) -> None:
        super().__init__(module)
        if not inner_lr > 0:
            raise ConfigError(f"inner_lr must be positive; found {inner_lr}")
        if partition is None:
            if not isinstance(module, PEModel):
                raise ConfigError(f"a {type(module).__name__} does not declare θ_a; give partition=Partition.of(...)")
            partition = module.partition(method)
            if not first_order:
                _refuse_fused_attention(module, method)
        _refuse_unfaithful(module)
        self.inner_lr = inner_lr
        self.partition = partition
        self.first_order = first_order
        self._owned = partition.adapted
        self._one_task = False

    def clone(self, task: str | None = None) -> PrimingLearner:
        """A learner on a clone of the module: θ_p the same objects, θ_a and θ_h its own.

        Args:
            task: for a ``PEModel``, clone only this task's head and share the others; by default clone all.

        Raises:
            ModelError: a parameter of θ_a does not require gradients.
        """
        heads = set(self.partition.theta_h if task is None else self.module.head_names(task))
        theta_a = set(self.partition.theta_a)
        frozen = [n for n, p in self.module.named_parameters() if n in theta_a and not p.requires_grad]
        if frozen:
            raise ModelError(f"θ_a is frozen: {', '.join(frozen[:3])}; call requires_grad_() on it")
        memo: dict[Any, Tensor] = {}
        # clone_module looks a parameter up in its memo by the bound method `data_ptr` (upstream's own key).
        for name, parameter in self.module.named_parameters():
            if name in heads:
                memo[parameter.data_ptr] = parameter.detach().clone().requires_grad_()
            elif name not in theta_a:
                memo[parameter.data_ptr] = parameter
        clone: PrimingLearner = self.__class__.__new__(self.__class__)
        BaseLearner.__init__(clone, clone_module(self.module, memo=memo))
        clone.inner_lr, clone.first_order, clone.partition = self.inner_lr, self.first_order, self.partition
        clone._one_task = task is not None
        clone._owned = (*self.partition.theta_a, *(name for name in self.partition.theta_h if name in heads))
        clone.training = self.training  # and each part keeps its own mode
        return clone

    def adapt(self, loss: Tensor) -> None:
        """One step of inner SGD on the clone's θ_a and θ_h.

        Args:
            loss: a scalar computed with this clone.

        Raises:
            TrainingError: the loss is not finite.
            ModelError: a parameter of θ_a, or the task's head, has no gradient.
        """
        if not torch.isfinite(loss):
            raise TrainingError(f"the inner loss is {loss.item()}; lower inner_lr (now {self.inner_lr})")
        owned = self.adapted_parameters()
        gradients: tuple[Tensor | None, ...] = torch.autograd.grad(
            loss, list(owned.values()), create_graph=not self.first_order, allow_unused=True
        )
        self._check_used({name for name, gradient in zip(owned, gradients, strict=True) if gradient is not None})
        for parameter, gradient in zip(owned.values(), gradients, strict=True):
            if gradient is not None:  # the heads of other tasks
                parameter.update = -self.inner_lr * gradient  # type: ignore[attr-defined] # update_module reads it
        update_module(self.module)

    def _check_used(self, used: set[str]) -> None:
        """Refuse a loss that leaves something where it is that it should move."""
        unused = [name for name in self.partition.theta_a if name not in used]
        if unused:
            raise ModelError(
                f"θ_a without a gradient: {', '.join(unused)}; the loss does not depend on it, so leave it out of "
                "θ_a or load the backbone without its unused parts (a pooler, for instance)"
            )
        heads = [name for name in self._owned if name not in set(self.partition.theta_a)]
        # A clone of all tasks' heads moves those that the loss uses; a clone for one task moves that task's.
        if heads and (not used.intersection(heads) or (self._one_task and not used.issuperset(heads))):
            raise ModelError(
                f"the loss does not depend on the clone's head ({', '.join(heads[:3])}); compute it with this clone "
                "and for the task that it was cloned for"
            )

    def adapted_parameters(self) -> dict[str, Tensor]:
        """Name to current value of what this clone adapts: θ_a and its heads."""
        return dict(parameter_dict(self.module, self._owned))


def _refuse_fused_attention(model: PEModel, method: PEMethod | None) -> None:
    """PyTorch's fused attention has no second derivative; without this check ``backward`` would say so, at the end."""
    attention = attention_of(model.backbone)
    if attention != "eager" and not model.reuses_trunk(method):
        raise ModelError(
            f"second order needs the second derivative of the backbone's attention, which {attention!r} attention "
            "lacks; load the backbone with attention: eager, or set first_order: true"
        )


def _refuse_unfaithful(module: nn.Module) -> None:
    """Refuse what makes a clone compute with the original's parameters without a sign of it."""
    for name, child in module.named_modules():
        if "forward" in vars(child) or getattr(child, "_compiled_call_impl", None) is not None:
            raise ModelError(
                f"{name or type(child).__name__} has a forward bound to one object (an accelerate device_map and "
                "compile() do this), so a clone of it would not adapt; load the model without them"
            )
        if getattr(child, "gradient_checkpointing", False):
            raise ModelError(
                f"gradient checkpointing is on in {name or type(child).__name__}, and would recompute a clone with "
                "the original's parameters; turn it off on the backbone"
            )
