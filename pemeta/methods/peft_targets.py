"""The maps of a backbone that a configuration of the ``peft`` package selects."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from typing import Any

from torch import nn

from pemeta.backbone.architectures import layer_names, parts_of
from pemeta.backbone.maps import is_linear
from pemeta.backbone.reach import used_maps
from pemeta.backbone.structure.description import PARTS, Part
from pemeta.errors import ModelError, counted, excerpt
from pemeta.methods.base import is_added

# Keys that do not affect the computation.
METADATA = (
    "peft_type",
    "peft_version",
    "task_type",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "auto_mapping",
    "modules_to_save",
)
INITIALISATIONS = ("init_lora_weights", "eva_config", "corda_config", "lora_ga_config", "loftq_config")
"""Keys of LoRA's initial values, which do not matter once values are loaded."""
ALL_LINEAR = "all-linear"


def refuse_unknown_settings(config: Mapping[str, Any], known: Sequence[str], harmless: Sequence[str]) -> None:
    """Refuse a configuration that sets a key which the method does not read.

    Args:
        config: content of ``adapter_config.json``.
        known: keys that the method reads.
        harmless: keys whose value does not matter once the parameters are loaded.

    Raises:
        ModelError: such a key is set; it is named.
    """
    for key, value in config.items():
        unset = value is None or value is False or value in ("none", {}, [])  # 0 may be a layer's index
        if key not in (*METADATA, *known, *harmless) and not unset:
            if key in _DEFAULTS and value == _DEFAULTS[key]:
                continue
            raise ModelError(
                f"the PEFT configuration sets {key} to {excerpt(value)}, which pemeta's own method cannot represent"
            )


_DEFAULTS = {
    "megatron_core": "megatron.core",
    "qalora_group_size": 16,
    "runtime_config": {"ephemeral_gpu_offload": False},
}
"""Values that PEFT writes into every file, and that have no effect."""


CHANGING = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Starts of LoRA's initialisations that change the backbone's own weights."""


def changes_base(config: Mapping[str, Any]) -> bool:
    """Whether a configuration of LoRA has an initialisation that changes the backbone's own weights."""
    return str(config.get("init_lora_weights", "")).lower().startswith(CHANGING)


def refuse_changed_base(config: Mapping[str, Any]) -> None:
    """Refuse an adapter that belongs to a backbone whose own weights its initialisation changed.

    Raises:
        ModelError: it has such an initialisation.
    """
    if changes_base(config):
        start = str(config["init_lora_weights"])
        plain = "save it in PEFT as a plain LoRA, with path_initial_model_for_weight_conversion, or "
        raise ModelError(
            f"the PEFT configuration sets init_lora_weights to {start!r}, with which PEFT changes the backbone's own "
            f"weights; {'' if start.lower().startswith('loftq') else plain}give the changed backbone (unload() in "
            "PEFT returns it), and set init_lora_weights to true in adapter_config.json"
        )


def targeted_maps(backbone: nn.Module, targets: Sequence[str], top_layers: int | None) -> list[str]:
    """Names of the linear maps that targets select, each a part, a name, the end of a name or a pattern of names.

    Args:
        backbone: the backbone.
        targets: parts of each layer, PEFT's names, or ``all-linear``.
        top_layers: number of layers in which to look, counted from the top; None for all of the backbone.

    Raises:
        ModelError: a target selects nothing, or is a part that was not found in the backbone's layers.
    """
    layers = None if top_layers is None else tuple(f"{layer}." for layer in layer_names(backbone, top_layers))
    if set(targets) <= set(PARTS):
        wanted = list(map(_part, targets))
        return [name for layer in layer_names(backbone, top_layers) for name in _parts(backbone, layer, wanted)]
    every = [name for name, module in backbone.named_modules() if is_linear(module) and not is_added(name)]
    maps = [name for name in every if layers is None or name.startswith(layers)]
    if not maps:
        where = type(backbone).__name__ if layers is None else f"the top layers of {type(backbone).__name__}"
        raise ModelError(f"there is no linear map in {where}; use another method")
    found: set[str] = set()
    for target in targets:
        chosen = _selected(backbone, target, maps)
        if not chosen:
            ends = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in maps))
            raise ModelError(
                f"targets has {target!r}, which is neither a part ({', '.join(PARTS)}) nor the name of a linear map of "
                f"{type(backbone).__name__} ({ends}); give one of these, or all-linear"
            )
        found.update(used_maps(backbone, chosen) if target not in PARTS else chosen)
    return [name for name in maps if name in found]


def _selected(backbone: nn.Module, target: str, maps: Sequence[str]) -> list[str]:
    """The maps that one target selects."""
    if target.lower() == ALL_LINEAR:
        return list(maps)
    if target in PARTS:
        parts = {name for layer in layer_names(backbone) for name in _parts(backbone, layer, [_part(target)])}
        return [name for name in maps if name in parts]
    named = [name for name in maps if name == target or name.endswith(f".{target}")]
    try:
        return named or [name for name in maps if re.fullmatch(target, name)]
    except re.error:
        return []


def _parts(backbone: nn.Module, layer: str, parts: Sequence[Part]) -> list[str]:
    """Full names of the maps of a layer that are these parts, each once."""
    found = parts_of(backbone, layer)
    return list(dict.fromkeys(f"{layer}.{name}" for part in parts for name in found.part(part)))


def _part(target: str) -> Part:
    return next(part for part in PARTS if part == target)


def matched_modules(backbone: nn.Module, config: Mapping[str, Any], key: str = "target_modules") -> list[str]:
    """Names of the backbone's modules that ``config[key]`` selects by full names, ends of names, or a pattern.

    Raises:
        ModelError: it selects none.
    """
    wanted = config.get(key)
    names = [name for name, module in backbone.named_modules() if name and getattr(module, "weight", None) is not None]
    if isinstance(wanted, str):
        # PEFT's names are relative to the model that it wraps, in which the backbone has a name of its own.
        prefixes = {"", "model.", f"{getattr(backbone, 'base_model_prefix', '')}."}
        found = [name for name in names if any(re.fullmatch(wanted, f"{prefix}{name}") for prefix in prefixes)]
    else:
        found = [n for n in names if any(n == w or n.endswith(f".{w}") or w.endswith(f".{n}") for w in wanted or ())]
    if not found:
        raise ModelError(
            f"the PEFT configuration's {key} ({excerpt(wanted)}) matches no module of {type(backbone).__name__}; load "
            "the backbone that it was trained on"
        )
    return found


def parts_and_layers(names: Sequence[str], backbone: nn.Module) -> tuple[tuple[Part, ...], int | None]:
    """The parts and the number of top layers (None for all) that together are exactly these modules.

    Raises:
        ModelError: the modules are not the same parts in each of the top layers.
    """
    layers, wanted = list(layer_names(backbone)), set(names)
    touched = [layer for layer in layers if any(name.startswith(f"{layer}.") for name in wanted)]
    chosen = tuple(part for part in PARTS if touched and all(_has(backbone, layer, part, wanted) for layer in touched))
    covered = {name for layer in touched for name in _parts(backbone, layer, chosen)}
    if covered != wanted or touched != layers[len(layers) - len(touched) :]:
        odd = sorted(covered ^ wanted)
        raise ModelError(
            f"the PEFT configuration selects {counted(len(wanted), 'module')}, but not the same parts in each of the "
            f"top layers (e.g. {odd[0] if odd else touched[0]}); use the method peft instead"
        )
    return chosen, None if len(touched) == len(layers) else len(touched)


def _has(backbone: nn.Module, layer: str, part: Part, wanted: Set[str]) -> bool:
    """Whether all maps of a layer that are this part are wanted, and there are some."""
    try:
        return wanted >= set(_parts(backbone, layer, [part]))
    except ModelError:
        return False
