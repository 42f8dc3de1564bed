"""Several values of a module's parameters in one pass: each for a group of the batch's rows.

The tasks of a meta-batch have θ_a of their own and share everything else, so that one pass over the rows of all tasks
needs other values only in the modules that hold θ_a. These get their parameters stacked, (G, ...) for G groups of
equally many rows, and compute with them group by group: as one batched product where it is one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from pemeta.errors import ModelError


class NotByRowsError(ModelError):
    """A module was called with something else than the rows of the batch, which cannot be told apart by groups."""

    def __init__(self) -> None:
        super().__init__(
            "a part that holds θ_a was called with something else than all examples of all tasks, of which it cannot "
            "tell each task's; set batch_tasks: false"
        )


class Groups(NamedTuple):
    """How the rows of a batch are divided: into ``number`` groups behind each other, ``rows`` in all."""

    number: int
    rows: int

    def divide(self, value: object) -> bool:
        """Whether a value has a row, or several, for each of the batch's, or one for each group."""
        if not isinstance(value, Tensor) or not value.ndim:
            return False
        return value.shape[0] == self.number or not value.shape[0] % self.rows

    def split(self, value: Tensor) -> Tensor:
        """(R, ...) as (G, R / G, ...).

        Raises:
            NotByRowsError: it is not.
        """
        if not self.divide(value):
            raise NotByRowsError
        return value.reshape(self.number, -1, *value.shape[1:])


class Holder(NamedTuple):
    """A module that holds parameters which groups have values of their own for.

    Attributes:
        module: The module.
        own: Names of its own parameters among them.
        below: The same of modules within it, which only it calls.
    """

    module: nn.Module
    own: tuple[str, ...]
    below: tuple[tuple[nn.Module, str], ...]


def find_holders(module: nn.Module, names: Collection[str]) -> list[Holder]:
    """The outermost modules that hold one of the named parameters themselves."""
    wanted = set(names)
    found = {id(parameter) for name, parameter in module.named_parameters() if name in wanted}
    holders: list[Holder] = []
    within: set[nn.Module] = set()
    for part in module.modules():  # a module before those within it
        if part in within or not (own := _held(part, found)):
            continue
        inner = [one for one in part.modules() if one is not part]
        within.update(inner)
        holders.append(Holder(part, own, tuple((one, key) for one in inner for key in _held(one, found))))
    return holders


def _held(part: nn.Module, found: Collection[int]) -> tuple[str, ...]:
    return tuple(key for key, value in part._parameters.items() if id(value) in found)


@contextmanager
def by_groups(holders: Collection[Holder], groups: Groups) -> Iterator[None]:
    """Let the modules compute, within the block, with parameters that are stacked by groups."""
    try:
        for holder in holders:
            forward = _KINDS.get(type(holder.module), _mapped) if not holder.below else _mapped
            holder.module.__dict__["forward"] = partial(forward, holder, groups)
        yield
    finally:
        for holder in holders:
            holder.module.__dict__.pop("forward", None)


def groups_of(module: nn.Module) -> Groups | None:
    """The groups that a module computes by at present, with parameters that are stacked."""
    forward = vars(module).get("forward")
    given = forward.args[1:] if isinstance(forward, partial) else ()
    return given[0] if given and isinstance(given[0], Groups) else None


def _linear(holder: Holder, groups: Groups, x: Tensor) -> Tensor:
    """``nn.Linear`` with a weight, a bias or both by groups."""
    weight, bias = (holder.module._parameters[key] for key in ("weight", "bias"))
    assert weight is not None
    if "weight" not in holder.own:
        assert bias is not None
        out = F.linear(x, weight)
        return (groups.split(out).flatten(1, -2) + bias[:, None].to(out.dtype)).view(out.shape)
    rows, maps = groups.split(x).flatten(1, -2), weight.transpose(1, 2)
    if bias is None:
        out = torch.bmm(rows, maps)
    else:
        out = torch.baddbmm(bias[:, None] if "bias" in holder.own else bias, rows, maps)
    return out.view(*x.shape[:-1], out.shape[-1])


def _layer_norm(holder: Holder, groups: Groups, x: Tensor) -> Tensor:
    """``nn.LayerNorm`` over the last dimension with a gain, a bias or both by groups."""
    norm = holder.module
    assert isinstance(norm, nn.LayerNorm)
    if len(norm.normalized_shape) > 1 or norm.bias is None:
        return _mapped(holder, groups, x)  # type: ignore[no-any-return]
    found = F.layer_norm(x, norm.normalized_shape, None, None, norm.eps)
    gain, bias = (
        value[:, None] if key in holder.own else value for key, value in (("weight", norm.weight), ("bias", norm.bias))
    )
    rows = groups.split(found).flatten(1, -2)
    return torch.addcmul(bias.to(found.dtype), rows, gain.to(found.dtype)).view(found.shape)  # autocast's type


def _mapped(holder: Holder, groups: Groups, *arguments: Any, **named: Any) -> Any:
    """Any module, as it is, once for all groups: what has a row for each of the batch's is divided.

    A module without such an argument gives what it gives for each group, along a new first dimension. What is no
    tensor, or one of a single row, is shared. A tensor of other rows, such as one for each position, is refused: in
    another batch it could have as many as there are examples, and would be divided.
    """
    leaves, tree = tree_flatten((arguments, named))
    tensors = {i: value for i, value in enumerate(leaves) if isinstance(value, Tensor)}
    divided = {i: groups.split(value) for i, value in tensors.items() if value.ndim and len(value) > 1}
    if not divided and tensors:
        raise NotByRowsError
    places = [(holder.module, key) for key in holder.own] + list(holder.below)
    before = [part._parameters[key] for part, key in places]
    original = type(holder.module).forward

    def one(values: list[Tensor], rows: list[Tensor]) -> Any:
        own = dict(zip(divided, rows, strict=True))
        given, by_name = tree_unflatten([own.get(i, value) for i, value in enumerate(leaves)], tree)
        for (part, key), value in zip(places, values, strict=True):
            part._parameters[key] = value  # type: ignore[assignment]
        return original(holder.module, *given, **by_name)

    try:
        every: Callable[..., Any] = torch.vmap(one, in_dims=(0, 0), randomness="different")
        found = every(before, list(divided.values())) if divided else _alone(one, before)
    finally:
        for (part, key), parameter in zip(places, before, strict=True):
            part._parameters[key] = parameter
    return tree_map(lambda value: value.flatten(0, 1), found) if divided else found


def _alone(one: Callable[..., Any], values: list[Any]) -> Any:
    """As above, where no argument is divided."""
    return torch.vmap(lambda given: one(given, []), randomness="different")(values)


_KINDS: dict[type[nn.Module], Callable[..., Tensor]] = {nn.Linear: _linear, nn.LayerNorm: _layer_norm}
"""Modules, of exactly these classes, for which there is a way with fewer operations than any has."""
