"""What a method has added and passes do not use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from pemeta.methods.base import is_added


def unused(model: nn.Module, added: Sequence[str], reached: Sequence[str]) -> Iterator[str]:
    """Of what methods have added, the names that are in no layer and no expert that the pass has not used at all.

    An item of a list of parts has not been used, by all that is known, if no parameter within it was reached.

    Args:
        model: The module that the names are of.
        added: Names of parameters that no gradient has reached.
        reached: Names of θ_a that one has.
    """
    if not added:
        return
    lists = {name for name, part in model.named_modules() if isinstance(part, nn.ModuleList | nn.ModuleDict)}
    used = {prefix for name in reached for prefix in _prefixes(name)}
    for name in added:
        items = [prefix for prefix in _prefixes(name) if prefix.rpartition(".")[0] in lists]
        own = [item for item in items if not is_added(item)]
        if not own or own[-1] in used:
            yield name


def _prefixes(name: str) -> list[str]:
    """The names of the parts that a parameter is in, the outermost first.

    >>> _prefixes("layer.0.weight")
    ['layer', 'layer.0']
    """
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"
