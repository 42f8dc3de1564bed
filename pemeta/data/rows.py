"""Rows: what every reader of data yields, whatever the kind of task.

A reader (of token files, tables or data sets of the hub) knows how its source is written, and yields one
:class:`Row` per example, by column. What an example is for, sentences with tags or texts with classes, is made of rows
elsewhere: :mod:`pemeta.data.token_rows` makes sentences of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One example as its source has it.

    Readers yield rows one by one, so that a source need not fit into memory.

    Attributes:
        values: The values by column, such as ``{"tokens": ["Ada", "slept"], "tags": ["B-PER", "O"]}``.
        where: Where the source has it, such as ``train.txt, line 12``; every message about it begins with that.
        lines: Where each of an example's tokens stands in the source, if each has a line of its own.
    """

    values: Mapping[str, Any]
    where: str
    lines: Sequence[int] = ()

    @property
    def source(self) -> str:
        """The source, such as a file's path, without the place in it."""
        return self.where.rpartition(", ")[0]

    def place(self, index: int) -> str:
        """Where the token of an index stands.

        >>> Row({"tokens": ["Ada", "slept"]}, "train.txt, line 12", (12, 14)).place(1)
        'train.txt, line 14'
        """
        return f"{self.source}, line {self.lines[index]}" if self.lines else self.where
