"""The maps of a backbone that a configuration of the ``peft`` package selects."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from pemeta.backbone.architectures import PARTS, Part, architecture_of, layer_names
from pemeta.errors import ModelError

# Keys that do not affect the computation.
_METADATA = (
    "peft_type",
    "peft_version",
    "task_type",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "auto_mapping",
    "modules_to_save",
)


def refuse_unknown_settings(config: Mapping[str, Any], known: Sequence[str], harmless: Sequence[str]) -> None:
    """Refuse a configuration that sets a key which the method does not read.

    Args:
        config: content of ``adapter_config.json``.
        known: keys that the method reads.
        harmless: keys whose value does not matter once the parameters are loaded.

    Raises:
        ModelError: such a key is set; it is named.
    """
    unset: tuple[Any, ...] = (None, False, 0, 0.0, "none", {}, [])
    for key, value in config.items():
        if key not in (*_METADATA, *known, *harmless) and value not in unset:
            if key in _DEFAULTS and value == _DEFAULTS[key]:
                continue
            raise ModelError(
                f"the PEFT configuration sets {key} to {value!r}, which pemeta's own method cannot represent; "
                "use the method peft, which accepts any configuration of that package"
            )


_DEFAULTS = {
    "loftq_config": {},
    "megatron_core": "megatron.core",
    "qalora_group_size": 16,
    "runtime_config": {"ephemeral_gpu_offload": False},
}
"""Values that PEFT writes into every file, and that have no effect."""


def matched_modules(backbone: nn.Module, config: Mapping[str, Any], key: str = "target_modules") -> list[str]:
    """Names of the backbone's modules that ``config[key]`` selects by full names, ends of names, or a pattern.

    Raises:
        ModelError: it selects none.
    """
    wanted = config.get(key)
    names = [name for name, module in backbone.named_modules() if name and getattr(module, "weight", None) is not None]
    if isinstance(wanted, str):
        # PEFT's names are relative to the model that it wraps, in which the backbone may be called "model".
        found = [name for name in names if re.fullmatch(wanted, name) or re.fullmatch(wanted, f"model.{name}")]
    else:
        found = [n for n in names if any(n == w or n.endswith(f".{w}") or w.endswith(f".{n}") for w in wanted or ())]
    if not found:
        raise ModelError(
            f"the PEFT configuration's {key} ({wanted!r}) matches no module of {type(backbone).__name__}; load the "
            "backbone that it was trained on"
        )
    return found


def parts_and_layers(names: Sequence[str], backbone: nn.Module) -> tuple[tuple[Part, ...], int | None]:
    """The parts and the number of top layers (None for all) that together are exactly these modules.

    Raises:
        ModelError: the modules are not the same parts in each of the top layers.
    """
    parts, layers = architecture_of(backbone), list(layer_names(backbone))
    wanted = set(names)
    touched = [layer for layer in layers if any(name.startswith(f"{layer}.") for name in wanted)]
    within = {name.removeprefix(f"{layer}.") for layer in touched for name in wanted if name.startswith(f"{layer}.")}
    chosen = tuple(part for part in PARTS if within.issuperset(parts.part(part)))
    covered = {f"{layer}.{name}" for layer in touched for part in chosen for name in parts.part(part)}
    if covered != wanted or touched != layers[len(layers) - len(touched) :]:
        odd = sorted(covered ^ wanted)
        raise ModelError(
            f"the PEFT configuration selects {len(wanted)} modules that are not the same parts in each of the top "
            f"layers (e.g. {odd[0] if odd else touched[0]}); use the method peft instead"
        )
    return chosen, None if len(touched) == len(layers) else len(touched)
