"""Neutral values: how a configuration gets new keys without outdating the records that were made before them.

A record, a primed model and a pretrained backbone each hold a digest of the configuration that they depend on. A key
whose value is *neutral* is omitted from that digest, and from the configuration that a record holds, so that both are
what they were before the key existed.

What a maintainer does:

* **A new key** that can change results declares the value under which results are what they were before it::

      early_stopping: Annotated[int | None, Neutral(None)] = None

  The neutral value is written out, never computed from defaults, and stays for good, even when the default changes:
  results do not follow defaults. A key without a neutral value is always part of the digest; if results cannot be as
  they were, that is right. A key that cannot change results is listed in
  :data:`~pemeta.experiments.config.WITHOUT_EFFECT` if it stands at the top of the configuration.
* **A default that changes** is first written out, with its old value, in every committed configuration that relied on
  it; their digests then stay what they are. The neutral value does not change.

Records are never rewritten.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel, TypeAdapter

from pemeta.utils.registry import Named


@dataclass(frozen=True, eq=False)  # by identity, or typing would take Neutral(False) for an earlier Neutral(0)
class Neutral:
    """Marks a key of a configuration, in ``Annotated``, with the value under which it changes no result.

    It belongs to the key's whole type: ``Annotated[int | None, Neutral(None)]``, not ``Annotated[int, ...] | None``.

    Attributes:
        value: the neutral value, as a configuration file could hold it.
    """

    value: Any


def without_neutral(description: BaseModel, without: Collection[str] = ()) -> dict[str, Any]:
    """A description as JSON, without the keys, at any depth, that have their neutral value.

    Different descriptions of one type give different JSON: a key can be absent for one value only.

    Args:
        description: what a digest is to be made of.
        without: keys of its own that are omitted too, whatever their value.
    """
    dumped = description.model_dump(mode="json", exclude=set(without))
    if isinstance(description, Named):
        dumped = {"name": description.name, **dumped}
    result: dict[str, Any] = _reduced(description, dumped)
    return result


def _reduced(value: Any, dumped: Any) -> Any:
    """``dumped``, the JSON of ``value``, without neutral keys."""
    if isinstance(value, BaseModel) and isinstance(dumped, dict):
        neutral = _neutral_values(type(value))
        return {
            key: _reduced(getattr(value, key, None), item)
            for key, item in dumped.items()
            if key not in neutral or _text(item) != neutral[key]
        }
    if isinstance(value, Mapping) and isinstance(dumped, dict):
        return {key: _reduced(value.get(key), item) for key, item in dumped.items()}
    if isinstance(value, list | tuple) and isinstance(dumped, list):
        return [_reduced(*pair) for pair in zip(value, dumped, strict=True)]
    return dumped


@cache
def _neutral_values(kind: type[BaseModel]) -> dict[str, str]:
    """The neutral values of a class's keys, as JSON texts, in the form that its keys' types give them."""
    found = {}
    for key, field in kind.model_fields.items():
        for mark in field.metadata:
            if isinstance(mark, Neutral):
                adapter: TypeAdapter[Any] = TypeAdapter(field.rebuild_annotation())
                found[key] = _text(adapter.dump_python(adapter.validate_python(mark.value), mode="json"))
    return found


def _text(value: Any) -> str:
    """JSON, in which 0, 0.0 and False differ."""
    return json.dumps(value, sort_keys=True)
