"""Reading adapters that the ``peft`` package saved, of any tuner, with that package itself."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from pemeta.errors import ModelError, reason, unknown_name
from pemeta.methods.peft_targets import INITIALISATIONS, METADATA, refuse_changed_base
from pemeta.typing import State

LAYER_CHOICE = ("layers_to_transform", "layers_pattern", "exclude_modules")
"""Fields that limit ``target_modules``."""
PATTERNS = ("rank_pattern", "alpha_pattern")
"""Fields with a value for each pattern of names."""


def fields_of(config: Mapping[str, Any], backbone: nn.Module) -> dict[str, Any]:
    """The fields of a saved configuration that matter once its values are loaded, with names within the backbone.

    Names in the file may be relative to a model that contains the backbone (``model.layers.0.self_attn.q_proj``).

    Raises:
        ModelError: the tuner changed the backbone's own weights, or selects none of its modules.
    """
    from peft import PeftConfig
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from peft.tuners.tuners_utils import check_target_module_exists

    refuse_changed_base(config)
    kind = str(config["peft_type"])
    known: Mapping[Any, Any] = PEFT_TYPE_TO_CONFIG_MAPPING
    if kind not in known:
        raise ModelError(unknown_name("PEFT tuner", kind, [str(key.value) for key in known]))
    default = {field.name: _default(field) for field in dataclasses.fields(known[kind])}
    unset = [key for key, value in config.items() if (default[key] == value if key in default else not value)]
    fields = {key: value for key, value in config.items() if key not in (*METADATA, *INITIALISATIONS, *unset)}
    if not fields.get("target_modules") or "target_modules" not in default:
        return {"peft_type": kind, **fields}
    whole = PeftConfig.from_peft_type(peft_type=kind, **fields)  # type: ignore[no-untyped-call]
    names = [name for name, _ in backbone.named_modules() if name]
    found: dict[str, list[str]] = {}
    for prefix in ("", f"{getattr(backbone, 'base_model_prefix', '')}."):
        found[prefix] = [name for name in names if check_target_module_exists(whole, f"{prefix}{name}")]
        if found[prefix]:
            break
    else:
        raise ModelError(
            f"the PEFT configuration's target_modules match no module of {type(backbone).__name__}; load the backbone "
            "that it was trained on"
        )
    if prefix:
        fields = {key: value for key, value in fields.items() if key not in LAYER_CHOICE}
        fields["target_modules"] = found[prefix]
    for key in (key for key in PATTERNS if fields.get(key)):
        fields[key] = _within(fields[key], found[prefix], str(getattr(backbone, "base_model_prefix", "")))
    return {"peft_type": kind, **fields}


def _default(field: dataclasses.Field[Any]) -> Any:
    """The default of a field of PEFT's configurations, as JSON has it."""
    value = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return sorted(value) if isinstance(value, (set, frozenset)) else value


def _within(patterns: Mapping[str, Any], names: Sequence[str], outer: str) -> dict[str, Any]:
    """The values of patterns by the names within the backbone that they match, there or within the outer model."""
    from peft.utils.other import get_pattern_key

    found = {}
    for name in names:
        keys = (get_pattern_key(list(patterns), full) for full in (name, f"{outer}.{name}"))
        match = next((key for key in keys if key in patterns), None)
        if match is not None:
            found[name] = patterns[match]
    return found


def saved_values(plain: nn.Module, config: Any, adapter: str, values: State) -> tuple[State, State]:
    """What PEFT makes of saved values: the adapter's tensors by name within the backbone, and the values left over.

    Args:
        plain: the backbone without a tuner; it is changed.
        config: PEFT's configuration object.
        adapter: name of the adapter.
        values: the values in the file, by their names within the backbone.

    Raises:
        ModelError: PEFT rejects the values, or some are missing.
    """
    from peft import PeftModel, set_peft_model_state_dict

    outside = {name for name, _ in plain.named_parameters()}
    rest = {name: value for name, value in values.items() if name in outside}
    given = {_outer(name): value for name, value in values.items() if name not in outside}
    flags = {parameter: parameter.requires_grad for parameter in plain.parameters()}
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            theirs = PeftModel(plain, config, adapter, autocast_adapter_dtype=False)
            result: Any = set_peft_model_state_dict(theirs, given, adapter_name=adapter)
    except Exception as error:  # PEFT raises nearly anything here
        raise ModelError(f"cannot be loaded by peft ({reason(error)})") from None
    finally:
        for parameter, required in flags.items():
            parameter.requires_grad_(required)
    state = theirs.state_dict()
    loaded = {value.data_ptr() for name, value in state.items() if name not in result.missing_keys}
    own = {name for name, parameter in theirs.named_parameters(remove_duplicate=False) if parameter.requires_grad}
    trained = {name for name in own if adapter in name.split(".")}  # PEFT saves no others
    missing = sorted(name for name in trained & set(result.missing_keys) if state[name].data_ptr() not in loaded)
    if missing:
        raise ModelError(f"lacks {len(missing)} of the adapter's parameters, e.g. {_inner(missing[0])}")
    rest |= {_inner(name): given[name] for name in result.unexpected_keys if name in given}
    every = [*theirs.named_parameters(remove_duplicate=False), *theirs.named_buffers(remove_duplicate=False)]
    return {_inner(name): value.detach() for name, value in every if adapter in name.split(".")}, rest


def _outer(name: str) -> str:
    """A name within PEFT's model, of which parts that its layers share are no part of the backbone."""
    return name if name.startswith("base_model.") else f"base_model.model.{name}"


def _inner(name: str) -> str:
    return name.removeprefix("base_model.model.")


def without(backbone: nn.Module, detach: Any) -> nn.Module:
    """A copy of the backbone from which ``detach`` removes a tuner; it shares the backbone's parameters."""
    shared = {id(tensor): tensor for tensor in (*backbone.parameters(), *backbone.buffers())}
    plain = copy.deepcopy(backbone, shared)
    detach(plain)
    return plain
