"""Where a backbone has its layers: the lists of repeated blocks with attention in them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from pemeta.backbone.maps import maps_in, walk
from pemeta.backbone.structure.description import REMEDY
from pemeta.errors import ModelError


def layer_paths(backbone: nn.Module) -> str:
    """The path of the list of layers, as in ``Architecture.layers``.

    Layers are the elements of a ``ModuleList`` that all have attention in them; where these consist of lists of such
    elements (the stages of Swin), those of the innermost lists. Without attention anywhere, they are the elements of
    the list with the most parameters.

    Raises:
        ModelError: There is no list of blocks with parameters.
    """
    lists = {name: part for name, part in walk(backbone) if isinstance(part, nn.ModuleList | nn.Sequential)}
    outer = [name for name, part in lists.items() if len(part) and all(map(_attends, part)) and not _cross(name)]
    found = _innermost(outer)
    if not found:
        many = {name: part for name, part in lists.items() if len(maps_in(part)) > 1}
        sizes = {name: sum(one.numel() for one in part.parameters()) for name, part in many.items()}
        found = [max(sizes, key=lambda name: sizes[name])] if sizes else []
    if not found:
        raise ModelError(
            f"{type(backbone).__name__} has no layers that can be found: no ModuleList of blocks with linear maps; "
            f"{REMEDY}"
        )
    starred = dict.fromkeys(re.sub(r"\.\d+(?=\.|$)", ".*", name) for name in found)
    return ", ".join(starred)


def _innermost(outer: Sequence[str]) -> list[str]:
    """The lists in which no element consists of lists of the same kind again, in the order of the backbone."""
    return [name for name in outer if not any(other.startswith(f"{name}.") for other in outer)]


def _attends(block: nn.Module) -> bool:
    """Whether a block has attention in it, by the names of its modules and of their classes."""
    return any(_named_so(name) or _named_so(type(part).__name__) for name, part in walk(block))


def _named_so(name: str) -> bool:
    return "attn" in name.lower() or "attention" in name.lower()


def _cross(name: str) -> bool:
    return "cross" in name.lower()


def expand(backbone: nn.Module, paths: str) -> list[str]:
    """Names of all layers, from the lowest to the highest.

    Args:
        backbone: The backbone.
        paths: ``Architecture.layers``.

    Raises:
        AttributeError: A path is not one of lists of modules.
    """
    names: list[str] = []
    for path in paths.split(", "):
        heads = [""]
        for part in path.split(".*"):
            heads = [child for head in heads for child in _elements(backbone, head + part)]
        names += heads
    return names


def _elements(backbone: nn.Module, path: str) -> list[str]:
    """Names of the modules in a list."""
    part = backbone.get_submodule(path)
    if not isinstance(part, nn.ModuleList | nn.Sequential):
        raise AttributeError(f"{path} is a {type(part).__name__} and no list of layers")
    return [f"{path}.{number}" for number in range(len(part))]
