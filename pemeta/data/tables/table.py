"""A table, wherever it comes from, and what is said about files that are none."""

from __future__ import annotations

import bz2
import gzip
import itertools
import lzma
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pemeta.data.rows import Row
from pemeta.errors import DataError, reason, shortened

PACKED: Mapping[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
"""Endings of files that are compressed, and what opens them."""


@dataclass(frozen=True)
class Table:
    """A table, of which the rows are read when they are asked for, once.

    Attributes:
        where: The file, or what else messages call the table.
        columns: Names of its columns; those of its first row, if each row names its own.
        rows: The rows, each with all its values as the table has them.
        names: By column, the names that its numbers stand for, if the table says so (a ClassLabel of ``datasets``).
    """

    where: str
    columns: tuple[str, ...]
    rows: Iterator[Row]
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def not_empty(self) -> Table:
        """The table, of which the first row has been read.

        Raises:
            DataError: It has no row, or its first one is malformed, or two columns have one name.
        """
        check_names(self.columns, self.where)
        first = next(self.rows, None)
        if first is None:
            raise DataError(f"{self.where} holds no row; check the path")
        columns = self.columns or tuple(first.values)
        return replace(self, columns=columns, rows=itertools.chain([first], self.rows))


def check_names(names: tuple[str, ...], where: str) -> None:
    """Refuse a table of which two columns have one name.

    Raises:
        DataError: Two have.
    """
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{where}: two columns are named {twice!r}; rename one of them")


def class_names(features: Any) -> dict[str, tuple[str, ...]]:
    """By column, the names of its numbers, of ``features`` of a data set: of numbers, and of lists of them."""
    found = {}
    for column, feature in (features or {}).items():
        names = getattr(of_values(feature), "names", None)
        if names is not None:
            found[str(column)] = tuple(map(str, names))
    return found


def of_values(feature: Any) -> Any:
    """What ``datasets`` knows about the values of a column, or of the lists in it."""
    return feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", feature)


def shown(path: Path) -> str:
    """A path in a message, on one line."""
    return str(path) if str(path).isprintable() else repr(str(path))


def unreadable(path: Path, error: Exception) -> DataError:
    """The error for a file that cannot be read; a NUL in its path is a ValueError."""
    system = getattr(error, "strerror", None)
    advice = (
        "check the path"
        if system or type(error) is ValueError
        else about_content(path) or "check that it is whole, and that format is right"
    )
    return DataError(f"cannot read {shown(path)}: {system or shortened(reason(error), 160)}; {advice}")


def about_content(path: Path) -> str | None:
    """What a file is that is not of the format that it should be, with what reads it; None if that cannot be told."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except (OSError, ValueError):
        return None
    kinds = {
        b"PAR1": "it is a Parquet file: set name: table, format: parquet",
        b"ARROW1": "it is an Arrow file: set name: table, format: arrow",
        b"\xff\xff\xff\xff": "it is an Arrow file: set name: table, format: arrow",
        b"version https://git-lfs": "it is a pointer of Git LFS: fetch the file itself with git lfs pull",
        b"PK\x03\x04": "it is an archive or a spreadsheet: unpack it, or save it as CSV",
        b"\x1f\x8b": "it is compressed by gzip: let its name end with .gz",
        b"BZh": "it is compressed by bzip2: let its name end with .bz2",
        b"\xfd7zXZ": "it is compressed by xz: let its name end with .xz",
        b"\xff\xfe": f"it is UTF-16: {into('iconv -f UTF-16 -t UTF-8', path)}",
        b"\xfe\xff": f"it is UTF-16: {into('iconv -f UTF-16 -t UTF-8', path)}",
        b"<!DOCTYPE": "it is a web page: fetch the file itself",
        b"<html": "it is a web page: fetch the file itself",
    }
    found = next((what for start, what in kinds.items() if head.startswith(start)), None)
    # What its name says is no news.
    return (
        None
        if found is None or (path.suffix and found.endswith((f" {path.suffix}", f": {path.suffix[1:]}")))
        else found
    )


def into(command: str, path: Path) -> str:
    """A command that makes a new file of a file."""
    packed = path.suffix.lower() in PACKED  # of which the command would take the bytes
    file = shlex.quote(str(path)) if str(path).isprintable() and not packed else "FILE"
    return f"{command} {file} > NEW{''.join(path.suffixes)}"
