"""What a method has added to parts of a backbone that its passes do not use: a pooler, a head for pretraining."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from pemeta.methods.base import is_added


@contextmanager
def all_moving(backbone: nn.Module) -> Iterator[None]:
    """Let every parameter take a gradient within the block, so that what is frozen shows whether it is used."""
    flags = {one: one.requires_grad for one in backbone.parameters() if one.is_floating_point()}
    for one in flags:
        one.requires_grad_()
    try:
        yield
    finally:
        for one, flag in flags.items():
            one.requires_grad_(flag)


def without_use(backbone: nn.Module, states: Tensor, added: Sequence[str]) -> tuple[tuple[str, ...], str | None]:
    """Names of added parameters in parts that a pass does not use, and the first that it passes over in a part in use.

    Args:
        backbone: A backbone, whose parameters all take a gradient.
        states: What a pass gives.
        added: Names of parameters that a method has added.
    """
    own = {name: one for name, one in backbone.named_parameters() if one.requires_grad}
    leaves = _leaves(states)
    reached = {name for name, one in own.items() if id(one) in leaves}
    parts = {prefix for name in own if not is_added(name) for prefix in _parts(name)}
    used = {prefix for name in reached if not is_added(name) for prefix in _parts(name)}
    missing = [name for name in added if name in own and name not in reached]
    for name in missing:
        if next(part for part in reversed(_parts(name)) if part in parts) in used:
            return (), name
    return tuple(missing), None


def _leaves(states: Tensor) -> set[int]:
    """Identities of the tensors that a gradient of ``states`` reaches, by the graph alone, which takes no memory."""
    waiting, seen, found = [states.grad_fn], set(), set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        waiting += [following for following, _ in node.next_functions]
    return found


def mark_unused(backbone: nn.Module, names: Sequence[str]) -> None:
    """Remember that passes do not use the added parameters with these names, for as long as they are there."""
    for name in names:
        backbone.get_submodule(name.rpartition(".")[0])._pemeta_unused = True  # type: ignore[assignment]


def is_unused(model: nn.Module, name: str) -> bool:
    """Whether a parameter was seen to be in a part that passes do not use."""
    return bool(getattr(model.get_submodule(name.rpartition(".")[0]), "_pemeta_unused", False))


def _parts(name: str) -> list[str]:
    """The names of the parts that a parameter is in, the outermost, the backbone itself, first."""
    steps = name.split(".")
    return [".".join(steps[:end]) for end in range(len(steps))]
