"""Entities in brackets, as ``Entity=(person-1`` ... ``Entity=)`` in CoNLL-U and ``(PERSON*`` ... ``*)``, as IOB2."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from pemeta.data.token_rows import NESTED
from pemeta.errors import DataError, excerpt

_PART = re.compile(r"\(([^()]+)|([^()]*)\)|([^()]+)")
TYPE = "etype"
"""What the type is called in ``# global.Entity``, which names the parts of an entity."""


def are_brackets(values: Sequence[str]) -> bool:
    """Whether values annotate entities by brackets, and not by a tag for each word."""
    text = "".join(values)
    return any(mark in text for mark in "()*") and all(
        value in ("O", "*") or "(" in value or ")" in value for value in values
    )


def to_tags(values: Sequence[str], fields: str | None, place: Callable[[int], str]) -> list[str]:
    """The tags in IOB2 of a sentence's words.

    Args:
        values: What each word has: ``(TYPE`` where an entity begins, ``)`` where it ends, ``(TYPE)``, or ``O``; or
            the same around a ``*`` for the word, as in OntoNotes: ``(TYPE*``, ``*``, ``*)``.
        fields: What the parts of an entity between dashes are called; by default an entity is its type alone.
        place: Where a word stands, for messages.

    Raises:
        DataError: Entities are nested, not closed, or without a type.
    """
    tags, kind = [], ""
    for index, value in enumerate(values):
        closes = begins = False
        for found in _PART.finditer("" if value == "O" else value.replace("*", "")):
            opened, _, other = found.groups()
            if opened is not None:
                if kind or closes or begins:
                    raise DataError(f"{place(index)}: entity {excerpt('(' + opened)} begins within another; {NESTED}")
                kind, begins = _type(opened, fields, place(index)), True
            elif other is not None:
                raise DataError(f"{place(index)}: expected entities in brackets; found {excerpt(value)}")
            elif not kind:
                raise DataError(
                    f"{place(index)}: {excerpt(value)} closes an entity that did not begin; mend the brackets"
                )
            else:
                closes = True
                tags.append(f"{'B' if begins else 'I'}-{kind}")
                kind = ""
        if not closes:
            tags.append(f"{'B' if begins else 'I'}-{kind}" if kind else "O")
    if kind:
        raise DataError(f"{place(len(values) - 1)}: the entity of the type {kind!r} does not end; mend the brackets")
    return tags


def _type(opened: str, fields: str | None, where: str) -> str:
    """The type in what stands after an opening bracket."""
    parts = opened.split("-")
    if fields is None:  # `(person-1`: a number says which of its type, for coreference
        kinds = [part for part in parts if not part.isdecimal()]
        return kinds[0] if len(kinds) == 1 else opened
    names = fields.split("-")
    if TYPE not in names or len(parts) <= names.index(TYPE) or not parts[names.index(TYPE)]:
        raise DataError(
            f"{where}: expected the type of an entity as the part {TYPE!r} of {fields!r}, which # global.Entity "
            f"says; found {excerpt('(' + opened)}"
        )
    return parts[names.index(TYPE)]
