"""What a module consists of, so that a later pass can tell whether it is still the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from operator import is_
from typing import Any, TypeAlias

from torch import Tensor, nn

from pemeta.backbone.checks import refuse_unfaithful
from pemeta.backbone.gradient_checkpointing import replace_checkpointing
from pemeta.errors import ModelError

SWITCH = "gradient_checkpointing"
"""Attribute of the modules that transformers can checkpoint."""
_Content: TypeAlias = tuple[dict[str, nn.Module | None], dict[str, nn.Parameter | None]]
"""Children and parameters of a module."""
Facts: TypeAlias = tuple[Any, ...]
"""Type, device and shape of a parameter, and whether it requires a gradient (None if that does not matter)."""


class Layout:
    """The submodules and parameters of a module, by identity, when the layout was taken.

    :meth:`check` compares them with the present ones. It runs before every pass of a clone and takes some hundred
    dictionary look-ups; only where something differs is the module walked through.

    Args:
        module: the module, none of whose parameters is replaced by a clone's value just now.

    Attributes:
        parameters: the module's parameters by their first names.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._read()

    def _read(self) -> None:
        self.parameters = dict(self._module.named_parameters())
        parts = list(self._module.modules())
        self._before = {part: (dict(part._modules), dict(part._parameters)) for part in parts}
        self._children = [part._modules for part in parts], [self._before[part][0] for part in parts]
        self._sizes = [part._parameters for part in parts], [len(part._parameters) for part in parts]
        places = [(part._parameters, key, value) for part in parts for key, value in part._parameters.items()]
        self._places = [(held, key) for held, key, _ in places], [value for _, _, value in places]
        self._attributes = [vars(part) for part in parts]
        self._switches = [part for part in parts if hasattr(type(part), SWITCH) or SWITCH in vars(part)]

    def check(self, named: Collection[str] = ()) -> None:
        """Refuse a module that has other parameters than when the layout was taken, or the same in other places.

        Gradient checkpointing that was switched on since then is made right for clones.

        Args:
            named: names of parameters that a message should name first.

        Raises:
            ModelError: a parameter was added, removed or replaced, or a part got a forward of its own.
        """
        if not self._same():
            self._refuse_changes(named)
            self._read()  # parts without parameters may come and go
        if [attributes for attributes in self._attributes if "forward" in attributes]:
            refuse_unfaithful(self._module)
        replace_checkpointing(self._switches)

    def _same(self) -> bool:
        """Whether all is where it was; each line is a loop in C or a comprehension, since this runs in every pass."""
        (children, were), (holders, sizes), (places, values) = self._children, self._sizes, self._places
        same_parts = children == were and list(map(len, holders)) == sizes
        return same_parts and all(map(is_, [held.get(key) for held, key in places], values))

    def _refuse_changes(self, named: Collection[str]) -> None:
        parts = self._module.modules()
        now = _every_name(self._module, {part: (part._modules, part._parameters) for part in parts})
        before = _every_name(self._module, self._before)
        replaced = [name for name, place in now.items() if before.get(name) != place]
        removed = [name for name in before if name not in now]
        for how, names in (("added or replaced", replaced), ("removed", removed)):
            if names:
                first = next((name for name in named if name in names), names[0])
                raise ModelError(f"{first} was {how} after this learner was made; make a new learner")


def _every_name(part: nn.Module, tree: Mapping[nn.Module, _Content], path: str = "") -> dict[str, tuple[int, int]]:
    """Identity of each parameter, and of the module that holds it, under all names that it has.

    Args:
        part: the module, or a part of it.
        tree: the content of each part.
        path: name of the part, with a dot at its end.
    """
    children, parameters = tree[part]
    names = {f"{path}{key}": (id(part), id(value)) for key, value in parameters.items() if value is not None}
    for key, child in children.items():
        if child is not None:
            names |= _every_name(child, tree, f"{path}{key}.")
    return names


def facts(parameter: Tensor, graded: bool) -> Facts:
    """What the values of a clone depend on besides the parameter's own value.

    Args:
        parameter: the original's parameter.
        graded: whether the clone's value is connected with it, if it requires a gradient.
    """
    return parameter.dtype, parameter.device, parameter.shape, parameter.requires_grad if graded else None


def refuse_other_facts(name: str, before: Facts, now: Facts, graph: bool) -> None:
    """Refuse a pass of a clone whose original has been converted, moved, resized, frozen or thawed since.

    Args:
        name: the parameter's name.
        before: its facts when the clone was made.
        now: its facts at present.
        graph: whether the pass records a graph, without which ``requires_grad`` does not matter.

    Raises:
        ModelError: the facts differ.
    """
    if before[:3] != now[:3]:
        what = "converted, moved or resized"
        was, is_now = (f"{dtype} {tuple(shape)} on {device}" for dtype, device, shape, _ in (before, now))
    elif graph and before[3] != now[3]:
        what, was, is_now = "frozen or thawed", *(f"requires_grad {flag}" for flag in (before[3], now[3]))
    else:
        return
    raise ModelError(
        f"{name} was {what} after this clone was made (then {was}, now {is_now}); make a new clone from the learner"
    )
