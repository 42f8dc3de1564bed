"""Rows: what every reader of data yields, whatever the kind of task.

A reader (of token files, tables or data sets of the hub) knows how its source is written, and yields one
:class:`Row` per example, by column. What an example is for, sentences with tags or texts with classes, is made of rows
elsewhere: :mod:`pemeta.data.token_rows` makes sentences of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One example as its source has it.

    Readers yield rows one by one, so that a source need not fit into memory.

    Attributes:
        values: The values by column, such as ``{"tokens": ["Ada", "slept"], "tags": ["B-PER", "O"]}``.
        where: Where the source has it, such as ``train.txt, line 12``; every message about it begins with that.
    """

    values: Mapping[str, Any]
    where: str
