"""The partition of a model's parameters into θ_p, θ_a and θ_h."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from torch import nn

from pemeta.errors import ModelError
from pemeta.utils.signatures import checked


@checked()
@dataclass(frozen=True)
class Partition:
    """θ_p, θ_a and θ_h as name sets: disjoint, and together all of a module's parameters.

    Names are those of ``named_parameters()``, in its order; a tied parameter appears once, under its
    first name.

    Attributes:
        theta_p: the pretrained parameters, which all tasks share and only the outer loop changes.
        theta_a: the parameters that parameter-efficient fine-tuning adapts, declared by a ``PEMethod``.
        theta_h: the parameters of the task heads.

    >>> layers = nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 3)})
    >>> parts = Partition.of(layers, theta_a=["body.bias"], theta_h=["head.weight", "head.bias"])
    >>> parts.theta_p, parts.theta_a
    (('body.weight',), ('body.bias',))
    """

    theta_p: tuple[str, ...]
    theta_a: tuple[str, ...]
    theta_h: tuple[str, ...]

    @classmethod
    @checked()
    def of(cls, module: nn.Module, theta_a: Collection[str], theta_h: Collection[str]) -> Partition:
        """The partition in which θ_p is everything that is in neither ``theta_a`` nor ``theta_h``.

        Any name of a tied parameter may be given.

        Raises:
            ModelError: a name is not a parameter of the module, or is in both sets.
        """
        first_name = _first_names(module)
        missing = [name for name in (*theta_a, *theta_h) if name not in first_name]
        if missing:
            raise ModelError(
                f"{_listed(missing)} not among the module's parameters; check the names that were declared"
            )
        a = {first_name[name] for name in theta_a}
        h = {first_name[name] for name in theta_h}
        if a & h:
            raise ModelError(
                f"{_listed(sorted(a & h))} in both θ_a and θ_h, perhaps because a head is tied to the backbone; "
                "a parameter belongs to only one set, so untie it or remove it from one of them"
            )
        names = [name for name, _ in module.named_parameters()]
        return cls(
            theta_p=tuple(name for name in names if name not in a and name not in h),
            theta_a=tuple(name for name in names if name in a),
            theta_h=tuple(name for name in names if name in h),
        )

    @property
    def adapted(self) -> tuple[str, ...]:
        """The names in θ_a ∪ θ_h, the parameters that the inner loop and fine-tuning change."""
        return self.theta_a + self.theta_h


def _first_names(module: nn.Module) -> dict[str, str]:
    """Mapping from every name of every parameter, including tied ones, to the first name of that parameter."""
    names: defaultdict[int, list[str]] = defaultdict(list)
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names[id(parameter)].append(name)
    return {alias: aliases[0] for aliases in names.values() for alias in aliases}


def _listed(names: Collection[str], most: int = 5) -> str:
    shown = ", ".join(list(names)[:most])
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{shown}{more} {'is' if len(names) == 1 else 'are'}"
