"""Which parameters a gradient reaches, of those that should move.

What the graph of a loss does not contain has no gradient, which is not the same as one of zero. A backbone may have
parts that its passes do not use (a table of entities in text without any, CLIP's projection), or not in this one (an
expert that no token was sent to, a layer that was dropped): these keep their values until a pass uses them, and one
line says so. What a method has added to a part in use must be reached: otherwise something is wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from weakref import WeakKeyDictionary

from torch import nn

from pemeta.backbone.reach import listed, unused
from pemeta.errors import ModelError
from pemeta.methods.base import is_added
from pemeta.utils.distributed import Processes
from pemeta.utils.messages import warn
from pemeta.utils.modules import parameter_dict

_noted: WeakKeyDictionary[nn.Module, set[str]] = WeakKeyDictionary()
"""By model, the sets of parameters that a line has been written on; other batches may leave out others."""


def without_gradient(module: nn.Module, names: Collection[str]) -> tuple[str, ...]:
    """The named parameters that no backward pass has reached since gradients were forgotten."""
    return tuple(name for name, parameter in parameter_dict(module, names).items() if parameter.grad is None)


def check_theta_a(model: nn.Module, theta_a: Sequence[str], unreached: Collection[str]) -> None:
    """Refuse θ_a that passes should use and do not, and note what else of it they do not use.

    Args:
        model: The model.
        theta_a: Names of the parameters of θ_a that should move.
        unreached: Names of those that no gradient has reached.

    Raises:
        ModelError: No gradient has reached any of θ_a, or what a method has added to a part in use.
    """
    missing, reached = _divided(theta_a, unreached)
    added = [name for name in missing if is_added(name)]
    wrong = [*unused(model, added, reached)] if reached else missing
    if wrong:
        raise ModelError(
            f"θ_a without a gradient: {listed(wrong)}; the loss does not depend on it, so let the method use it in "
            "each pass, or remove it from its theta_a"
        )
    _note(model, "θ_a", missing)


def check_theta_p(model: nn.Module, theta_p: Sequence[str], unreached: Collection[str]) -> None:
    """Refuse to prime a θ_p that no gradient reaches, and note what of it passes do not use; as :func:`check_theta_a`.

    Raises:
        ModelError: No gradient has reached any of θ_p.
    """
    missing, reached = _divided(theta_p, unreached)
    if missing and not reached:
        raise ModelError(
            f"θ_p without a gradient: {listed(missing)}; the loss does not depend on it, so list in primes only what "
            "a gradient reaches, or use a method that reads θ_p with autograd"
        )
    _note(model, "θ_p", missing)


def _divided(names: Sequence[str], unreached: Collection[str]) -> tuple[list[str], list[str]]:
    """The names that no gradient has reached, and the others."""
    still = set(unreached)
    return [name for name in names if name in still], [name for name in names if name not in still]


def _note(model: nn.Module, symbol: str, missing: Sequence[str]) -> None:
    """Write a line on what stays, once for each model and set."""
    noted = _noted.setdefault(model, set())
    if not missing or symbol in noted:
        return
    noted.add(symbol)
    if Processes().first:
        what = f"{listed(missing)} of {symbol}"
        warn(f"no gradient reaches {what}, which passes do not use, or not with autograd; they keep their values")
