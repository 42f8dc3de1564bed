"""Rows of each split by role, whatever the kind of task that reads them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pemeta.data.roles import Roles
from pemeta.data.rows import Row
from pemeta.data.sentences import SPLITS, Split
from pemeta.data.streams import of_part
from pemeta.data.tables.held_out import Share, read_held_out

MESSAGES = "messages"
"""The role of conversations, of which the last turn is predicted from the others."""


@dataclass(frozen=True)
class RowStream:
    """The rows of one split, one after the other, with values by role.

    Attributes:
        read: Begins to read them.
        fingerprint: Finds a JSON value that tells all that the rows depend on, without reading them; None if there is
            no quicker way than to read them.
        notes: What was found or decided in reading, in a line each.
        number: How many rows these are, if that is known.
    """

    read: Callable[[], Iterable[Row]]
    fingerprint: Callable[[], Any] | None = None
    notes: tuple[str, ...] = ()
    number: int | None = None

    def count(self) -> int:
        """The number of rows, which are read if it is not known."""
        return sum(1 for _ in self.read()) if self.number is None else self.number


def rows_with_held_out(
    streams: Mapping[Split, RowStream], roles: Roles, shares: Mapping[Split, Share], seed: int, where: str
) -> dict[Split, RowStream]:
    """The rows of all splits, of which those that the data lacks are held out of train, which is read for it.

    Args:
        streams: The splits that the data has; train is one of them.
        roles: The roles that were read.
        shares: What becomes of each split that the data lacks.
        seed: Seed of the choice.
        where: What messages call the data.

    Raises:
        DataError: The data is malformed, or nothing would be left to train on.
    """
    train, found = streams["train"], dict(streams)
    notes = tuple(note for stream in streams.values() for note in stream.notes)
    lacking = {split: shares[split] for split in SPLITS if split not in streams}
    if lacking:
        text = partial(given_text, roles=roles)
        parts, more = read_held_out(train.read, lacking, seed, where, text, "example")
        notes = (*notes, *more)
        for split, part in parts.items():
            find = train.fingerprint and partial(of_part, train.fingerprint, part)
            found[split] = RowStream(part, find, number=part.number)
    return {split: replace(found[split], notes=notes) for split in SPLITS}


def given_text(row: Row, roles: Roles) -> str:
    """All of a row that something is predicted from, as one line; of messages, all turns but the last."""
    values = [_plain(row.values.get(name)) for name in roles.given if name != MESSAGES]
    if MESSAGES in roles.given:
        turns = _plain(row.values.get(MESSAGES))
        values.append(turns[:-1] if isinstance(turns, list) else turns)
    return json.dumps(values, sort_keys=True, ensure_ascii=False, default=str)


def _plain(value: Any) -> Any:
    """A value as it would be in JSON: some tables have lists as texts, and None for what is not there."""
    if isinstance(value, str) and value.lstrip().startswith("[{"):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items() if one is not None}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
