"""Classes of texts: their names, and the class that a label means."""

from __future__ import annotations

from collections.abc import Iterable

from pemeta.errors import ConfigError, DataError, excerpt, unknown_name
from pemeta.utils.values import listed, missing, whole


def class_names(classes: Iterable[object]) -> tuple[tuple[str, ...], bool]:
    """The names of classes, and whether the classes are integers, named as they are written.

    Raises:
        ConfigError: They are not two or more different names in an order.

    >>> class_names(["no", "yes"]), class_names([0, 1])
    ((('no', 'yes'), False), (('0', '1'), True))
    """
    try:
        given = listed(classes, "classes", "['no', 'yes']")
    except DataError:
        raise ConfigError(
            f"classes must be two or more different names; found {excerpt(classes)}; give a list of them"
        ) from None
    numbers = bool(given) and all(whole(one) is not None for one in given)
    names = tuple(_written(one) for one in given)
    named = numbers or all(isinstance(one, str) and one.strip() for one in given)
    if not named or len(names) < 2 or len(set(names)) < len(names):
        raise ConfigError(f"classes must be two or more different names; found {excerpt(classes)}")
    return names, numbers


def class_of(label: object, names: tuple[str, ...], by_value: bool, where: str) -> str:
    """The name of the class that a label means.

    Args:
        label: A name, an index, or one of the integers that the classes are.
        names: Names of the classes.
        by_value: Whether the classes are integers.
        where: What has the label, for messages.

    Raises:
        DataError: It means no class, or may mean two.
    """
    index = whole(label)
    if isinstance(label, str) or (by_value and index is not None):
        name = _written(label)
        if name not in names:
            raise DataError(f"{where}: {unknown_name('class', name, names)}{_unlabelled(index)}")
        return name
    if missing(label):
        raise DataError(f"{where} has no label ({label}); remove it, or give it one")
    if index is None:
        raise DataError(
            f"{where}: a label must be the name or the index of a class; found {excerpt(label)}; the classes are "
            f"{excerpt(names)}"
        )
    if not 0 <= index < len(names):
        raise DataError(
            f"{where}: a label must be an index from 0 to {len(names) - 1}; found {index}; the classes are "
            f"{excerpt(names)}{_unlabelled(index)}"
        )
    if _written(label) in names and _written(label) != names[index]:
        raise DataError(
            f"{where}: the label {label} is the index of the class {names[index]!r} and also a class's name; give the "
            "classes as integers, or the labels as strings"
        )
    return names[index]


def _written(value: object) -> str:
    """A class or a label as a name: integers of all libraries alike."""
    number = None if isinstance(value, bool) else whole(value)
    return str(value if number is None else number)


def _unlabelled(index: int | None) -> str:
    return "; -1 marks texts without a label, as in GLUE's test sets: remove them" if index == -1 else ""
