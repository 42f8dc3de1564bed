"""Which maps of a backbone a configuration of the ``peft`` package means."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from pemeta.backbone.architectures import PARTS, Part, architecture_of, layer_names
from pemeta.errors import ModelError

# Keys that say nothing about what is computed.
_ABOUT = (
    "peft_type",
    "peft_version",
    "task_type",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "auto_mapping",
    "modules_to_save",
)


def plain(config: Mapping[str, Any], known: Sequence[str], harmless: Mapping[str, Any]) -> None:
    """Refuse what a method cannot represent: a key that is set, and that it does not read.

    Args:
        config: of ``adapter_config.json``.
        known: keys that the method reads.
        harmless: keys whose value does not matter once the parameters are there.

    Raises:
        ModelError: such a key is set; it is named.
    """
    unset: tuple[Any, ...] = (None, False, 0, 0.0, "none", {}, [])
    for key, value in config.items():
        if (
            key not in (*_ABOUT, "auto_mapping", "modules_to_save")
            and key not in known
            and key not in harmless
            and value not in unset
        ):
            if key in _DEFAULTS and value == _DEFAULTS[key]:
                continue
            raise ModelError(
                f"the PEFT configuration sets {key} to {value!r}, which pemeta's own method cannot represent; "
                "use the method peft, which takes any configuration of that package"
            )


_DEFAULTS = {
    "loftq_config": {},
    "megatron_core": "megatron.core",
    "qalora_group_size": 16,
    "runtime_config": {"ephemeral_gpu_offload": False},
}
"""Values that PEFT writes into every file, and that change nothing."""


def matched(backbone: nn.Module, config: Mapping[str, Any], key: str = "target_modules") -> list[str]:
    """Names of the backbone's modules that ``config[key]`` means: full names or ends of them, or a pattern.

    Raises:
        ModelError: it means none.
    """
    wanted = config.get(key)
    names = [name for name, module in backbone.named_modules() if name and getattr(module, "weight", None) is not None]
    if isinstance(wanted, str):
        # PEFT names modules within its model, which may hold the backbone under a name of its own.
        found = [name for name in names if re.fullmatch(wanted, name) or re.fullmatch(wanted, f"model.{name}")]
    else:
        found = [n for n in names if any(n == w or n.endswith(f".{w}") or w.endswith(f".{n}") for w in wanted or ())]
    if not found:
        raise ModelError(f"the PEFT configuration's {key} ({wanted!r}) is no module of {type(backbone).__name__}")
    return found


def parts_and_layers(names: Sequence[str], backbone: nn.Module) -> tuple[tuple[Part, ...], int | None]:
    """The parts, and the number of top layers (None for all), that together are just these modules.

    Raises:
        ModelError: there are none such.
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
            f"the PEFT configuration means {len(wanted)} modules that are not the same parts in each of the top "
            f"layers ({odd[0] if odd else touched[0]} for one); use the method peft for these"
        )
    return chosen, None if len(touched) == len(layers) else len(touched)
