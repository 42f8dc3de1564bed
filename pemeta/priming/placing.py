"""Values of a clone in the one module that all clones share: put in place for the length of a pass."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import GeneratorType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from pemeta.errors import ModelError
from pemeta.utils.precision import as_held


class Place(NamedTuple):
    """One place of a parameter in a module; a tied parameter has several.

    Attributes:
        parameters: The dictionary of the submodule that holds it.
        key: Its key there.
        name: Its first name in the module.
    """

    parameters: dict[str, Any]
    key: str
    name: str


def find_places(module: nn.Module, names: Collection[str]) -> list[Place]:
    """Every place of the named parameters, under all the names that a tied parameter has."""
    wanted = set(names)
    first = {id(parameter): name for name, parameter in module.named_parameters() if name in wanted}
    return [
        Place(part._parameters, key, first[id(parameter)])
        for part in module.modules()
        for key, parameter in part._parameters.items()
        if id(parameter) in first
    ]


class _Holder(NamedTuple):
    """Who computes with a module at present."""

    owner: object
    thread: int


_lock = threading.Lock()
_holders: WeakKeyDictionary[nn.Module, _Holder] = WeakKeyDictionary()


@contextmanager
def placed(
    module: nn.Module,
    owner: object,
    places: Collection[Place],
    values: Mapping[str, Tensor],
    verify: Callable[[], None] | None = None,
) -> Iterator[None]:
    """Put values in their places for the block; afterwards, whatever is raised, the module has its own again.

    Args:
        module: The module that the places are in.
        owner: Whose values they are. A block may be within another one of the same owner.
        places: All places of the values; none, to keep others from computing with the module.
        values: By first name; in place of a parameter in half precision, a pass computes with the value so rounded.
        verify: Called before, if the block is not within another one, to refuse a module that has changed.

    Raises:
        ModelError: Another owner or thread computes with the module just now.
    """
    holder = _Holder(owner, threading.get_ident())
    with _lock:
        there = _holders.get(module)
        if there is not None and (there.owner is not owner or there.thread != holder.thread):
            raise ModelError(
                "another clone is computing with the module that they share; run the passes of clones one after the "
                "other, and give each thread a model of its own"
            )
        _holders[module] = holder
    before: list[Any] = []
    try:
        if there is None and verify is not None:
            verify()
        before += [parameters[key] for parameters, key, _ in places]
        fitting: dict[str, Tensor] = {}  # one tensor for all places of a tied parameter
        for (parameters, key, name), held in zip(places, before, strict=True):
            if name not in fitting:
                fitting[name] = as_held(values[name], held)
            parameters[key] = fitting[name]
        yield
    finally:
        for (parameters, key, _), value in zip(places, before, strict=False):  # none if a place is gone
            parameters[key] = value
        if there is None:
            with _lock:
                del _holders[module]


class View:
    """A module, or a part of it, as a clone sees it: whatever is called or looked up happens with the clone's values.

    Modes (``train`` and ``eval``) are those of the shared module. What a view gives is what the module gives, and
    parts of the module are views too; attributes are set on the original module.
    """

    def __init__(self, part: nn.Module, placing: Callable[[], AbstractContextManager[None]]) -> None:
        self.__dict__["_part"], self.__dict__["_placing"] = part, placing

    def __call__(self, *arguments: Any, **kwargs: Any) -> Any:
        """Compute with the clone's values."""
        with self._placing():
            return self._part(*arguments, **kwargs)

    def __getattr__(self, name: str) -> Any:
        with self._placing():
            found = getattr(self._part, name)
        if isinstance(found, nn.Module):
            return View(found, self._placing)
        if getattr(found, "__self__", None) is not self._part:
            return found

        def call(*arguments: Any, **kwargs: Any) -> Any:
            with self._placing():
                result = found(*arguments, **kwargs)
                # A generator would look at the module when its values are no longer in place.
                result = iter(list(result)) if isinstance(result, GeneratorType) else result
            if result is self._part:
                return self
            return View(result, self._placing) if isinstance(result, nn.Module) else result

        return call

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a clone's module is a view; set {name!r} on the original module")

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a clone's module is a view, which is not copied; copy or pickle the clone")

    def __getitem__(self, key: Any) -> Any:
        found = self._part[key]
        return View(found, self._placing) if isinstance(found, nn.Module) else found

    def __iter__(self) -> Iterator[Any]:
        parts = list(self._part)
        return iter([View(part, self._placing) if isinstance(part, nn.Module) else part for part in parts])

    def __len__(self) -> int:
        return len(self._part)

    def __contains__(self, key: object) -> bool:
        return key in self._part

    def __repr__(self) -> str:
        return f"View of {type(self._part).__name__}"
