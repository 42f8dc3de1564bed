"""Frozen, named descriptions that a configuration can hold: PE methods, priming algorithms, data, backbones."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError
from typing_extensions import Self

from pemeta.errors import ConfigError, unknown_name


class Frozen(BaseModel):
    """A value: immutable, comparable, and strict about keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Named(Frozen, ABC):
    """A family of :class:`Frozen` descriptions of which each member has a name.

    A direct subclass founds a family and sets ``kind``; a member sets ``name`` and is thereby
    registered. ``Family.parse`` accepts what a configuration may say: a name, a mapping with the key
    ``name`` and the member's fields, or a member.
    """

    kind: ClassVar[str]
    name: ClassVar[str]
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
    def parse(cls, value: object) -> Self:
        """A member from a name, a mapping or a member.

        Raises:
            ConfigError: the name is unknown, or a field is unknown or has a wrong value.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
            raise ConfigError(
                f"expected a {cls.kind}: a name, or a mapping with the key 'name'; found {value!r}. "
                f"Known: {', '.join(cls.members())}"
            )
        fields = dict(value)
        name = fields.pop("name")
        if name not in cls.members():
            raise ConfigError(unknown_name(cls.kind, name, cls.members()))
        try:
            return cls.members()[name](**fields)
        except ValidationError as error:
            raise ConfigError(f"{cls.kind} {name!r}: {describe(error, cls.members()[name])}") from None

    def to_config(self) -> dict[str, Any]:
        """The mapping that :meth:`parse` turns back into an equal description."""
        return {"name": self.name, **self.model_dump(mode="json")}


def describe(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """A pydantic error as one sentence: each key with its path, what was expected and what was found."""
    parts = []
    for item in error.errors():
        path = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            known = _fields_at(model, item["loc"][:-1])
            parts.append(f"{path}: {unknown_name('key', str(item['loc'][-1]), known)}")
        elif item["type"] == "missing":
            parts.append(f"{path}: this key is required")
        else:
            message = item["msg"].removeprefix("Value error, ")
            found = "" if item["type"] == "value_error" else f"; found {item['input']!r}"
            parts.append(f"{path}: {message[0].lower() + message[1:]}{found}" if path else message)
    return "; ".join(parts)


def _fields_at(model: type[BaseModel] | None, path: tuple[int | str, ...]) -> list[str]:
    for part in path:
        field = model.model_fields.get(str(part)) if model else None
        annotation = field.annotation if field else None
        model = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    return list(model.model_fields) if model else []
