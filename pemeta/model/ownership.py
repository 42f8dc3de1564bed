"""Which model a backbone belongs to: two on one backbone would compute with each other's methods, and move them."""

from __future__ import annotations

from typing import Protocol
from weakref import WeakKeyDictionary, WeakSet

from torch import nn

from pemeta.errors import ModelError
from pemeta.methods.base import PEMethod, is_added


class Owner(Protocol):
    """A model, as far as its backbone is concerned."""

    attached: tuple[PEMethod, ...]


_owners: WeakKeyDictionary[nn.Module, WeakSet[Owner]] = WeakKeyDictionary()
_attached: WeakKeyDictionary[nn.Module, tuple[PEMethod, ...]] = WeakKeyDictionary()


def claim(backbone: nn.Module, owner: Owner) -> None:
    """Record that a model has its methods in its backbone."""
    _owners.setdefault(backbone, WeakSet()).add(owner)
    _attached[backbone] = owner.attached


def require_own(backbone: nn.Module, owner: Owner) -> None:
    """Refuse a pass of a model without its methods, if its backbone has got those of another model meanwhile.

    Raises:
        ModelError: it has.
    """
    there = _attached.get(backbone)
    if there is not None and there is not owner.attached:
        raise ModelError(
            f"this {type(backbone).__name__} computes with another PEModel's method "
            f"{', '.join(method.name for method in there)}, which was attached after this model had detached its own; "
            "use that model, or detach its methods and attach one to this model"
        )


def require_free(backbone: nn.Module, claimant: Owner | None = None) -> None:
    """Refuse a backbone that has methods of another model in it, or modules that no model knows of.

    What a model that is gone has left attached is detached.

    Args:
        backbone: the backbone.
        claimant: the model that is to attach a method; None for one that is being made.

    Raises:
        ModelError: another model's methods are attached, or added modules are in the backbone.
    """
    name, others = type(backbone).__name__, _others(backbone, claimant)
    if others:
        methods = ", ".join(method.name for method in others[0].attached)
        raise ModelError(
            f"this {name} is the backbone of another PEModel, with its method {methods}, and each would change what "
            "the other computes; attach further methods to that model with attach, or detach its own with detach, or "
            "give this one a backbone of its own, loaded again"
        )
    if claimant is not None and claimant.attached:
        return
    for method in reversed(_attached.pop(backbone, ())):
        method.detach(backbone)
    left = [path for path, _ in backbone.named_modules() if is_added(path)]
    if left:
        raise ModelError(
            f"this {name} has a method attached already ({left[0]}), which would count as θ_p; detach it with the "
            "method's detach(backbone), or load the backbone again"
        )


def _others(backbone: nn.Module, claimant: Owner | None) -> list[Owner]:
    return [owner for owner in _owners.get(backbone, ()) if owner.attached and owner is not claimant]
