"""The inner loop: a learner that clones and adapts θ_a and θ_h, and shares θ_p."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer
from typing_extensions import Self

from pemeta.backbone.checks import check_batch, refuse_unfaithful
from pemeta.backbone.masks import masks_once
from pemeta.errors import ConfigError, ModelError
from pemeta.methods.base import PEMethod
from pemeta.model.given import require_module
from pemeta.model.partition import Partition
from pemeta.model.pe_model import PEModel
from pemeta.priming._learn2learn import clone_parameters
from pemeta.priming.inner_checks import InnerLosses, adapted, check_loss, check_rate, check_used, finite, needs_math
from pemeta.priming.inner_rules.base import InnerRule, Moments
from pemeta.priming.inner_rules.sgd import SGD
from pemeta.priming.layout import facts
from pemeta.priming.narrow_copies import narrow_for
from pemeta.priming.placing import placed
from pemeta.priming.sharing import SharingLearner
from pemeta.training.master_values import moments_of
from pemeta.typing import Batch
from pemeta.utils.devices import read_numbers
from pemeta.utils.modules import constant
from pemeta.utils.precision import wide
from pemeta.utils.signatures import checked


@checked(module=None, inner_lr=None)
class PrimingLearner(SharingLearner):
    """MAML's learner for parameter-efficient fine-tuning (paper, Algorithm 1, lines 4-8).

    A clone holds values of its own for θ_a and θ_h, and no module: the one module that all clones share computes with
    them for the length of a pass. So θ_p is the original's *by identity*, and the query loss's backward pass reaches
    it; hooks and compiled graphs of the module stay what they are. :meth:`adapt` updates the values::

        θ_a ← θ_a - α ∇_{θ_a} L        θ_h ← θ_h - α ∇_{θ_h} L

    The clone's θ_a stays connected to the original, which therefore receives its meta-gradient from the same
    backward pass, unless it is frozen. θ_h receives none (Algorithm 1 assigns an adapted value to it, line 11): a clone
    starts from its detached values, without ``head_gradient``. A clone of a clone starts from the clone's values, and
    is connected to them. Values of parameters in half precision are in float32, where no small update is lost, and are
    rounded for each pass. ``clone.module`` is a view of the module with the clone's values. Two clones cannot compute
    at once. A shallow copy of a clone has values of its own from then on; a deep or pickled copy is a learner on a copy
    of the module with the clone's values.

    A learner belongs to the parameters that the module has when the learner is made. Clones, and passes of clones, are
    refused once one of them was added, removed or replaced (by a new head, a method that was attached or detached, or
    resized embeddings); passes also once θ_a or the heads were converted, moved, frozen or thawed after the clone was
    made. Attention and gradient checkpointing may change at any time, as may the values: a clone keeps its own.

    Args:
        module: a :class:`~pemeta.PEModel`, or any module together with ``partition``.
        inner_lr: α; 0.03 (§4.2).
        method: of a ``PEModel``, which the inner loop simulates; by default the one that fine-tuning uses.
        partition: the partition of the parameters, for a module that is not a ``PEModel``.
        first_order: whether inner gradients are constants (first-order MAML, as in the paper, §4.2) or differentiated
            through; if θ_a is inside a backbone with SDPA, then by PyTorch's math kernel, as fused ones cannot be.
        rule: how an inner step follows from gradients; by default SGD, the paper's.
        loss_scale: factor on the inner losses while their gradients are computed, against underflow in float16.
        head_gradient: whether the values that heads start with receive a meta-gradient too (ANIL, Raghu et al., 2020).
        optimizer: the outer optimiser, whose moments a rule may start an inner loop from.
        keep_path: whether a clone keeps its values after each inner step, as a loss at every step needs.

    Attributes:
        task: the task that a clone was made for; None for all.
        steps: number of inner steps that a clone has taken.
        inner_losses: of a clone's last :meth:`adapt_to`: the loss before each step, unread.
        path: a clone's values after each inner step, if they are kept.
        reached: names of the parameters that a gradient has reached in a clone's steps.

    Raises:
        ConfigError: ``inner_lr`` is not a positive number, or the module has no θ_a and no partition is given.
        ModelError: the module cannot be cloned faithfully (accelerate hooks, parameters spread over devices), it has
            other parameters than the partition, or second order would need to pass through attention that has no
            second derivative.
        MissingLearn2LearnError: on import, if learn2learn is not installed.
    """

    def __init__(
        self,
        module: nn.Module,
        inner_lr: float = 0.03,
        *,
        method: PEMethod | None = None,
        partition: Partition | None = None,
        first_order: bool = True,
        rule: InnerRule | None = None,
        loss_scale: float = 1.0,
        head_gradient: bool = False,
        optimizer: Optimizer | None = None,
        keep_path: bool = False,
    ) -> None:
        inner_lr = check_rate(inner_lr)
        require_module(module, type(self).__name__)
        if partition is None:
            if not isinstance(module, PEModel):
                raise ConfigError(f"a {type(module).__name__} does not declare θ_a; give partition=Partition.of(...)")
            partition = module.partition(method)
        refuse_unfaithful(module)
        super().__init__(module, partition.adapted)
        self.layout.check()
        if unknown := [n for n in (*partition.theta_p, *partition.adapted) if n not in self.layout.parameters]:
            raise ModelError(
                f"{unknown[0]} is in the partition, but it is not the first name of a parameter of the module; make "
                "the partition with Partition.of(module, ...)"
            )
        self.inner_lr = inner_lr
        self.method = module.method if method is None and isinstance(module, PEModel) else method
        self.rule = rule or SGD()
        self.loss_scale = loss_scale
        self.head_gradient = head_gradient
        self.optimizer = optimizer
        self.keep_path = keep_path
        self.partition = partition
        self.first_order = first_order
        _ = self.math_attention  # refuses attention without a second derivative
        self.as_original()

    def clone(self, task: str | None = None) -> PrimingLearner:
        """Create a learner that shares the module and θ_p, and has values of its own for θ_a and θ_h.

        Args:
            task: for a ``PEModel``, clone only this task's head and share the others; by default clone all heads.

        Raises:
            ConfigError: ``task`` is given, but the module has no tasks.
            ModelError: the task has no head, the module's parameters are not those that it had when the learner was
                made, or another clone, or another thread, computes with the module just now.
        """
        theta_a, parameters = self.partition.theta_a, self.layout.parameters
        heads = self._owned_heads() if task is None else self.model.head_names(task)
        with placed(self.shared, self, (), {}, lambda: self.layout.check(heads)):
            start = {name: (self.values or {}).get(name, parameters[name]) for name in (*theta_a, *heads)}
        if unknown := sorted({*heads} - {*self.names}):
            raise ModelError(f"{unknown[0]} is not in this learner's partition; make a new learner")
        connected = (*theta_a, *(heads if self.head_gradient else ()))
        primed = [name for name in connected if start[name].requires_grad]
        with torch.inference_mode(False), torch.enable_grad():
            cloned = clone_parameters([start[name] for name in primed])
            own = {name: wide(value) for name, value in zip(primed, cloned, strict=True)}
            values = {n: own[n] if n in own else wide(v.detach().clone()).requires_grad_() for n, v in start.items()}
        clone = self.with_values(values)
        clone._owned, clone._one_task = tuple(values), task is not None or self._one_task
        clone._facts = {name: facts(parameters[name], name in connected) for name in values}
        if self.values is None and self.optimizer is not None:
            moments = {name: moments_of(self.optimizer, parameters[name]) for name in start}
            clone.moments = self.rule.initial({name: state for name, state in moments.items() if state})
        clone.task, clone.inner_losses, clone.path, clone.reached = task or self.task, InnerLosses(), [], frozenset()
        return clone

    def with_values(self, values: dict[str, Tensor]) -> Self:
        """A clone with these values, whose inner rule goes on from this learner's moments."""
        made = super().with_values(values)
        made.moments = {kind: dict(moments) for kind, moments in self.moments.items()}
        return made

    def as_original(self) -> None:
        """Adapt whatever the partition names, as a learner does that was not cloned."""
        self._owned, self._one_task = self.partition.adapted, False
        self.moments: Moments = {}  # of a clone
        self.steps, self._failed = 0, False
        self.task: str | None = None
        self.inner_losses = InnerLosses()
        self.path: list[dict[str, Tensor]] = []
        self.reached: frozenset[str] = frozenset()

    def loss(self, batch: Batch, task: str) -> Tensor:
        """A task's loss, as a scalar, for a ``PEModel``; for second order, attention is twice differentiable."""
        model = self.model
        with self.attention(), torch.inference_mode(False), torch.enable_grad(), self.placed():
            own = {k: value.clone() if value.is_inference() else value for k, value in check_batch(batch).items()}
            return model.loss(own, task)

    def forward(self, *arguments: Any, **kwargs: Any) -> Any:
        """Compute the module's output; for second order, attention is twice differentiable."""
        with self.attention(), self.placed():
            return self.shared(*arguments, **kwargs)

    @property
    def math_attention(self) -> bool:
        """Whether passes use PyTorch's math kernel for SDPA; the backbone's attention may be set at any time."""
        return not self.first_order and isinstance(self.shared, PEModel) and needs_math(self.shared, self.method)

    def attention(self) -> AbstractContextManager[None]:
        """The kernels of attention that passes may use."""
        return sdpa_kernel(SDPBackend.MATH) if self.math_attention else nullcontext()

    def adapt(self, loss: Tensor) -> None:
        """Take one inner step on the clone's θ_a and θ_h.

        Args:
            loss: a scalar computed with this clone.

        Raises:
            ConfigError: this is the original, which does not adapt.
            NotFiniteError: the loss is not finite.
            ModelError: the loss is not a scalar with a graph, or what a method has added, all of θ_a, or a parameter of
                the task's head has no gradient.
        """
        self._refuse_original()
        check_loss(loss)
        finite(read_numbers([loss]), self.inner_lr)
        self._step(loss)

    @checked()
    def adapt_to(self, batches: Iterable[Batch], task: str, *, wait: bool = True) -> list[float]:
        """Run the inner loop: a step of :meth:`adapt` on each batch, as cheaply as the algorithm allows.

        The hidden states that :meth:`PEModel.reusing` adds are computed once per distinct batch; give the same batch
        several times, or one batch per step. In first order nothing is kept for θ_p's gradient, which the inner loop
        does not need.

        Args:
            batches: batches of the clone's task on its device, one for each step.
            task: name of the task.
            wait: whether to wait for the device and check the losses; if not, that is left to whoever reads them.

        Returns:
            The loss on each batch, before its step; none without ``wait``.

        Raises:
            ConfigError: the module is not a ``PEModel``, this is the original, which does not adapt, or there is no
                batch.
            NotFiniteError: a loss is not finite.
            DataError: a batch has no label.
            ModelError: what a method has added, all of θ_a, or a parameter of the task's head has no gradient; or the
                module has changed.
        """
        self._refuse_original()
        shared, losses = self.model, list[Tensor]()
        if not (batches := list(batches)):  # a sequence that makes its items when asked makes others the next time
            raise ConfigError("the inner loop needs a batch for each of its steps; found none")
        with (
            self._released_on_failure(),
            masks_once(shared.backbone),
            self.theta_p_constant() if self.first_order else nullcontext(),
        ):
            different = {id(batch): batch for batch in batches}
            reused = dict(zip(different, shared.reusing(list(different.values()), self.method), strict=True))
            given = [reused[id(batch)] for batch in batches]
            theta_p = self.partition.theta_p if self.first_order else ()
            with narrow_for(self, theta_p, given, lambda batch: self.loss(batch, task)):
                for batch in given:
                    loss = self.loss(batch, task)
                    losses.append(loss.detach())
                    self._step(loss)
            self.inner_losses = InnerLosses(losses, [batch.get("labels") for batch in batches], self.inner_lr)
            return self.losses if wait else []

    @property
    def losses(self) -> list[float]:
        """The loss before each step of a clone's last :meth:`adapt_to`; the device is waited for."""
        return self.inner_losses.checked(read_numbers(self.inner_losses.measured))

    @contextmanager
    def _released_on_failure(self) -> Iterator[None]:
        """Release the graph on failure, because the error's traceback, or whoever catches it, may keep the clone."""
        try:
            yield
        except BaseException:
            self.values = {name: value.detach() for name, value in self.adapted_parameters().items()}
            self.moments, self.path, self._failed = {}, [], True
            raise

    @contextmanager
    def theta_p_constant(self) -> Iterator[None]:
        """Disable gradients of θ_p, which the original shares, for the inner passes of the block."""
        named, method = self.layout.parameters, self.method
        passes = nullcontext() if method is None else method.inner_passes(self.model.backbone)
        alone = placed(self.shared, self, (), {}, self.verify)  # or another thread's query pass would lose gradients
        with alone, constant([named[name] for name in self.partition.theta_p]), passes:
            yield

    def verify(self) -> None:
        """Refuse a pass of a clone that is no longer connected with the original, and what any learner refuses."""
        if self._failed:
            raise ModelError("an inner loop of this clone has failed and released its graph; make a new clone")
        super().verify()

    def _step(self, loss: Tensor) -> None:
        owned = adapted(self.adapted_parameters(), self.task)
        with torch.inference_mode(False), torch.enable_grad():
            scaled = loss if self.loss_scale == 1 else loss * self.loss_scale
            gradients: tuple[Tensor | None, ...] = torch.autograd.grad(
                scaled, list(owned.values()), create_graph=not self.first_order, allow_unused=True
            )
            found = {name: grad for name, grad in zip(owned, gradients, strict=True) if grad is not None}
            check_used(set(found), self.partition.theta_a, self._owned_heads(), self._one_task, self.shared)
            self.reached |= found.keys()
            if self.loss_scale != 1:
                found = {name: gradient / self.loss_scale for name, gradient in found.items()}
            moved = self.rule.step(owned, found, self.moments, self.steps, self.inner_lr)
        self.steps += 1
        self.values = {**owned, **moved}  # the heads of other tasks stay
        if self.keep_path:
            self.path = [*self.path, self.values]

    def _owned_heads(self) -> tuple[str, ...]:
        """Names of the parameters of heads that this learner adapts."""
        theta_a = set(self.partition.theta_a)
        return tuple(name for name in self._owned if name not in theta_a)

    def adapted_parameters(self) -> dict[str, Tensor]:
        """Current values, by name, of the parameters that this clone adapts: θ_a and its heads."""
        self._refuse_original()
        return dict(self.values or {})

    def _refuse_original(self) -> None:
        if self.values is None:
            raise ConfigError("this learner is the original, which does not adapt; call clone() and adapt the clone")

    @property
    def model(self) -> PEModel:
        """The module, if it has tasks."""
        if not isinstance(self.shared, PEModel):
            raise ConfigError(
                f"a {type(self.shared).__name__} has no tasks; call adapt with a loss for each step, and clone without "
                "a task"
            )
        return self.shared
