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
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

from pemeta.errors import ModelError, reason
from pemeta.heads import CausalLM, HeadSpec, MaskedLM, SequenceClassification, TokenClassification
from pemeta.utils.hub import quiet

REMEDY = "keep the task as a folder (save_task)"
MOST_MAPS = 2
"""Linear maps after a backbone that a task's one map can be put into."""


@dataclass(frozen=True)
class TaskClass:
    """A class of transformers for a kind of task.

    Attributes:
        auto: the class that users load it with.
        task_type: its name in PEFT's files; None if it has none.
        what: the kind of task, in words.
    """

    auto: Any
    task_type: str | None
    what: str


CLASSES: Mapping[type[HeadSpec], TaskClass] = {
    TokenClassification: TaskClass(AutoModelForTokenClassification, "TOKEN_CLS", "token classification"),
    SequenceClassification: TaskClass(AutoModelForSequenceClassification, "SEQ_CLS", "sequence classification"),
    CausalLM: TaskClass(AutoModelForCausalLM, "CAUSAL_LM", "causal language modelling"),
    MaskedLM: TaskClass(AutoModelForMaskedLM, None, "masked language modelling"),
}
"""The class for each kind of head."""
BY_TASK_TYPE: Mapping[str, TaskClass] = {
    **{found.task_type: found for found in CLASSES.values() if found.task_type is not None},
    "QUESTION_ANS": TaskClass(AutoModelForQuestionAnswering, "QUESTION_ANS", "question answering"),
}
"""The classes by their names in PEFT's files."""


@dataclass(frozen=True)
class Shell:
    """A model of a task's class on the meta device, with the places of the backbone and of what follows it.

    Attributes:
        model: the model; its own backbone has no values.
        places: names of its linear maps beside the backbone's, in their order; the last one gives the logits.
        beside: parts of the class's own backbone that this one lacks and the class needs, such as a pooler.
    """

    model: PreTrainedModel
    places: tuple[str, ...]
    beside: Mapping[str, nn.Module]

    @property
    def prefix(self) -> str:
        """The backbone's name in the model."""
        return str(self.model.base_model_prefix)

    @property
    def head(self) -> str:
        """Name of the part whose maps give the logits, directly in the model."""
        return self.places[-1].partition(".")[0]

    def fill(self, backbone: nn.Module, *maps: nn.Module) -> PreTrainedModel:
        """The model in evaluation mode, with this backbone, which is not changed, and a map for each place."""
        if self.beside:
            backbone = _twin(backbone)
            for name, part in self.beside.items():
                setattr(backbone, name, copy.deepcopy(part))
        setattr(self.model, self.prefix, backbone)
        for place, new in zip(self.places, maps, strict=True):
            parent, _, name = place.rpartition(".")
            setattr(self.model.get_submodule(parent), name, new)
        self.model.eval()
        return self.model


def _twin(module: nn.Module) -> nn.Module:
    """A module with the same parts and parameters, which can be given further parts by itself."""
    twin = copy.copy(module)
    for held in ("_modules", "_parameters", "_buffers"):
        vars(twin)[held] = dict(vars(module)[held])
    return twin


def class_of(spec: HeadSpec) -> TaskClass | None:
    """The class of transformers for a kind of head, if there is one."""
    return next((found for kind, found in CLASSES.items() if isinstance(spec, kind)), None)


def shell_for(backbone: PreTrainedModel, wanted: TaskClass, labels: int | None = None, pad: int | None = None) -> Shell:
    """A model of a task's class without values, for a backbone's architecture.

    Args:
        backbone: the backbone.
        wanted: the class.
        labels: number of labels, where it has labels.
        pad: id of the token that pads, where the configuration does not have it.

    Raises:
        ModelError: there is none for this architecture, or it does more than linear maps after the backbone.
    """
    model = _empty(backbone, wanted, labels, pad)
    prefix = model.base_model_prefix
    own = getattr(model, prefix, None)
    beside = {} if own is None else _lacking(own, backbone)
    after = {n: m for n, m in model.named_children() if n != prefix and any(True for _ in m.parameters())}
    after = {**{f"{prefix}.{name}": part for name, part in beside.items()}, **after}
    places = [name for top, part in after.items() for name in _linear_maps(top, part)]
    if own is None or not 1 <= len(places) <= MOST_MAPS or "" in places:
        raise ModelError(
            f"{type(model).__name__} has {', '.join(after) or 'nothing'} after its backbone where pemeta's head has "
            f"one linear map, so it cannot hold a task; {REMEDY}"
        )
    return Shell(model, tuple(places), beside)


def place_of(backbone: PreTrainedModel, wanted: TaskClass) -> Shell:
    """A model of a class as by :func:`shell_for`, of which only the backbone's place is of interest.

    Raises:
        ModelError: there is none for this architecture.
    """
    model = _empty(backbone, wanted)
    if not hasattr(model, model.base_model_prefix):
        raise ModelError(f"{type(model).__name__} has no place for the whole backbone; {REMEDY}")
    return Shell(model, (), {})


def _empty(
    backbone: PreTrainedModel, wanted: TaskClass, labels: int | None = None, pad: int | None = None
) -> PreTrainedModel:
    """A model of a class without values."""
    config = copy.deepcopy(backbone.config)
    if labels is not None:
        config.num_labels = labels
    if pad is not None:
        config.get_text_config().pad_token_id = pad
    try:
        with quiet(), torch.device("meta"), torch.random.fork_rng(devices=[]):
            model = wanted.auto.from_config(config)
    except (ValueError, RuntimeError, AttributeError) as error:
        raise ModelError(
            f"transformers has no {wanted.what} for {config.model_type} ({reason(error)}); {REMEDY}"
        ) from None
    return model  # type: ignore[no-any-return]


def _lacking(own: nn.Module, backbone: nn.Module) -> dict[str, nn.Module]:
    """The parts with parameters of a class's own backbone that another one of its kind lacks."""
    return {
        name: part
        for name, part in own.named_children()
        if getattr(backbone, name, None) is None and any(True for _ in part.parameters())
    }


def _linear_maps(top: str, part: nn.Module) -> list[str]:
    """Names of the linear maps in a part; an empty one for anything else that has parameters."""
    holders = [(name, inner) for name, inner in part.named_modules() if any(True for _ in inner.parameters(False))]
    return [(f"{top}.{name}" if name else top) if isinstance(inner, nn.Linear) else "" for name, inner in holders]
