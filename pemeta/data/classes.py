"""Labels of texts: the names of classes, and the class, the classes or the number that a label means."""

from __future__ import annotations

import math
import numbers
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

from pemeta.errors import ConfigError, DataError, excerpt, shortened, unknown_name
from pemeta.utils.values import listed, missing, whole

Problem: TypeAlias = Literal["single_label", "multi_label", "regression"]
"""What the label of a text is: one class, any number of classes, or a number."""
PROBLEMS: tuple[Problem, ...] = get_args(Problem)
NUMBER = "value"
"""Name of a number that is predicted, where it has no other."""


def class_names(classes: Iterable[object], least: int = 2) -> tuple[tuple[str, ...], bool]:
    """The names of classes, and whether the classes are integers, named as they are written.

    Args:
        classes: The classes.
        least: How many there must be.

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
    by_value = bool(given) and all(whole(one) is not None for one in given)
    names = tuple(written(one) for one in given)
    named = by_value or all(isinstance(one, str) and one.strip() for one in given)
    if not named or len(names) < least or len(set(names)) < len(names):
        number = "two" if least == 2 else "one"
        raise ConfigError(f"classes must be {number} or more different names; found {excerpt(classes)}")
    return names, by_value


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
        name = written(label)
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
    if written(label) in names and written(label) != names[index]:
        raise DataError(
            f"{where}: the label {label} is the index of the class {names[index]!r} and also a class's name; give the "
            "classes as integers, or the labels as strings"
        )
    return names[index]


def classes_of(label: Any, names: tuple[str, ...], by_value: bool, where: str) -> tuple[str, ...]:
    """The classes that a label of several means, in their order.

    Args:
        label: A list of what :func:`class_of` takes, which may be empty.
        names: Names of the classes.
        by_value: Whether the classes are integers.
        where: What has the label, for messages.

    Raises:
        DataError: It is no list, or one of them means no class, or may mean two.
    """
    if isinstance(label, str) or whole(label) is not None or missing(label):
        found = "nothing" if missing(label) else f"the single {excerpt(label)}"
        raise DataError(f"{where}: a text with several labels needs a list of classes; found {found}; give [] for none")
    if isinstance(label, set | frozenset):
        label = sorted(label, key=str)
    try:
        given = listed(label, "labels", f"[{names[0]!r}]")
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    found_names = {class_of(one, names, by_value, where) for one in given}
    return tuple(name for name in names if name in found_names)


def number_name(classes: Iterable[object] | None) -> tuple[str, ...]:
    """The name of the number that is predicted.

    Raises:
        ConfigError: There are several, or it is no name.
    """
    try:
        given = (NUMBER,) if classes is None else listed(classes, "classes", f"[{NUMBER!r}]")
    except DataError:
        given = ()
    if len(given) != 1 or not isinstance(given[0], str) or not given[0].strip():
        raise ConfigError(
            f"regression predicts one number, so that classes must be None, or its name alone; found {excerpt(classes)}"
        )
    return (str(given[0]),)


def number_of(label: object, where: str) -> float:
    """The number that a label is, which may be written as a text.

    Raises:
        DataError: It is none, or not finite.

    >>> number_of("3.5", "text 1"), number_of(2, "text 2")
    (3.5, 2.0)
    """
    if missing(label):
        raise DataError(f"{where} has no number ({label}); remove it, or give it one")
    try:
        if isinstance(label, bool) or not isinstance(label, str | numbers.Real):
            label = label.item()  # type: ignore[attr-defined]  # of other libraries
        found = float(label)  # type: ignore[arg-type]
    except (AttributeError, TypeError, ValueError, RuntimeError, OverflowError):
        raise DataError(
            f"{where}: expected a number to predict; found {excerpt(label)}; classes are for problem: single_label"
        ) from None
    if not math.isfinite(found):
        raise DataError(f"{where}: expected a finite number; found {found}; remove it")
    return found


def balanced_weights(labels: Iterable[Any], classes: Sequence[str]) -> tuple[float, ...]:
    """The weight of each class that makes all count alike: N / (C N_c) for N_c of N labels, as in scikit-learn.

    Of several labels per text each weighs how much more often a text lacks it than has it.

    Args:
        labels: The class of each text, or its classes.
        classes: Names of all classes.

    Raises:
        DataError: A class has no example.

    >>> balanced_weights(["a", "a", "a", "b"], ["a", "b"])
    (0.6666666666666666, 2.0)
    >>> balanced_weights([("a",), (), (), ()], ["a"])
    (3.0,)
    """
    given = list(labels)
    several = any(not isinstance(label, str) for label in given)
    counts = Counter(name for label in given for name in ([label] if isinstance(label, str) else label))
    without = [name for name in classes if not counts[name]]
    if without:
        raise DataError(
            "balanced class weights need an example of each class; there is none of "
            f"{shortened(', '.join(without), 100)}; remove these classes, or give the weights"
        )
    if several:
        return tuple((len(given) - counts[name]) / counts[name] for name in classes)
    return tuple(len(given) / (len(classes) * counts[name]) for name in classes)


def checked_weights(weights: Any, classes: Sequence[str], labels: Iterable[Any]) -> tuple[float, ...] | None:
    """The weight of each class, in their order.

    Args:
        weights: None, ``balanced``, a weight by class, or one for each in their order.
        classes: Names of all classes.
        labels: Those that ``balanced`` follows from.

    Raises:
        ConfigError: There is not one weight above zero for each class.
        DataError: ``balanced`` is given, and a class has no example.
    """
    if weights is None:
        return None
    if isinstance(weights, str):
        if weights != "balanced":
            raise ConfigError(f"class_weights must be 'balanced', or a weight for each class; found {weights!r}")
        return balanced_weights(labels, classes)
    if isinstance(weights, Mapping):
        odd = [name for name in weights if str(name) not in classes]
        if odd:
            raise ConfigError(f"class_weights: {shortened(unknown_name('class', str(odd[0]), classes), 300)}")
        given = {str(name): weight for name, weight in weights.items()}
        weights = [given.get(name, 1.0) for name in classes]
    try:
        found = tuple(float(weight) for weight in weights)
    except (TypeError, ValueError):
        found = ()
    if len(found) != len(classes) or not all(math.isfinite(weight) and weight > 0 for weight in found):
        raise ConfigError(
            f"class_weights must be a number above 0 for each of the {len(classes)} classes; found {excerpt(weights)}"
        )
    return found


def written(value: object) -> str:
    """A class or a label as a name: integers of all libraries alike."""
    number = None if isinstance(value, bool) else whole(value)
    return str(value if number is None else number)


def _unlabelled(index: int | None) -> str:
    return "; -1 marks texts without a label, as in GLUE's test sets: remove them" if index == -1 else ""
