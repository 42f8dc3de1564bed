"""transformers' own models for a task, around a backbone."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

from pemeta.errors import ModelError, reason
from pemeta.heads import CausalLM, HeadSpec, SequenceClassification, TokenClassification
from pemeta.model.pe_model import PEModel
from pemeta.utils.hub import quiet

REMEDY = "keep the task as a folder (save_task)"


@dataclass(frozen=True)
class TaskClass:
    """A class of transformers for a kind of task.

    Attributes:
        auto: the class that users load it with.
        task_type: its name in PEFT's files.
        what: the kind of task, in words.
    """

    auto: Any
    task_type: str
    what: str


CLASSES: Mapping[type[HeadSpec], TaskClass] = {
    TokenClassification: TaskClass(AutoModelForTokenClassification, "TOKEN_CLS", "token classification"),
    SequenceClassification: TaskClass(AutoModelForSequenceClassification, "SEQ_CLS", "sequence classification"),
    CausalLM: TaskClass(AutoModelForCausalLM, "CAUSAL_LM", "causal language modelling"),
}
"""The class for each kind of head."""


@dataclass(frozen=True)
class Shell:
    """A model of a task's class on the meta device, with the backbone's place and the head's.

    Attributes:
        model: the model; its own backbone has no values.
        head: name of its only module with parameters beside the backbone.
    """

    model: PreTrainedModel
    head: str

    @property
    def prefix(self) -> str:
        """The backbone's name in the model."""
        return str(self.model.base_model_prefix)

    def fill(self, backbone: nn.Module, head: nn.Module) -> PreTrainedModel:
        """The model in evaluation mode, with this backbone and this head."""
        setattr(self.model, self.prefix, backbone)
        setattr(self.model, self.head, head)
        self.model.eval()
        return self.model


def class_of(spec: HeadSpec) -> TaskClass | None:
    """The class of transformers for a kind of head, if there is one."""
    return next((found for kind, found in CLASSES.items() if isinstance(spec, kind)), None)


def shell_for(backbone: PreTrainedModel, wanted: TaskClass, labels: int | None = None) -> Shell:
    """A model of a task's class without values, for a backbone's architecture.

    Args:
        backbone: the backbone.
        wanted: the class.
        labels: number of labels, where it has labels.

    Raises:
        ModelError: there is none for this architecture, or it has more than one linear map after the backbone.
    """
    config = copy.deepcopy(backbone.config)
    if labels is not None:
        config.num_labels = labels
    try:
        with quiet(), torch.device("meta"), torch.random.fork_rng(devices=[]):
            model = wanted.auto.from_config(config)
    except (ValueError, RuntimeError, AttributeError) as error:
        raise ModelError(
            f"transformers has no {wanted.what} for {config.model_type} ({reason(error)}); {REMEDY}"
        ) from None
    prefix = model.base_model_prefix
    rest = {n: m for n, m in model.named_children() if n != prefix and any(True for _ in m.parameters())}
    if len(rest) != 1 or not isinstance(next(iter(rest.values())), nn.Linear) or not hasattr(model, prefix):
        raise ModelError(
            f"{type(model).__name__} has {', '.join(rest) or 'nothing'} after its backbone where pemeta's head has one "
            f"linear map, so it cannot hold a task; {REMEDY}"
        )
    return Shell(model, next(iter(rest)))


def linear_of(model: PEModel, task: str, shell: Shell) -> nn.Linear:
    """A copy of a task's linear map, in the form that the class has and in the backbone's dtype.

    Raises:
        ModelError: the class has no bias, and the task's is not zero.
    """
    head = model.head(task)
    own: Any = getattr(head, "classifier", head)
    weight, bias = getattr(own, "weight", None), getattr(own, "bias", None)
    if weight is None:  # tied to the word embedding
        embeddings: Any = model.backbone.get_input_embeddings()
        weight = embeddings.weight[: len(own.bias)]
    takes_bias = getattr(shell.model, shell.head).bias is not None
    if not takes_bias and bias is not None and bool(bias.any()):
        raise ModelError(
            f"the head of task {task!r} has a bias (of up to {bias.abs().max():.2g}), which {shell.head} of "
            f"{type(shell.model).__name__} has no place for; {REMEDY}"
        )
    outputs, inputs = weight.shape
    linear: nn.Linear = torch.nn.utils.skip_init(  # which draws no random numbers
        nn.Linear, inputs, outputs, bias=takes_bias, device=weight.device, dtype=next(model.backbone.parameters()).dtype
    )
    with torch.no_grad():
        linear.weight.copy_(weight)
        if linear.bias is not None:
            linear.bias.copy_(bias if bias is not None else torch.zeros_like(linear.bias))
    return linear
