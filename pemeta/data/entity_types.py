"""Entity types as a configuration gives them: a list, or what the types of the data are called here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from pemeta.data.sentences import LabelSet
from pemeta.errors import DataError, excerpt, unknown_name

TypeMap: TypeAlias = Mapping[str, str | None]
"""What each type of the data is called; entities of a type that is None are left out."""
Types: TypeAlias = tuple[str, ...] | dict[str, str | None] | dict[str, dict[str, str | None] | tuple[str, ...]]
"""Entity types: the types themselves, a map of the data's types to them, or either for each task."""


def checked_types(types: Any) -> Any:
    """What a configuration gives as ``types``, in its plain form: lists as tuples.

    Raises:
        ValueError: It is neither types, a map, nor one of them for each task.
    """
    if isinstance(types, list | tuple):
        for one in types:
            _check_entry(one, one)
        return tuple(types)
    if not isinstance(types, Mapping):
        raise ValueError(
            f"expected a list of entity types, or a mapping such as {{PERS: PER, DATE: null}}; found {excerpt(types)}"
        )
    if not types:
        raise ValueError("expected one entity type or more; found {}")
    within = [isinstance(value, Mapping | list | tuple) for value in types.values()]
    if any(within) and not all(within):
        name = str(list(types)[within.index(False)])
        raise ValueError(
            f"expected types for each task, or one map for all; found both: {excerpt(types)}; give the "
            f"task of {name!r}, or remove it"
        )
    for name, value in types.items():
        if all(within):
            _check_of_task(name, value)
        else:
            _check_entry(name, value)
    return {name: tuple(value) if isinstance(value, list) else value for name, value in types.items()}


def _check_of_task(task: Any, types: Any) -> None:
    if not isinstance(task, str):
        raise ValueError(f"expected the name of a task; found {excerpt(task)}; put it in quotes")
    if not types:
        raise ValueError(f"task {task!r} has no entity type; give one or more")
    for name, value in types.items() if isinstance(types, Mapping) else ((one, one) for one in types):
        _check_entry(name, value)


def _check_entry(name: Any, value: Any) -> None:
    for one in (name, value):
        if one is not None and not isinstance(one, str):
            raise ValueError(f"expected the name of an entity type; found {excerpt(one)}; put it in quotes")
    if name is None:
        raise ValueError("expected the name of an entity type; found null; put it in quotes")
    if name == "O" or name.startswith(("B-", "I-")):
        raise ValueError(f"expected entity types, not tags; found {name!r}; give the types without prefixes")


def label_set(types: Types) -> LabelSet:
    """The labels of all tasks: the types that stand on the right of any map, in their order.

    Every task has the same, so that they can share a head and their scores per type compare; our choice.

    Raises:
        ConfigError: They are not one or more different types, or a tag is among them.

    >>> label_set({"en": {"PERS": "PER", "DATE": None}, "de": ("PER", "LOC")}).types
    ('PER', 'LOC')
    """
    if not isinstance(types, Mapping):
        return LabelSet(types)
    found: list[str | None] = []
    for value in types.values():
        if isinstance(value, Mapping):
            found += value.values()
        elif isinstance(value, tuple):
            found += value
        else:
            found.append(value)
    return LabelSet(tuple(dict.fromkeys(one for one in found if one is not None)))


def type_map(types: Types, task: str) -> TypeMap | None:
    """What a task's types are called; None if they are called what they are.

    Raises:
        DataError: There are types for each task, but none for this one.
    """
    if not isinstance(types, Mapping):
        return None
    own: Any = types
    if any(isinstance(value, Mapping | tuple) for value in types.values()):
        if task not in types:
            raise DataError(f"{unknown_name('task', task, types)}; types are given for each task: give its too")
        own = types[task]
    return {one: one for one in own} if isinstance(own, tuple) else own


def mapped(tag: str, types: TypeMap) -> str | None:
    """An IOB2 tag with its type's other name, ``O`` if its type is left out; None if the type is not in the map."""
    if tag == "O":
        return tag
    if tag[2:] not in types:
        return None
    name = types[tag[2:]]
    return "O" if name is None else f"{tag[:2]}{name}"
