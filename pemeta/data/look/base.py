"""What one file holds, whatever its format and whatever kind of task it is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pemeta.data.look.oddities import Oddities
from pemeta.data.look.tally import Counts
from pemeta.data.schemes import Scheme


@dataclass(frozen=True)
class Asked:
    """What the user knows about a file already.

    Attributes:
        word: The column of the words, by its number from 1 or its name.
        tag: That of the tags; in CoNLL-U, also a key of MISC.
        scheme: Scheme of the tags.
        names: The tags that integers mean, in order.
        kind: The kind of task that it is for.
        columns: The columns of roles, by name, such as ``{"text": "review"}``.
    """

    word: str | None = None
    tag: str | None = None
    scheme: Scheme | None = None
    names: tuple[str, ...] | None = None
    kind: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def about_tokens(self) -> bool:
        """Whether this is about words and tags."""
        told = (self.word, self.tag, self.scheme, self.names)
        return self.kind == "token_classification" or any(one is not None for one in told)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a file holds.

    Attributes:
        path: The file.
        source: The data source that reads it: ``conll`` or ``table``.
        likeness: Its format, in words.
        encoding: Its encoding, in words; empty for what is no text.
        settings: What a configuration says of the format, without what the content says, such as types.
        problem: Why it cannot be read as it is, and what to do; None if it can be.
        oddities: What is odd in it.
        tally: What it holds.
        kind: The kind of task that it is for.
        of_tasks: Columns of a table whose values may be tasks, with the values.
    """

    path: Path
    source: str
    likeness: str
    encoding: str
    settings: dict[str, Any]
    problem: str | None
    oddities: Oddities
    tally: Counts
    kind: str = "token_classification"
    of_tasks: dict[str, list[str]] = field(default_factory=dict)
