"""What a method has added, or could add to, and passes do not use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from pemeta.backbone.architectures import kind_of
from pemeta.backbone.maps import is_added, is_linear
from pemeta.backbone.structure.inputs import tiny_batches
from pemeta.backbone.structure.undisturbed import undisturbed
from pemeta.errors import ModelError
from pemeta.utils.distributed import Processes
from pemeta.utils.messages import warn

_UNUSED: dict[Any, tuple[str, ...]] = {}
"""The maps that passes do not use, by the kind of backbone."""


def used_maps(backbone: nn.Module, names: Sequence[str]) -> list[str]:
    """The linear maps, of these, whose outputs the last hidden states depend on; all if this cannot be tried.

    Poolers, heads and what other inputs need (entities, global attention) are left out, which a line says; an expert,
    or a layer, that a tiny batch does not use at all is not.
    """
    try:
        kind = kind_of(backbone)
    except ModelError:  # its layers are unknown, or no batch can be made
        return list(names)
    if any(isinstance(one, FakeTensor) for one in backbone.parameters()):
        return list(names)  # what runs would be counted
    if kind not in _UNUSED:
        _UNUSED[kind] = tuple(_unused_maps(backbone))
    out = [name for name in names if name in _UNUSED[kind]]
    if out and len(out) < len(names) and Processes().first:
        warn(
            f"{listed(out)} of {type(backbone).__name__} {'is' if len(out) == 1 else 'are'} left out, because its last "
            "hidden states do not depend on what a method adds there",
            once=True,
        )
    return [name for name in names if name not in out] or list(names)


def _unused_maps(backbone: nn.Module) -> Iterator[str]:
    """The linear maps to whose outputs a tiny batch's hidden states have no path, in parts that it uses."""
    maps = {name: part for name, part in backbone.named_modules() if is_linear(part) and not is_added(name)}
    offsets: dict[str, Tensor] = {}
    with undisturbed(backbone), torch.enable_grad():
        for name, part in maps.items():
            part.register_forward_hook(_Offset(name, offsets))
        for inputs in tiny_batches(backbone):
            offsets.clear()
            try:
                states = getattr(backbone(**inputs), "last_hidden_state", None)
            except Exception:  # inputs of another kind than it takes
                continue
            break
        else:
            return
        if not isinstance(states, Tensor) or not states.requires_grad:
            return
        leaves = leaves_of(states)
    reached = [f"{name}.weight" for name, offset in offsets.items() if id(offset) in leaves]
    if reached:
        missing = {f"{name}.weight": name for name in maps if f"{name}.weight" not in reached}
        yield from (missing[name] for name in unused(backbone, list(missing), reached))


def leaves_of(value: Tensor) -> set[int]:
    """The leaves that a value's graph has, by identity: a backward pass through a large backbone would take long."""
    found: set[int] = set()
    seen, todo = {value.grad_fn}, [value.grad_fn]
    while todo:
        node = todo.pop()
        found.add(id(getattr(node, "variable", None)))
        new = {before for before, _ in (() if node is None else node.next_functions)} - seen
        seen |= new
        todo += new
    return found


class _Offset:
    """A forward hook that adds a zero to a map's output, to see where it goes."""

    def __init__(self, name: str, offsets: dict[str, Tensor]) -> None:
        self.name, self.offsets = name, offsets

    def __call__(self, part: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
        if not isinstance(output, Tensor):
            return None
        zero = self.offsets.setdefault(self.name, output.new_zeros(1, requires_grad=True))
        return output + zero


def unused(model: nn.Module, added: Sequence[str], reached: Sequence[str]) -> Iterator[str]:
    """Of names that a pass has not reached, those that are in no layer and no expert that it has not used at all.

    An item of a list of parts has not been used, by all that is known, if no parameter within it was reached.

    Args:
        model: The module that the names are of.
        added: Names of parameters that no gradient has reached.
        reached: Names of those that one has.
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
