"""A backbone, the PE methods attached to it, and one head per task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pemeta.backbone_checks import check_backbone, refuse_running_statistics
from pemeta.errors import ModelError, reason, shortened, unknown_name
from pemeta.heads import Head, HeadSpec
from pemeta.methods.base import PEMethod
from pemeta.partition import Partition, count
from pemeta.passes import BackbonePasses
from pemeta.saving import MARK, load_model, push_model, save_model
from pemeta.seeding import seeded
from pemeta.task_files import apply_task, read_task, save_task
from pemeta.typing import Batch, State


class PEModel(BackbonePasses):
    """``h(g(f(x; θ_p); θ_a); θ_h)``: backbone f, PE method g, and a head h for each task (paper, §4).

    Args:
        backbone: a Hugging Face encoder, without a pooler where it can do without; it is changed in place.
        method: the method that fine-tuning uses; its modules are attached here.
        seed: of the method's new parameters.

    Attributes:
        autocast_dtype: ``torch.bfloat16`` or ``torch.float16`` to compute in lower precision where PyTorch's autocast
            holds that safe, with parameters, logits and losses as they are; None, as at first, for no such.
        tokenizer_digest: :func:`~pemeta.tokenizer_digest` of the tokenizer that the model's data is encoded with, where
            that is known: saved tasks remember it, and are refused by a model with another. Set it to have yours so.

    Raises:
        ModelError: a method cannot be attached to this backbone, or the backbone has a pooler, is quantised, is spread
            over devices, or has a tuner of the peft package in it already.
    """

    def __init__(self, backbone: PreTrainedModel, method: PEMethod, *, seed: int = 0) -> None:
        check_backbone(backbone)
        super().__init__(backbone)
        vars(backbone.config).pop(MARK, None)  # it is said anew when this model is saved
        self.heads = nn.ModuleDict()
        self._head_specs: dict[str, HeadSpec] = {}
        self.digests: dict[str, str] = {}  # of θ_p as it is to θ_p as it was saved, where it was loaded in another type
        self.tokenizer_digest: str | None = None
        self.method = method
        self.train(backbone.training)  # one mode for all; a loaded backbone is in evaluation mode
        self.attached: tuple[PEMethod, ...] = ()
        self.attach(method, seed=seed)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        method: PEMethod | None = None,
        *,
        seed: int = 0,
        attention: str | None = None,
        dtype: torch.dtype | None = None,
        trust_remote_code: bool = False,
    ) -> PEModel:
        """A saved model, or a method newly attached to a pretrained encoder, from a folder or the Hugging Face hub.

        Args:
            path: what :meth:`save_pretrained` or ``pemeta run`` wrote, or any encoder.
            method: of fine-tuning. By default the saved one. Where it is not among the saved ones, the saved backbone
                gets it newly attached, without what the saved ones added.
            seed: of the parameters of a newly attached method.
            attention: ``eager`` or ``sdpa``; by default transformers chooses.
            dtype: of the parameters; by default what was saved, and float32 for an encoder that pemeta did not save.
            trust_remote_code: run Python code that comes with a model whose architecture is not one of transformers'.

        Raises:
            ModelError: there is no model at ``path``, it cannot be loaded, or it is not a saved one and ``method`` is
                not given.
        """
        return load_model(path, method, seed, attention, dtype, trust_remote_code)

    def save_pretrained(
        self,
        folder: str | Path,
        tokenizer: PreTrainedTokenizerBase | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Write θ_p and θ_a as a folder that :meth:`from_pretrained` reads, and transformers' ``AutoModel`` too.

        Heads are not in it: :meth:`save_task` writes each with the task's own θ_a.

        Args:
            folder: it appears whole or not at all. An earlier model in it is replaced. All other files stay; tasks
                must be of this θ_p and method.
            tokenizer: saved beside the model, as ``pemeta predict`` needs it.
            facts: how the model was made, for its model card.

        Raises:
            ModelError: the tokenizer is another than the one that the model's data was encoded with.
            OutputError: the folder holds something else, or tasks that do not fit, or cannot be written.
        """
        save_model(self, Path(folder), tokenizer, facts)

    def push_to_hub(
        self,
        repo_id: str,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        private: bool | None = None,
        commit_message: str | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> str:
        """Upload what :meth:`save_pretrained` writes to the Hugging Face hub; returns the address.

        Raises:
            OutputError: the hub refuses it.
        """
        return push_model(self, repo_id, tokenizer, private, commit_message, facts)

    def save_task(self, folder: str | Path, task: str, max_length: int | None = None) -> int:
        """Write what one task stores, θ_a and its head, with what these belong to; returns the number of bytes.

        Args:
            folder: such as ``MODEL_DIR/tasks/NAME``, where ``pemeta predict`` finds it; an earlier task is replaced.
            task: one with a head.
            max_length: word pieces per sentence that the task was trained with, for serving.

        Raises:
            ModelError: the task has no head, or one that no :class:`~pemeta.HeadSpec` describes.
            OutputError: the folder holds something else, or cannot be written.
        """
        return save_task(self, Path(folder), task, max_length)

    def load_task(self, folder: str | Path, name: str | None = None) -> str:
        """Take θ_a and the head from a task's folder; returns the task's name.

        θ_a is that of the loaded task from now on: :class:`pemeta.Server` keeps several tasks.

        Args:
            folder: what :meth:`save_task` wrote.
            name: of the task; by default the one that it was saved under.

        Raises:
            ModelError: the folder is not whole, or belongs to another method, θ_p, head or tokenizer.
        """
        return apply_task(self, read_task(self, Path(folder)), name)

    def attach(self, method: PEMethod, *, seed: int = 0) -> None:
        """Attach a method beside those that are: the one that the inner loop simulates, where it is another.

        A method that is attached already stays as it is.

        Raises:
            ModelError: the method cannot be attached to this backbone.
        """
        if method not in self.attached:
            try:
                with seeded(seed, "theta_a", method.name):
                    method.attach(self.backbone)
            except (RuntimeError, OverflowError, MemoryError) as error:
                raise ModelError(
                    f"{method!r} cannot be attached to {type(self.backbone).__name__}: there is not the memory for its "
                    f"parameters ({shortened(reason(error))}); give it fewer"
                ) from None
            self.attached += (method,)
            self.train(self.training)

    def detach(self, method: PEMethod) -> None:
        """Detach a method: the backbone computes what it did before.

        Raises:
            ModelError: the method is not attached.
        """
        self._check_attached(method)
        method.detach(self.backbone)
        self.attached = tuple(other for other in self.attached if other != method)

    def _check_attached(self, method: PEMethod) -> None:
        if method not in self.attached:
            raise ModelError(f"{method!r} is not attached to this model; call attach with it first")

    @property
    def hidden_size(self) -> int:
        """Width D of the hidden states."""
        return int(self.backbone.config.hidden_size)

    def add_head(self, task: str, make: Callable[[int], Head], seed: int = 0) -> None:
        """Give a task a new head, in place of the one it may have.

        Args:
            task: the task's name.
            make: the head for hidden states of a given width; a :class:`~pemeta.HeadSpec` or your own function.
            seed: of the head's initial values; the same seed and task give the same head.

        Raises:
            ModelError: the head cannot stand on this backbone, shares a parameter, or has batch normalisation.
        """
        if not task:
            raise ModelError("a task needs a name; found an empty one")
        with seeded(seed, "head", task):
            head = make(self.hidden_size)
        others = {id(p) for name, p in self.named_parameters() if not name.startswith(f"heads.{_key(task)}.")}
        if any(id(parameter) in others for parameter in head.parameters()):
            raise ModelError(
                f"the head of task {task!r} shares a parameter with the backbone or another head; a parameter belongs "
                "to one of θ_p, θ_a and one head, so make each head anew"
            )
        refuse_running_statistics(head)
        head.check(self.backbone)
        reference = next(self.backbone.parameters())
        self.heads[_key(task)] = head.to(device=reference.device, dtype=reference.dtype).train(self.training)
        head.start_from(self.backbone)
        self._head_specs.pop(task, None)
        if isinstance(make, HeadSpec):
            self._head_specs[task] = make

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that have a head."""
        return tuple(map(_task, self.heads))

    def head(self, task: str) -> Head:
        """The head of a task.

        Raises:
            ModelError: the task has no head.
        """
        if _key(task) not in self.heads:
            raise ModelError(f"{unknown_name('task', task, self.tasks)}; give it a head with add_head")
        head = self.heads[_key(task)]
        assert isinstance(head, Head)  # only add_head puts one there
        return head

    def head_spec(self, task: str) -> HeadSpec:
        """What the head of a task was made from.

        Raises:
            ModelError: the task has no head, or one that no :class:`~pemeta.HeadSpec` describes.
        """
        head = self.head(task)
        if task not in self._head_specs:
            raise ModelError(
                f"the head of task {task!r} is a {type(head).__name__} that was made by a function, which cannot be "
                f"described; make it from a HeadSpec ({', '.join(HeadSpec.members())}, or a subclass of your own)"
            )
        return self._head_specs[task]

    def drop_heads(self) -> None:
        """Forget every head: a target task starts with one of its own."""
        self.heads.clear()
        self._head_specs.clear()

    def head_names(self, task: str) -> tuple[str, ...]:
        """Names of the parameters of one task's head."""
        return tuple(f"{self.head_prefix(task)}.{name}" for name, _ in self.head(task).named_parameters())

    def head_prefix(self, task: str) -> str:
        """Name of a task's head among the modules; its parameters' names begin with it."""
        return f"heads.{_key(task)}"

    def partition(self, method: PEMethod | None = None) -> Partition:
        """θ_p, θ_a and θ_h, where ``method`` (by default the fine-tuning method) declares θ_a.

        A tied parameter is named once. θ_h holds the heads of all tasks.

        Raises:
            ModelError: the method is not attached.
        """
        method = method or self.method
        self._check_attached(method)
        declared = method.theta_a(self.backbone)
        heads = [name for name, _ in self.named_parameters(remove_duplicate=False) if name.startswith("heads.")]
        return Partition.of(self, theta_a=[f"backbone.{name}" for name in declared], theta_h=heads)

    def stored_names(self, task: str) -> tuple[str, ...]:
        """θ_a and the task's own head: what fine-tuning changes and a task keeps."""
        return self.partition().theta_a + self.head_names(task)

    def num_stored(self, task: str) -> int:
        """Number of parameters that one fine-tuned task stores."""
        return count(self, self.stored_names(task))

    def fraction_stored(self, task: str) -> float:
        """What a task stores over all parameters of the model with this head (Table 1's percentages)."""
        parts = self.partition()
        return self.num_stored(task) / count(self, parts.theta_p + parts.theta_a + self.head_names(task))

    def forward(self, batch: Batch, task: str) -> Tensor:
        """Logits of a task: (B, T, C) for token classification, (B, C) for sequences, (B, T, V) for pieces."""
        hidden = self.trunk(batch)
        with self._autocast():
            for method in self.attached:
                hidden = method.transform(self.backbone, hidden)
            logits = self.head(task)(hidden, batch, self.backbone)
        assert isinstance(logits, Tensor)
        return logits if self.autocast_dtype is None else logits.float()

    def loss(self, batch: Batch, task: str) -> Tensor:
        """The task's loss on a batch, a scalar."""
        with self._autocast():
            return self.head(task).loss(self(batch, task), batch)

    def state(self, names: tuple[str, ...] | None = None) -> State:
        """Copies of the named parameters (of all, by default), on the CPU."""
        wanted = None if names is None else set(names)
        return {
            name: parameter.detach().to("cpu", copy=True)
            for name, parameter in self.named_parameters()
            if wanted is None or name in wanted
        }

    def load_state(self, state: State) -> None:
        """Copy values into the parameters of the same names.

        Raises:
            ModelError: a name is not here, or has another shape.
        """
        parameters = dict(self.named_parameters())
        for name, value in state.items():
            if name not in parameters:
                raise ModelError(f"the model has no parameter {name}; this state is from another model or method")
            if parameters[name].shape != value.shape:
                raise ModelError(
                    f"{name} has the shape {tuple(parameters[name].shape)} here and {tuple(value.shape)} in the "
                    "state; this state is from another model or method"
                )
        with torch.no_grad():
            for name, value in state.items():
                parameters[name].copy_(value)


def _key(task: str) -> str:
    """A task's name as a key of a ModuleDict, which takes no dots and no names of its own attributes."""
    return "task_" + task.replace("%", "%25").replace(".", "%2E")


def _task(key: str) -> str:
    return key.removeprefix("task_").replace("%2E", ".").replace("%25", "%")
