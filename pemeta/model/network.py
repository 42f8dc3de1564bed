"""A backbone, the PE methods attached to it, and one head per task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from typing_extensions import Self

from pemeta.backbone.checks import check_backbone, check_batch
from pemeta.backbone.given import output_width
from pemeta.backbone.language_models import carry, taken_apart
from pemeta.backbone.layer_reuse import TRANSFORMED, is_compiled
from pemeta.backbone.quantised import without_quantised
from pemeta.errors import ModelError, excerpt, unknown_name
from pemeta.heads import Head, HeadSpec
from pemeta.heads.making import head_maker, made_head, require_task_name
from pemeta.methods.base import PEMethod, is_added
from pemeta.model.attaching import attach_whole
from pemeta.model.forward import BackboneForward
from pemeta.model.manifest import MARK
from pemeta.model.ownership import claim, require_free
from pemeta.model.partition import Partition
from pemeta.typing import Batch, State
from pemeta.utils.modules import calls_only, count, load_values, module_key, name_of_key, parameter_dict
from pemeta.utils.precision import casts_itself, kept_wide, wide, wide_dtype
from pemeta.utils.seeding import seeded
from pemeta.utils.signatures import checked


class Network(BackboneForward):
    """What :class:`~pemeta.PEModel` is without its files, with the same arguments, attributes and errors."""

    @checked(backbone=None, method=None)
    def __init__(self, backbone: PreTrainedModel, method: PEMethod, *, seed: int = 0) -> None:
        check_backbone(backbone)
        method = PEMethod.parse(method)
        backbone, output = taken_apart(backbone)
        check_backbone(backbone)
        require_free(backbone)
        super().__init__(backbone)
        self.output = output
        carry(backbone, output)
        vars(backbone.config).pop(MARK, None)  # saving this model sets it again
        self.heads = nn.ModuleDict()
        self._head_specs: dict[str, HeadSpec] = {}
        self._shared_heads: dict[str, str] = {}  # tasks without a head of their own, and the task whose head they use
        self._saved_digests: dict[str, str] = {}
        self.tokenizer_digest: str | None = None
        self.method = method
        self.train(backbone.training)  # the same mode for all parts; a loaded backbone is in evaluation mode
        self.attached: tuple[PEMethod, ...] = ()
        self.attach(method, seed=seed)

    @checked(method=None)
    def attach(self, method: PEMethod, *, seed: int = 0) -> None:
        """Attach another method, e.g. the one that the inner loop simulates if fine-tuning uses a different one.

        A method that is already attached is left unchanged.

        Raises:
            ModelError: the method cannot be attached to this backbone, the backbone is compiled, or it has got another
                model.
        """
        method = PEMethod.parse(method)
        if method not in self.attached:
            require_free(self.backbone, self)
            self._refuse_compiled(method)
            attach_whole(method, self.backbone, seed)
            self.attached += (method,)
            claim(self.backbone, self)
            self.train(self.training)

    @checked()
    def detach(self, method: PEMethod) -> None:
        """Detach a method, so that the backbone computes what it did before.

        Raises:
            ModelError: the method is not attached, or the backbone is compiled.
        """
        self._check_attached(method)
        self._refuse_compiled(method)
        method.detach(self.backbone)
        self.attached = tuple(other for other in self.attached if other != method)
        claim(self.backbone, self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call] # of a copy, or of what was pickled
        claim(self.backbone, self)
        carry(self.backbone, self.output)

    def _check_attached(self, method: PEMethod) -> None:
        if method not in self.attached:
            raise ModelError(f"{excerpt(method, 200)} is not attached to this model; attach it first")

    def _refuse_compiled(self, method: PEMethod) -> None:
        """Refuse to change the modules of a compiled backbone: a graph that it has run with would not notice hooks."""
        if method.adds_modules and is_compiled(self.backbone):
            raise ModelError(
                f"this {type(self.backbone).__name__} is compiled, and its graph could ignore that {method.name} is "
                "attached or detached; do this before calling compile()"
            )

    @property
    def hidden_size(self) -> int:
        """Width D of the hidden states."""
        width = output_width(self.backbone)
        assert width is not None  # or it would not be a backbone
        return width

    @checked(task=None, make=None)
    def add_head(self, task: str, make: Callable[[int], Head], seed: int = 0) -> None:
        """Give a task a new head, which replaces the one it has, if any.

        Args:
            task: the task's name.
            make: returns a head for a given width of the hidden states; a :class:`~pemeta.HeadSpec` or your own
                function.
            seed: seed of the head's initial values; the same seed and task give the same head.

        Raises:
            ConfigError: ``make`` is no function, and no description of a head.
            ModelError: the head does not work with this backbone, shares a parameter, or has batch normalisation.
        """
        require_task_name(task)
        make = head_maker(make)
        with seeded(seed, "head", task):
            head = made_head(task, make, self.hidden_size, self.backbone)
        kept = task in self._shared_heads.values()  # by other tasks
        replaced = () if kept else (f"heads.{module_key(task)}.",)
        others = {id(p) for name, p in self.named_parameters() if not name.startswith(replaced)}
        if any(id(parameter) in others for parameter in head.parameters()):
            raise ModelError(
                f"the head of task {task!r} shares a parameter with the backbone or another head, but a parameter must "
                "belong to only one of θ_p, θ_a and the heads; create a separate head for each task"
            )
        head.check(self.backbone)
        reference = next(self.backbone.parameters())
        if kept:
            self.drop_head(task)
        self.heads[module_key(task)] = head.to(reference.device, wide_dtype(reference.dtype)).train(self.training)
        head.start_from(self.backbone)
        self._head_specs.pop(task, None)
        self._shared_heads.pop(task, None)
        if isinstance(make, HeadSpec):
            self._head_specs[task] = make

    @checked(task=None)
    def share_head(self, task: str, owner: str) -> None:
        """Let a task use the head of another one, in place of one of its own, which is dropped if there is one.

        Raises:
            ModelError: the owner has no head, or the task no name.
        """
        require_task_name(task)
        owner = self._shared_heads.get(owner, owner)
        self.head(owner)
        if task in self.tasks and task != owner:
            self.drop_head(task)
        if task != owner:
            self._shared_heads[task] = owner

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that have a head, those that use another task's last."""
        return (*map(name_of_key, self.heads), *self._shared_heads)

    def head(self, task: str) -> Head:
        """The head of a task.

        Raises:
            ModelError: the task has no head.
        """
        key = self._head_key(task)
        if key not in self.heads:
            raise ModelError(f"{unknown_name('task', task, self.tasks)}; give it a head with add_head")
        head = self.heads[key]
        assert isinstance(head, Head)  # only add_head puts one there
        return head

    def head_spec(self, task: str) -> HeadSpec:
        """The specification that the head of a task was made from.

        Raises:
            ModelError: the task has no head, or its head was not made from a :class:`~pemeta.HeadSpec`.
        """
        head, owner = self.head(task), self._shared_heads.get(task, task)
        if owner not in self._head_specs:
            raise ModelError(
                f"the head of task {task!r} is a {type(head).__name__} that was made by a function, so it cannot be "
                f"saved; make it from a HeadSpec ({', '.join(HeadSpec.members())}, or your own subclass)"
            )
        return self._head_specs[owner]

    @checked()
    def drop_head(self, task: str) -> None:
        """Remove one task's head.

        Raises:
            ModelError: the task has no head.
        """
        self.head(task)
        if self._shared_heads.pop(task, None) is not None:
            return
        head, spec = self.heads.pop(module_key(task)), self._head_specs.pop(task, None)
        sharing = [other for other, owner in self._shared_heads.items() if owner == task]
        if not sharing:
            return
        heir, *rest = sharing  # the next task that uses the head owns it from now on
        del self._shared_heads[heir]
        self.heads[module_key(heir)] = head
        self._shared_heads.update(dict.fromkeys(rest, heir))
        if spec is not None:
            self._head_specs[heir] = spec

    def drop_heads(self) -> None:
        """Remove all heads, because a target task starts with its own."""
        self.heads.clear()
        self._head_specs.clear()
        self._shared_heads.clear()

    def head_names(self, task: str) -> tuple[str, ...]:
        """Names of the parameters of one task's head."""
        return tuple(f"{self.head_prefix(task)}.{name}" for name, _ in self.head(task).named_parameters())

    def head_prefix(self, task: str) -> str:
        """Name of a task's head as a module, with which the names of its parameters begin."""
        return f"heads.{self._head_key(task)}"

    def _head_key(self, task: object) -> str:
        """The key of the head that a task uses; empty for what is no name."""
        return module_key(self._shared_heads.get(task, task)) if isinstance(task, str) else ""

    @checked()
    def partition(self, method: PEMethod | None = None) -> Partition:
        """The partition into θ_p, θ_a and θ_h, where ``method`` (by default the fine-tuning method) declares θ_a.

        A tied parameter appears once. θ_h includes the heads of all tasks.

        Raises:
            ModelError: the method is not attached.
        """
        method = method or self.method
        self._check_attached(method)
        output = self.output if method.adapts_output else None
        declared = [f"backbone.{name}" for name in method.theta_a(self.backbone)]
        declared += [] if output is None else [f"output.{name}" for name, _ in output.named_parameters()]
        heads = [name for name, _ in self.named_parameters(remove_duplicate=False) if name.startswith("heads.")]
        return Partition.of(self, theta_a=declared, theta_h=heads)

    def stored_names(self, task: str) -> tuple[str, ...]:
        """Names of the parameters that fine-tuning changes and a task stores: θ_a and the task's own head."""
        return self.partition().theta_a + self.head_names(task)

    def num_stored(self, task: str) -> int:
        """Number of parameters that one fine-tuned task stores."""
        return count(self, self.stored_names(task))

    def fraction_stored(self, task: str) -> float:
        """Fraction of the parameters, with only this task's head, that the task stores (Table 1's percentages)."""
        parts = self.partition()
        return self.num_stored(task) / count(self, parts.theta_p + parts.theta_a + self.head_names(task))

    def forward(self, batch: Batch, task: str) -> Tensor:
        """Logits of a task: (B, T, C) for token, (B, C) for sequence classification, (B, T, V) for language models."""
        with self._autocast():
            logits: Tensor = self.head(task)(self.transformed(batch), batch, self.backbone)
        return wide(logits) if self.autocast_dtype is None else logits.float()

    def transformed(self, batch: Batch) -> Tensor:
        """Hidden states (B, T, D) as the heads get them: those that the batch holds, if it does."""
        check_batch(batch)
        if TRANSFORMED in batch:
            return batch[TRANSFORMED]
        hidden = self.hidden_states(batch)
        with self._autocast():
            # Methods and heads are in float32, also if the backbone is not.
            hidden = hidden if casts_itself(hidden) else wide(hidden)
            for method in self.attached:
                hidden = method.transform(self.backbone, hidden)
        return hidden

    def loss(self, batch: Batch, task: str) -> Tensor:
        """The task's loss on a batch, as a scalar; a language model's without the logits of unlabelled positions."""
        head = self.head(task)
        with self._autocast():
            if head.learns_from_few and calls_only(self, Network.forward):
                return head.loss_of(self.transformed(batch), batch, self.backbone)
            return head.loss(self(batch, task), batch)

    @checked()
    def state(self, names: tuple[str, ...] | None = None) -> State:
        """Copies of the named parameters on the CPU: by default of all but quantised ones, which nothing changes."""
        parameters = without_quantised(dict(self.named_parameters()) if names is None else parameter_dict(self, names))
        return {name: parameter.detach().to("cpu", copy=True) for name, parameter in parameters.items()}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or convert all parameters; of a model in half precision, added ones and heads stay in float32."""
        own = [name for name, _ in self.named_parameters() if name.startswith("heads.") or is_added(name)]
        with kept_wide(self, own):
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    @checked()
    def load_state(self, state: State) -> None:
        """Copy values into the parameters with the same names.

        Raises:
            ModelError: the model has no parameter of a name, or its shape differs.
        """
        load_values(self, state)

    @checked()
    def record_saved_digest(self, digest: str, saved: str) -> None:
        """Record that θ_p was saved with the digest ``saved``, and has ``digest`` only since its dtype was converted.

        Tasks that belong to the saved θ_p then still fit this model; see :meth:`saved_digest`.
        """
        self._saved_digests[digest] = saved

    @checked()
    def saved_digest(self, digest: str) -> str:
        """The recorded digest with which θ_p was saved, if its digest is now ``digest``; by default the same."""
        return self._saved_digests.get(digest, digest)
