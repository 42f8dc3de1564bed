"""The class of transformers that an adapter in PEFT's files is for: where the backbone is in it, and the head."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn
from transformers import PreTrainedModel

from pemeta.backbone.language_models import find_output
from pemeta.deploy.class_heads import filled, pretrained_output
from pemeta.errors import ModelError
from pemeta.heads import CausalLMHead
from pemeta.model.pe_model import PEModel
from pemeta.model.task_classes import BY_TASK_TYPE, Shell, class_of, place_of, shell_for
from pemeta.utils.modules import modes_kept


@dataclass(frozen=True)
class AdapterClass:
    """A class that users load an adapter into.

    Attributes:
        kind: PEFT's name of the kind of task; None if it has none for it.
        prefix: the backbone's name in the class; empty for the backbone itself.
        around: a function that gives a model of the class around a backbone, as users have it before the adapter.
        names: names of all modules of the class.
        maps: the task's linear maps that the adapter's files hold, by their places.
    """

    kind: str | None
    prefix: str
    around: Callable[[PreTrainedModel], PreTrainedModel]
    names: Sequence[str] = ()
    maps: Mapping[str, nn.Linear] = field(default_factory=dict)

    @property
    def within(self) -> str:
        """What the names of the backbone's parts begin with."""
        return f"{self.prefix}." if self.prefix else ""

    def short_names(self, paths: Sequence[str]) -> list[str]:
        """The ends of names (``q_proj``) that select exactly these maps in the class, as servers of LoRA expect them.

        Args:
            paths: names of maps within the backbone, which are returned if no ends do.
        """
        wanted = {f"{self.within}{path}" for path in paths}
        for parts in (1, 2):
            ends = sorted({".".join(path.split(".")[-parts:]) for path in paths})
            found = {name for name in self.names if any(name == end or name.endswith(f".{end}") for end in ends)}
            if found == wanted:
                return ends
        return list(paths)

    def saved_parts(self) -> list[str]:
        """The parts that hold the maps, which are directly in the class or in its backbone."""
        inner = [place.removeprefix(self.within) for place in self.maps]
        return list(dict.fromkeys(name.partition(".")[0] for name in inner))


def adapter_class(model: PEModel, task: str | None, task_type: str | None) -> AdapterClass:
    """The class for a task's adapter, or for θ_a alone.

    Args:
        model: the model.
        task: a task, whose head becomes part of what users load; None for θ_a alone.
        task_type: PEFT's name of the class that θ_a alone is for; by default by the model's tasks.

    Raises:
        ModelError: transformers has no such class for the head or the architecture, or it computes other logits.
    """
    if task is None:
        return _of_theta_a(model, task_type)
    spec = model.head_spec(task)
    wanted = class_of(spec)
    if wanted is None:
        raise ModelError(
            f"task {task!r} has the head {spec.name!r}, of which transformers has no equal; omit task to write θ_a "
            "alone, or use save_task"
        )
    output = pretrained_output(model, task)
    if output is not None:
        whole = output.around(model.backbone)
        return AdapterClass(wanted.task_type, whole.base_model_prefix, output.around, _names(whole))
    labels = getattr(spec, "labels", None)
    shell = shell_for(model.backbone, wanted, None if labels is None else len(labels))
    with modes_kept(model):
        _, maps = filled(model, task, shell, model.backbone)
    tied = all(parameter.dim() < 2 for parameter in model.head(task).parameters())
    before = maps if tied else [_emptied(one) for one in maps]
    written = {} if tied else dict(zip(shell.places, maps, strict=True))
    return _of_shell(wanted.task_type, shell, before, written)


def _of_theta_a(model: PEModel, task_type: str | None) -> AdapterClass:
    language = bool(model.tasks) and all(isinstance(model.head(one), CausalLMHead) for one in model.tasks)
    kind = task_type or ("CAUSAL_LM" if language else "FEATURE_EXTRACTION")
    if kind == "CAUSAL_LM" and not isinstance(output := find_output(model.backbone, "causal_lm"), str):
        whole = output.around(model.backbone)
        return AdapterClass(kind, whole.base_model_prefix, output.around, _names(whole))
    if kind in BY_TASK_TYPE:
        return _of_shell(kind, place_of(model.backbone, BY_TASK_TYPE[kind]), [], {})
    reads_tokens = getattr(model.backbone, "main_input_name", "input_ids") == "input_ids"
    return AdapterClass(kind if reads_tokens else None, "", lambda backbone: backbone)


def _of_shell(
    kind: str | None, shell: Shell, before: Sequence[nn.Linear], written: Mapping[str, nn.Linear]
) -> AdapterClass:
    names = _names(shell.model)
    return AdapterClass(kind, shell.prefix, lambda backbone: shell.fill(backbone, *before), names, written)


def _names(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_modules()]


def _emptied(head: nn.Linear) -> nn.Linear:
    """A linear map of zeros in the place of one, which peft has to fill from the file."""
    empty = copy.deepcopy(head)
    for parameter in empty.parameters():
        parameter.data.zero_()
    return empty
