"""Frozen, named descriptions that a configuration can hold: PE methods, priming algorithms, data, backbones."""

from __future__ import annotations

import os
from abc import ABC
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeAlias, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from typing_extensions import Self

from pemeta.errors import ConfigError, FieldError, article, excerpt, sentence, shortened, unknown_name
from pemeta.utils.in_schema import InSchema


class Frozen(BaseModel):
    """An immutable, comparable value that rejects unknown keys and non-finite numbers.

    Numbers of NumPy and PyTorch are taken as numbers, and paths as texts where a text is expected.

    Raises:
        ConfigError: An argument is unknown, or its value wrong. Within a configuration the path of its key is named.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    other_keys: ClassVar[tuple[str, ...]] = ()
    """Keys that a validator of the whole replaces by fields."""

    def __new__(cls, /, *positional: Any, **arguments: Any) -> Self:
        """A new value; arguments without names are refused here, where the class that is made is known."""
        if positional:
            names = ", ".join(cls.model_fields) or "none"
            raise TypeError(
                f"{cls.__name__} takes arguments by name only; found {excerpt(positional[0])}; give its "
                f"name. Known: {names}"
            )
        return super().__new__(cls)

    def __init__(self, /, **arguments: Any) -> None:
        try:
            super().__init__(**arguments)
        except ValidationError as error:
            raise FieldError(type(self).__name__, problems(error, type(self), "argument")) from None

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # parsing goes past it, with paths of its own

    @field_validator("*", mode="before")
    @classmethod
    def _plain_values(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse `true`, which would count as 1, and integers of more than 64 bits."""
        value = plain(value)
        if isinstance(value, list | tuple) and any(one is not plain(one) for one in value):
            value = [plain(one) for one in value]
        if info.field_name is None:
            return value
        wanted = _types_in(cls.model_fields[info.field_name].annotation)
        if isinstance(value, os.PathLike) and str in wanted:
            return os.fspath(value)
        odd = [one for one in (value if isinstance(value, list | tuple) else [value]) if _is_odd(one)]
        if odd and wanted & {int, float} and not wanted & ({bool} if isinstance(odd[0], bool) else {float}):
            raise ValueError(f"input should be a number of at most 64 bits; found {excerpt(value)}")
        return value


def plain(value: Any) -> Any:
    """A scalar of NumPy or PyTorch as a number of Python; anything else unchanged.

    >>> import numpy as np
    >>> plain(np.int64(3)), plain(np.zeros(2)), plain("3")
    (3, array([0., 0.]), '3')
    """
    if getattr(value, "ndim", None) != 0 or not callable(getattr(value, "item", None)):
        return value
    try:
        return value.item()
    except (RuntimeError, ValueError, TypeError):  # a tensor without values
        return value


def _is_odd(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, int) and value.bit_length() > 63)


def _types_in(annotation: Any) -> set[type]:
    """All types in an annotation."""
    if parts := get_args(annotation):
        return set[type]().union(*map(_types_in, parts))
    return {annotation} if isinstance(annotation, type) else set()


def _distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse duplicates, which would count twice."""
    if len(set(values)) < len(values):
        raise ValueError(f"duplicate value in {list(values)}; remove one")
    return values


Distinct: TypeAlias = Annotated[tuple[str, ...], AfterValidator(_distinct), InSchema(lambda: {"uniqueItems": True})]


class Named(Frozen, ABC):
    """A family of named :class:`Frozen` descriptions.

    A direct subclass founds a family and sets ``kind``; a member sets ``name``, which registers it.
    ``Family.parse`` accepts whatever a configuration may hold: a name, a mapping with the key
    ``name`` and the member's fields, or a member. ``presets`` are further names: each stands for a mapping, whose
    fields others override, and leaves no trace in what is parsed.
    """

    kind: ClassVar[str]
    name: ClassVar[str]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    _members: ClassVar[dict[str, type[Named]]]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "kind" in cls.__dict__:
            cls._members = {}
        if "name" in cls.__dict__:
            cls._members[cls.name] = cls

    @classmethod
    def members(cls) -> dict[str, type[Self]]:
        """Every registered member of the family by name, sorted."""
        return dict(sorted(cls._members.items()))  # type: ignore[arg-type]

    @classmethod
    def expanded(cls, value: Mapping[str, Any]) -> dict[str, Any]:
        """A mapping in which the name of a preset is replaced by what the preset stands for."""
        preset = cls.presets.get(str(value.get("name")))
        return dict(value) if preset is None else {**value, **preset, **{k: v for k, v in value.items() if k != "name"}}

    @classmethod
    def parse(cls, value: object) -> Self:
        """A member from a name, a mapping or a member.

        Raises:
            ConfigError: The name is unknown, or a field is unknown or has a wrong value.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
            raise ConfigError(
                f"expected {article(cls.kind)}: a name, or a mapping with the key 'name'; found {excerpt(value)}. "
                f"Known: {', '.join(sorted([*cls.members(), *cls.presets]))}"
            )
        fields = cls.expanded(value)
        name = fields.pop("name")
        if name not in cls.members():
            raise ConfigError(unknown_name(cls.kind, name, [*cls.members(), *cls.presets]))
        try:
            return cls.members()[name].model_validate(fields)
        except ValidationError as error:
            raise FieldError(f"{cls.kind} {name!r}", problems(error, cls.members()[name])) from None

    def to_config(self) -> dict[str, Any]:
        """The description as a mapping, from which :meth:`parse` rebuilds an equal one."""
        return {"name": self.name, **self.model_dump(mode="json")}


def describe(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """A pydantic error as one sentence: each key with its path, what was expected and what was found."""
    return sentence(problems(error, model))


def problems(error: ValidationError, model: type[BaseModel] | None = None, noun: str = "key") -> list[tuple[str, str]]:
    """A pydantic error as pairs of a key's dotted path and what is wrong there.

    Args:
        error: The error.
        model: The model that was validated, whose keys are listed in messages about unknown ones.
        noun: What the model's own keys are called.
    """
    found: list[tuple[str, str]] = []
    # An unknown key first, which explains why another is missing.
    items = sorted(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
    wrong = {item["loc"][:-1] for item in items if item["loc"]}
    for item in items:
        if item["type"] == "too_short" and item["loc"] in wrong:
            continue  # only too short because its own items are wrong
        path = ".".join(shortened(str(part)) for part in item["loc"])
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, FieldError):
            found += [(".".join(filter(None, (path, below))), text) for below, text in cause.problems]
        else:
            top = noun if len(item["loc"]) == 1 else "key"
            alone = item["type"] == "extra_forbidden" and top != "key"  # the message names it already
            found.append(("" if alone else path, _message(item, model, top)))
    return found


def _message(item: Any, model: type[BaseModel] | None, noun: str) -> str:
    """The message for one entry of a pydantic error."""
    if item["type"] == "extra_forbidden":
        known = _fields_at(model, item["loc"][:-1])
        if noun == "key" and len(item["loc"]) == 1 and model is not None and issubclass(model, Named):
            known.append("name")
        return unknown_name(noun, shortened(str(item["loc"][-1])), known)
    if item["type"] == "missing":
        return f"this {noun} is required"
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "value_error":
        return message
    message = message.replace("a valid tuple", "a list").replace("a valid dictionary", "a mapping")
    if item["type"] == "path_type":
        message = "input should be a path"
    # YAML reads `no` as false and `1` as a number; a language may have such a name.
    quotes = "; put it in quotes" if item["type"] == "string_type" and isinstance(item["input"], int) else ""
    return f"{message[0].lower() + message[1:]}; found {excerpt(item['input'])}{quotes}"


def _fields_at(model: type[BaseModel] | None, path: tuple[int | str, ...]) -> list[str]:
    """Known keys at a path; the keys of mappings and the indices of lists along it are skipped."""
    within: Any = model
    for part in path:
        fields = getattr(within, "model_fields", None)
        within = fields[str(part)].annotation if fields and str(part) in fields else _model_among(within)
    found = _model_among(within)
    return [*getattr(found, "model_fields", {}), *getattr(found, "other_keys", ())]


def _model_among(annotation: Any) -> Any:
    """The pydantic model in ``Model``, ``Model | None``, ``dict[str, Model]`` etc., or None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_among, get_args(annotation))), None)
