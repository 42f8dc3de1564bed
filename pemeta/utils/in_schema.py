"""What a JSON schema says of a value that a validator of pemeta's own checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class InSchema:
    """Marks a type, in ``Annotated``, with keys of its JSON schema.

    Attributes:
        keys: Finds the keys, when a schema is made: what is registered may be more then.
    """

    keys: Callable[[], Mapping[str, Any]]

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        """The type's schema, with the keys."""
        return {**handler(schema), **self.keys()}
