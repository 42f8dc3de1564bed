"""Where each backbone keeps the parts of its layers, which in-layer methods act on."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from pemeta.backbone.maps import linear_sizes
from pemeta.backbone.structure.description import PARTS, REMEDY, Architecture
from pemeta.backbone.structure.found import found_in, signature
from pemeta.backbone.structure.layers import expand
from pemeta.backbone.structure.undisturbed import has_values
from pemeta.errors import ModelError, clause, counted

ARCHITECTURES: dict[str, Architecture] = {}
"""Your own descriptions, by transformers' ``config.model_type``, for what is not found in a backbone by itself.

An entry takes the place of what would be found; where passes of a tiny batch show something else, it is refused.
"""

_KNOWN: dict[Any, Architecture | str] = {}
"""What was found in backbones of one kind, or why nothing was."""
_OF: WeakKeyDictionary[nn.Module, tuple[Any, Any, Architecture]] = WeakKeyDictionary()
"""What is known of a backbone, as long as its layers are the same objects, and its kind."""
_MOST = 1000


def architecture_of(backbone: nn.Module) -> Architecture:
    """The layers of a backbone and the names of their parts.

    They are found when a backbone is first asked for: by its modules, and by passes of a tiny random batch, in which
    each part has to do what its name stands for. The passes leave no trace.

    Raises:
        ModelError: Its layers cannot be found, or an entry of :data:`ARCHITECTURES` does not match the backbone.
    """
    return _known(backbone)[1]


def kind_of(backbone: nn.Module) -> Any:
    """What backbones have in common whose passes show the same: classes, shapes and configuration.

    Raises:
        ModelError: As :func:`architecture_of`.
    """
    return _known(backbone)[0]


def _known(backbone: nn.Module) -> tuple[Any, Architecture]:
    """The kind of a backbone, and what was found in the first of the kind."""
    known = _OF.get(backbone)
    if known is not None and known[0] == _token(backbone, known[2].layers):
        return known[1:]
    key = _kind(backbone)
    if key not in _KNOWN:
        if len(_KNOWN) >= _MOST:
            _KNOWN.clear()
        try:
            _KNOWN[key] = _described(backbone)
        except ModelError as error:
            _KNOWN[key] = str(error)
        except Exception as error:  # of a backbone that is made in another way than those of transformers
            _KNOWN[key] = f"the layers of {type(backbone).__name__} cannot be found ({clause(error)}); {REMEDY}"
    found = _KNOWN[key]
    if isinstance(found, str):
        raise ModelError(found)
    _OF[backbone] = _token(backbone, found.layers), key, found
    return key, found


def parts_of(backbone: nn.Module, layer: str) -> Architecture:
    """The names of the parts of one layer, given by its name."""
    found = architecture_of(backbone)
    return found.of_layer(expand(backbone, found.layers).index(layer)) if found.others else found


def _token(backbone: nn.Module, layers: str) -> Any:
    """What changes when a backbone gets other layers, or is moved from or to a device without values."""
    try:
        parts = [backbone.get_submodule(name) for name in expand(backbone, layers)]
    except AttributeError:
        return None
    inside = [id(part) for part in parts[0].modules() if part is not parts[0]] if parts else []
    entry = ARCHITECTURES.get(_model_type(backbone))
    return entry, tuple(map(id, parts)), tuple(inside), next(backbone.parameters()).is_meta


def _model_type(backbone: nn.Module) -> str:
    return str(getattr(getattr(backbone, "config", None), "model_type", type(backbone).__name__))


def _kind(backbone: nn.Module) -> Any:
    """The kind of a backbone."""
    config = getattr(backbone, "config", None)
    settings = {} if config is None else {key: one for key, one in config.to_dict().items() if key not in _ALL_THE_SAME}
    entry = ARCHITECTURES.get(_model_type(backbone))
    shown = json.dumps(settings, default=str, sort_keys=True)
    return type(backbone), signature(backbone), shown, has_values(backbone), entry


_ALL_THE_SAME = ("_attn_implementation", "dtype", "torch_dtype", "_name_or_path")
"""Keys of configurations that do not matter for what is found."""


def _described(backbone: nn.Module) -> Architecture:
    """The entry for a backbone, or what is found in it."""
    kind = _model_type(backbone)
    entry = ARCHITECTURES.get(kind)
    if entry is None:
        return found_in(backbone)
    where = f"the entry {kind!r} of pemeta.backbone.architectures.ARCHITECTURES"
    try:
        layer = backbone.get_submodule(expand(backbone, entry.layers)[0])
        for name in filter(None, (entry.attention, entry.ffn, *entry.ffn_up, *(_names(entry)))):
            layer.get_submodule(name)
    except (AttributeError, IndexError) as error:
        raise ModelError(
            f"{type(backbone).__name__} does not match {where} ({clause(error)}); correct the entry for this version "
            "of transformers, or remove it"
        ) from None
    try:
        found = found_in(backbone, entry.layers)
    except ModelError:
        return entry  # it is of use for what cannot be tried
    wrong = found.contradicts(entry) if found.tried else []
    if wrong:
        raise ModelError(
            f"{where} says that {wrong[0]} is {getattr(entry, wrong[0])}, but in passes of a tiny batch through this "
            f"{type(backbone).__name__} it is {getattr(found, wrong[0])}; correct the entry, or remove it"
        )
    return entry


def _names(entry: Architecture) -> list[str | None]:
    return [getattr(entry, part) for part in PARTS if part != "ffn_up"]


def layer_names(backbone: nn.Module, top: int | None = None) -> Sequence[str]:
    """Names of the backbone's layers, from the lowest to the highest.

    Args:
        backbone: A model of transformers.
        top: Number of layers to name, counted from the highest; None for all.

    Raises:
        ModelError: The backbone has fewer than ``top`` layers, or none that can be found.
    """
    names = expand(backbone, architecture_of(backbone).layers)
    if top is not None and top > len(names):
        layers = counted(len(names), "layer")
        raise ModelError(f"top_layers is {top}, but the backbone has {layers}; choose from 1 to {len(names)}")
    return names[len(names) - (len(names) if top is None else top) :]


def first_layer(backbone: nn.Module, names: Collection[str]) -> int:
    """Index of the lowest layer that contains one of the named parameters, under any of its names.

    Zero if a parameter is outside the layers, or if the layers are unknown.
    """
    try:
        prefixes = [f"{layer}." for layer in layer_names(backbone)]
    except ModelError:
        return 0
    every = list(backbone.named_parameters(remove_duplicate=False))
    declared = set(names)
    wanted = {id(parameter) for name, parameter in every if name in declared}
    lowest = len(prefixes) - 1
    for name in (name for name, parameter in every if id(parameter) in wanted):
        lowest = min(lowest, next((i for i, prefix in enumerate(prefixes) if name.startswith(prefix)), 0))
    return lowest


def key_width(backbone: nn.Module, layer: str) -> int:
    """Width of a layer's keys, and of its values, over all heads; less than that of its queries if queries share them.

    Args:
        backbone: A model of transformers.
        layer: Name of the layer.

    Raises:
        ModelError: One map makes queries and keys, and its width is not that of whole heads.
    """
    parts = parts_of(backbone, layer)
    key = parts.one("key")
    out = linear_sizes(backbone.get_submodule(f"{layer}.{key}"))[1]
    both = 2 if parts.value == key else 1  # keys and values
    if not parts.fused:
        return out // both
    attention, config = backbone.get_submodule(f"{layer}.{parts.one('attention')}"), backbone.config
    heads: int = config.num_attention_heads  # type: ignore[union-attr,assignment]
    sizes = (getattr(where, "head_dim", None) for where in (attention, config))
    size = next((size for size in sizes if isinstance(size, int)), int(config.hidden_size) // heads)  # type: ignore[union-attr,arg-type]
    rest = out - heads * size
    if rest <= 0 or rest % (both * size):
        raise ModelError(
            f"{key} of {type(backbone).__name__} has {out} outputs, which are not {heads} queries of {size} and "
            "whole heads of keys and values; use lora, adapter or prompt"
        )
    return rest // both
