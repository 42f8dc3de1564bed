"""Checks of the arguments of public functions against their annotations, in one place."""

from __future__ import annotations

import functools
import inspect
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin

from typing_extensions import Unpack, get_type_hints

from pemeta.errors import ArgumentError, article, excerpt, unknown_name
from pemeta.utils.registry import plain

T = TypeVar("T")
Range: TypeAlias = float | tuple[float, float]
"""The least value, or the least and the greatest."""
Test: TypeAlias = Callable[[Any], bool]
TEXT, HELD = (str, bytes), (list, tuple, set, frozenset)
"""Types that are no collections to users, and those of collections whose items are in memory."""

WORDS: Mapping[Any, tuple[str, str]] = {
    bool: ("True or False", "True or False"),
    int: ("a whole number", "whole numbers"),
    float: ("a finite number", "finite numbers"),
    str: ("a string", "strings"),
    None: ("None", "None"),
    NoneType: ("None", "None"),
}
"""What a type is called in messages, one of it and several."""


def checked(**ranges: Range | None) -> Callable[[T], T]:
    """A decorator that refuses arguments that are not what their annotations say, in a sentence.

    It checks a function, or a class's constructor, when it is called: types, items of lists, finite numbers and the
    given ranges. Numbers of NumPy and PyTorch become numbers of Python, and a generator in place of a list becomes a
    list. It takes some microseconds: little beside a step of training, too much for what runs for every example.

    Args:
        ranges: By argument, its least value, or its least and its greatest; None for an argument that the function
            checks itself, because it can say more.

    >>> @checked(size=1)
    ... def batches(size: int, shuffle: bool = False) -> int:
    ...     return size
    >>> batches(0)
    Traceback (most recent call last):
        ...
    pemeta.errors.ArgumentError: batches: size must be a whole number of at least 1; found 0
    >>> batches(1, shufle=True)
    Traceback (most recent call last):
        ...
    TypeError: batches: unknown argument 'shufle'; did you mean 'shuffle'? Known: shuffle, size
    """

    def decorate(target: Any) -> Any:
        if not isinstance(target, type):
            return _checked(target, ranges)
        target.__init__ = _checked(target.__init__, ranges)  # type: ignore[misc]
        return target

    return decorate


def _checked(function: Callable[..., Any], ranges: Mapping[str, Range | None]) -> Callable[..., Any]:
    signature = inspect.signature(function)

    @functools.cache  # annotations may name what the module defines below
    def hints() -> dict[str, Any]:
        inner = inspect.unwrap(function)  # what it returns may be known to type checkers alone
        arguments = {name: hint for name, hint in inner.__annotations__.items() if name != "return"}
        return get_type_hints(SimpleNamespace(__annotations__=arguments), inner.__globals__, include_extras=True)

    @functools.wraps(function)
    def call(*positional: Any, **named: Any) -> Any:
        where = _name(function, signature, positional)
        try:
            bound = signature.bind(*positional, **named)
        except TypeError as error:
            raise TypeError(f"{where}: {_misuse(signature, named, error)}") from None
        changed: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            if name in ranges and ranges[name] is None:
                continue
            hint, parameter = hints().get(name, Any), signature.parameters[name]
            taken = value
            if get_origin(hint) is Unpack:
                options = get_type_hints(get_args(hint)[0])
                for key in value.keys() - options.keys():
                    known = [*hints().keys() - {name}, *options]
                    raise TypeError(f"{where}: {unknown_name('argument', key, known)}")
                taken = {key: _taken(where, key, one, options[key], None) for key, one in value.items()}
            elif parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                taken = _taken(where, name, value, hint, ranges.get(name))
            if taken is not value:
                changed[name] = taken
        if not changed:
            return function(*positional, **named)
        bound.arguments.update(changed)
        return function(*bound.args, **bound.kwargs)

    return call


def _name(function: Callable[..., Any], signature: inspect.Signature, positional: tuple[Any, ...]) -> str:
    """What messages call a function: a method by its object's class, a constructor by the class alone."""
    first = next(iter(signature.parameters), "")
    if first not in ("self", "cls") or not positional:
        return function.__name__
    owner = positional[0] if first == "cls" else type(positional[0])
    return owner.__name__ if function.__name__ == "__init__" else f"{owner.__name__}.{function.__name__}"


def _misuse(signature: inspect.Signature, named: Mapping[str, Any], error: TypeError) -> str:
    """What is wrong with a call that does not fit a signature."""
    parameters = signature.parameters.items()
    known = [name for name, one in parameters if one.kind is not one.VAR_KEYWORD and name not in ("self", "cls")]
    unknown = [name for name in named if name not in known]
    return unknown_name("argument", unknown[0], known) if unknown else str(error)


def _taken(where: str, name: str, value: Any, hint: Any, within: Range | None) -> Any:
    """The value as the function takes it.

    Raises:
        ArgumentError: It is not what the annotation says, or out of its range.
    """
    if hint is not Any and isinstance(value, Iterator) and (fits([], hint) or fits((), hint)):
        value = list(value)
    if not fits(value, hint):
        value = next((one for one in _alternatives(value, hint) if fits(one, hint)), plain(value))
    if not fits(value, hint) or not _is_within(value, within):
        raise ArgumentError(f"{where}: {name} must be {expected(hint)}{_range(within)}; found {excerpt(value)}")
    return value


def _alternatives(value: Any, hint: Any) -> Iterator[Any]:
    """What a value may be taken for: a number or a path of Python, a list or a tuple of the same items."""
    if isinstance(value, os.PathLike):
        yield Path(value)
        return
    yield plain(value)
    unordered = isinstance(value, str | bytes | Mapping | set | frozenset)
    if isinstance(value, Collection) and not unordered and getattr(value, "ndim", 1) == 1:
        for kind in (list, tuple):
            if fits(kind(), hint):
                yield kind(map(plain, value))


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotation's type; what only a type checker understands fits.

    >>> fits(3, float), fits(True, int), fits(float("nan"), float), fits(["a"], list[str]), fits("a", list[str])
    (True, False, False, True, False)
    """
    return _test_of(hint)(value)


@functools.cache  # an annotation is taken apart once, and not in each call
def _test_of(hint: Any) -> Test:
    """A function that tells whether a value is of an annotation's type."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _test_of(parts[0])
    if origin in (Union, UnionType):
        tests = [_test_of(part) for part in parts]
        return lambda value: any(test(value) for test in tests)
    if origin is Literal:
        return lambda value: any(type(value) is type(part) and value == part for part in parts)
    if hint is None:
        return lambda value: value is None
    if hint in (int, float):
        return lambda value: _is_number(value, hint)
    if origin is Callable:
        return callable
    kind = origin or hint
    if hint is Any or not isinstance(kind, type):  # Any is a class, of which nothing is an instance
        return lambda value: True
    return _test_of_class(Mapping if kind is dict else kind, parts)  # transformers' batches are mappings of their own


def _test_of_class(kind: type, parts: tuple[Any, ...]) -> Test:
    """A function that tells whether a value is an instance of a class, with items of its parameters' types."""
    if not parts:
        text = kind in (str, bytes, object)
        return lambda value: isinstance(value, kind) and (text or not isinstance(value, TEXT))
    items_fit = _test_of_items(kind, parts)

    def test(value: Any) -> bool:
        if not isinstance(value, kind) or isinstance(value, TEXT):
            return False
        # An array is no list, although it can be iterated over.
        return getattr(value, "ndim", 1) == 1 and items_fit(value)

    return test


def _is_number(value: Any, kind: type) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else int):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return kind is int


def _test_of_items(kind: type, parts: tuple[Any, ...]) -> Test:
    """A test of the items of a collection in memory; others compute their items, and are asked for them later."""
    if not issubclass(kind, Iterable):
        return lambda value: True
    tests, fixed = [_test_of(part) for part in parts], kind is tuple and parts[-1] is not Ellipsis
    first, words = tests[0], parts[0] is str  # the words of whole corpora

    def test(value: Any) -> bool:
        if isinstance(value, dict):
            return all(map(first, value)) and (len(tests) == 1 or all(map(tests[1], value.values())))
        if not isinstance(value, HELD):
            return True
        if fixed:
            return len(value) == len(tests) and all(test(one) for test, one in zip(tests, value, strict=True))
        return all(isinstance(one, str) for one in value) if words else all(map(first, value))

    return test


def _is_within(value: Any, within: Range | None) -> bool:
    if within is None or not isinstance(value, int | float):
        return True
    least, most = within if isinstance(within, tuple) else (within, math.inf)
    return bool(least <= value <= most)


def _range(within: Range | None) -> str:
    if within is None:
        return ""
    return f" from {within[0]} to {within[1]}" if isinstance(within, tuple) else f" of at least {within}"


def expected(hint: Any, several: bool = False) -> str:
    """What an annotation stands for, in words.

    >>> expected(list[str] | None), expected(Literal["stop", "skip"]), expected(tuple[int, ...])
    ('a list of strings or None', "'stop' or 'skip'", 'a list of whole numbers')
    """
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return expected(parts[0], several)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(expected(part, several) for part in parts))
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if hint in WORDS:
        return WORDS[hint][several]
    if origin is Callable:
        return "functions" if several else "a function"
    kind = origin or hint
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return "mappings" if several else "a mapping"
    if isinstance(kind, type) and issubclass(kind, Collection | Iterable) and parts:
        if kind is tuple and parts[-1] is not Ellipsis:
            inner = ", ".join(expected(part) for part in parts)
            return f"tuples of {inner}" if several else f"a tuple of {inner}"
        return f"{'lists' if several else 'a list'} of {expected(parts[0], several=True)}"
    name = getattr(kind, "__name__", str(kind))
    return f"{name} objects" if several else article(name)
