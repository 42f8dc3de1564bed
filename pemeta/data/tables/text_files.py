"""Tables in text files: JSON lines, and values between separators.

They are read by Python's own modules, and not into a data frame, which would guess: the words ``NA`` and ``null`` would
be missing, ``007`` a number, and ``2020-01-01`` a date. Those modules also know in which line something is wrong.
"""

from __future__ import annotations

import csv
import json
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pemeta.data.rows import Row
from pemeta.data.tables.table import PACKED as PACKED
from pemeta.data.tables.table import about_content, check_names, into, shown, unreadable
from pemeta.errors import DataError, counted, excerpt, reason

MARK = b"\xef\xbb\xbf"
"""The byte-order mark of UTF-8."""


class _Lines(Iterator[str]):
    """The lines of a text file, of which it is known how many were read.

    Attributes:
        number: Number of the last line.
        first: The first line since :meth:`begin`.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.number, self.first = path, 0, ""
        self._raw = raw_lines(path)

    def begin(self) -> str:
        """Begin a row with the next line; returns where that is."""
        self.first = ""
        return f"{shown(self.path)}, line {self.number + 1}"

    def __next__(self) -> str:
        raw: bytes = next(self._raw)
        self.number += 1
        where = f"{shown(self.path)}, line {self.number}"
        if self.number == 1 and self.path.suffix.lower() not in PACKED and (kind := about_content(self.path)):
            raise DataError(f"{where}: expected text; found {excerpt(raw[:80])}; {kind}")
        try:
            line = (raw.removeprefix(MARK) if self.number == 1 else raw).decode()
        except UnicodeDecodeError as error:
            advice = f"if it is Latin-1: {into('iconv -f LATIN1 -t UTF-8', self.path)}"
            found = excerpt(raw[:80])
            raise DataError(f"{where}: not UTF-8 at byte {error.start} of the line; found {found}; {advice}") from None
        if "\0" in line:
            advice = f"if it is UTF-16: {into('iconv -f UTF-16LE -t UTF-8', self.path)}"
            raise DataError(f"{where}: found a NUL in {excerpt(line[:80])}; {advice}")
        self.first = self.first or line
        return line


def raw_lines(path: Path, encoding: str | None = None) -> Iterator[Any]:
    """The lines of a file, unpacked: as bytes, or as text of an encoding; a line feed ends each.

    Raises:
        DataError: The file cannot be read, or is not of the encoding.
    """
    how = {"mode": "rb"} if encoding is None else {"mode": "rt", "encoding": encoding, "newline": "\n"}
    try:
        with PACKED.get(path.suffix.lower(), Path.open)(path, **how) as file:
            yield from file
    except UnicodeError as error:
        raise DataError(f"{shown(path)}: not {encoding}, but {reason(error)}; correct encoding") from None
    except (OSError, ValueError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise unreadable(path, error) from None


# JSON


def json_rows(path: Path) -> Iterator[Row]:
    """The JSON objects of a file, one in each line, or all in one list.

    Raises:
        DataError: It cannot be read, or something in it is no object.
    """
    lines, first = _Lines(path), True
    for line in lines:
        if not line.strip():
            continue
        if first and line.lstrip().startswith("["):
            yield from _listed_rows(path, "\n" * (lines.number - 1) + line + "".join(lines))
            return
        first = False
        where = f"{shown(path)}, line {lines.number}"
        yield Row(_object(_parsed(path, line, where), where), where)


def _listed_rows(path: Path, text: str) -> Iterator[Row]:
    rows = _parsed(path, text, None)
    for number, row in enumerate(rows):
        where = f"{shown(path)}, row {number}"
        yield Row(_object(row, where), where)


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f'{where}: expected a JSON object, {{"COLUMN": VALUE, ...}}; found {excerpt(value)}')
    return value


def _parsed(path: Path, text: str, where: str | None) -> Any:
    """The value that a text is in JSON; ``where`` is None if it is the whole file."""
    try:
        return json.loads(text, object_pairs_hook=_distinct)
    except json.JSONDecodeError as error:
        line = text.split("\n")[error.lineno - 1].strip() or text.strip()
        within = where or f"{shown(path)}, line {error.lineno}"
        advice = (
            "write each row as one JSON object in a line of its own, as pandas does with "
            "to_json(PATH, orient='records', lines=True)"
        )
        what = f"not JSON at character {error.colno} ({error.msg})"
        raise DataError(f"{within}: {what}; found {excerpt(line)}; {advice}") from None
    except (ValueError, RecursionError) as error:  # a key that is there twice, brackets without end
        raise DataError(f"{where or shown(path)}: not JSON: {reason(error)}; found {excerpt(text.strip())}") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, of which no two keys are the same."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is there twice; remove one")
    return found


# Values between separators


def delimited_rows(path: Path, separator: str, quotes: bool | None, header: bool) -> Iterator[Row]:
    """The rows of a file with values between separators.

    Args:
        path: The file.
        separator: What stands between the values of a line, one character.
        quotes: Whether quotation marks around a value are not part of it; if None they are not, but a value may not
            have several lines, because a quotation mark that is a word would begin such a one.
        header: Whether the first line names the columns; otherwise their names are ``1``, ``2`` ...

    Raises:
        DataError: It cannot be read, or a line has not as many values as there are columns.
    """
    lines = _Lines(path)
    reader = csv.reader(
        lines, delimiter=separator, quoting=csv.QUOTE_NONE if quotes is False else csv.QUOTE_MINIMAL, strict=True
    )
    names: tuple[str, ...] | None = None
    while True:
        where, before = lines.begin(), lines.number
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{where}: {_misread(error, lines)}") from None
        if lines.number > before + 1 and quotes is None:
            raise DataError(
                f"{where}: a quotation mark opens a value that goes on to line {lines.number}; found "
                f"{excerpt(lines.first)}; set quotes: false if it is a character like others, or quotes: true if the "
                "value has several lines"
            )
        if not values:  # a blank line
            continue
        if names is None:
            names = tuple(values) if header else tuple(str(n + 1) for n in range(len(values)))
            check_names(names, where)
            if header:
                continue
        if len(values) != len(names):
            quote = f"put quotation marks around a value that holds {separator!r}"
            raise DataError(
                f"{where}: expected {counted(len(names), 'value')}, as in the {'header' if header else 'first line'}; "
                f"found {len(values)}: {excerpt(lines.first)}; "
                f"{quote if len(values) > len(names) else 'give the line all values, even if they are empty'}"
            )
        yield Row(dict(zip(names, values, strict=True)), where)


def _misread(error: csv.Error, lines: _Lines) -> str:
    """What is wrong with a line that the reader refuses."""
    found = f"{reason(error)}; found {excerpt(lines.first)}"
    if "\r" in lines.first.rstrip("\r\n"):
        turned = into("tr '\\r' '\\n' <", lines.path)
        return f"{found}; if lines end with a carriage return alone: {turned}"
    if '"' in lines.first:
        return (
            f"{found}; set quotes: false if quotation marks are characters like others, or else double them in values"
        )
    return f"{found}; check that format is right"
