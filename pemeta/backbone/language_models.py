"""Language models of transformers as a backbone and an output map, and output maps of backbones that came without."""

from __future__ import annotations

import copy
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from pemeta.backbone.output_kinds import CLASSES, OutputKind, kinds_of
from pemeta.backbone.output_map import OutputMap
from pemeta.backbone.output_matrix import other_matrix_in_folder
from pemeta.backbone.output_trial import refuse_other_logits, try_factors
from pemeta.errors import ModelError, clause
from pemeta.utils.hub import quiet

_carried: WeakKeyDictionary[nn.Module, OutputMap | None] = WeakKeyDictionary()
"""The output maps of the models that backbones belong to, which have parameters of their own or none."""
_derived: WeakKeyDictionary[nn.Module, OutputMap | str] = WeakKeyDictionary()
"""Output maps without own parameters for backbones that came without one, or why there is none."""
_by_configuration: dict[tuple[type, str], OutputMap | str] = {}


def taken_apart(model: PreTrainedModel) -> tuple[PreTrainedModel, OutputMap | None]:
    """The backbone of a language model and its output map; of anything else, itself and None.

    Raises:
        ModelError: the logits are not a function of the backbone's last hidden states, or nothing is known of them.
    """
    kinds, base = kinds_of(model), getattr(model, "base_model", model)
    if not kinds or base is model:
        return model, None
    output = OutputMap(model, kinds)
    refuse_other_logits(model, output)
    try_factors(output, base)
    return base, output


def carry(backbone: nn.Module, output: OutputMap | None) -> None:
    """Let a backbone's passes have this output map, or none, from now on."""
    _carried[backbone] = output


def output_of(backbone: nn.Module, kind: OutputKind) -> OutputMap:
    """The output map of a backbone, for a kind of language modelling.

    That is the one of the language model that it came in. A backbone that came without has one too if all parameters
    of transformers' own causal language model are in the backbone: if its output matrix is the word embedding.

    Raises:
        ModelError: there is none; the message says why.
    """
    found = find_output(backbone, kind)
    if isinstance(found, str):
        raise ModelError(found)
    return found


def find_output(backbone: nn.Module, kind: OutputKind) -> OutputMap | str:
    """The same, or the reason why there is none."""
    carried = _carried.get(backbone)
    if carried is not None and kind in carried.kinds:
        return carried
    remedy = f"make the model of the whole one, PEModel({_auto(kind)}.from_pretrained(...), method)"
    name = type(backbone).__name__
    if carried is not None:
        return f"this {name} is that of a {carried.name}, whose output is not for {kind}; {remedy}"
    if kind == "masked_lm":
        return f"this {name} came without the head that it was trained with; {remedy}, or use a head with output='new'"
    if backbone not in _derived:
        _derived[backbone] = _derive(backbone)
    found = _derived[backbone]
    return f"this {name} came without an output map, and {found}; {remedy}" if isinstance(found, str) else found


def _auto(kind: OutputKind) -> str:
    return "AutoModelForCausalLM" if kind == "causal_lm" else "AutoModelForMaskedLM"


def _derive(backbone: nn.Module) -> OutputMap | str:
    config: Any = getattr(backbone, "config", None)
    if not isinstance(config, PreTrainedConfig) or type(config) not in CLASSES["causal_lm"]:
        return "transformers has no language model for it"
    key = type(config), config.to_json_string()
    if key not in _by_configuration:
        _by_configuration[key] = _of_configuration(config)
    found = _by_configuration[key]
    if isinstance(found, str):
        return found
    if not isinstance(backbone, found.base):
        return f"{found.name} has another backbone, {found.base.__name__}"
    if (other := other_matrix_in_folder(backbone)) is not None:
        return other
    # A copy, for a trial with this backbone's values.
    made = copy.deepcopy(found)
    try_factors(made, backbone)
    return made


def _of_configuration(config: PreTrainedConfig) -> OutputMap | str:
    try:
        with quiet(), torch.device("meta"):
            whole = AutoModelForCausalLM.from_config(
                copy.deepcopy(config), attn_implementation="eager", dtype=torch.float32
            )
        output = OutputMap(whole, kinds_of(whole))
    except Exception as error:
        return f"that of transformers cannot be made ({clause(error)})"
    own = next((name for name, _ in (*output.named_parameters(), *output.named_buffers())), None)
    if own is not None:
        return f"{output.name} has parameters of its own there ({own})"
    return output.eval()
