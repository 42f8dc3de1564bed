"""The lines of a token file: bytes that are no text, byte-order marks, and what marks a document."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from pemeta.data.tables.table import about_content
from pemeta.data.tables.table import into as into
from pemeta.data.tables.table import shown as shown
from pemeta.data.tables.text_files import raw_lines
from pemeta.errors import DataError, excerpt

BYTE_ORDER_MARK = "\ufeff"
MARKER = re.compile(r"-DOC(START|END)-(\s|$)|#(begin|end) document\b")
"""The beginning of a line that marks where a document begins or ends, as in CoNLL-2003 and CoNLL-2012."""
KEYED = re.compile(r"# [^\t=]*(\t\w+)?=")
"""The beginning of a comment ``# key = value``, as in CoNLL-U, or ``# id NUMBER<TAB>domain=en``, as in MultiCoNER."""
DOCUMENT = re.compile(r"#\s*(newdoc\b|(\S+:)?doc(ument)?_?id\s*[=:])", re.IGNORECASE)
"""A comment that begins a document, as in CoNLL-U and HIPE-2022."""
SOURCE = re.compile(r"#\s*(\w+://\S+)")
"""A comment that names the page that a sentence is from, as in GermEval 2014."""
RETURNS = "tr '\\r' '\\n' <"
"""The command that makes line ends of carriage returns."""
TAG = re.compile(r"O|[A-Z]-\S+")
"""A tag of any scheme with prefixes."""


class Documents:
    """Counts the documents of a file by the marks between them."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._ended = False
        self._source: str | None = None

    def mark(self, line: str) -> bool:
        """Take note of a marker or a comment, and say whether a document begins or ends there."""
        source = SOURCE.match(line)
        begins = MARKER.match(line) is not None or DOCUMENT.match(line) is not None
        if source is not None and source[1] != self._source:
            self._source, begins = source[1], True
        if begins:
            self.end()
        return begins

    def end(self) -> None:
        """What follows is of another document."""
        self._ended = True

    def current(self) -> int | None:
        """Number of the document, from 0, of a sentence that begins here; None before the first mark."""
        if self._ended:
            self._number = 0 if self._number is None else self._number + 1
            self._ended = False
        return self._number


def as_path(path: object) -> Path:
    """A path that a user gave.

    Raises:
        DataError: It is none.
    """
    try:
        return Path(os.fspath(path))  # type: ignore[call-overload]
    except TypeError:
        raise DataError(f"expected the path of a file; found {excerpt(path)}; give a string or a Path") from None


def is_folder(path: Path) -> bool:
    """Whether a path is a folder's; one that no file system takes is not."""
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that is too long for a file
        return False


def not_utf8(path: Path, position: int) -> DataError:
    """The refusal of a file that is not UTF-8."""
    latin = f"if it is Latin-1: {into('iconv -f LATIN1 -t UTF-8', path)}, or say encoding: latin-1"
    advice = about_content(path) or f"convert the file to UTF-8; {latin}"
    return DataError(f"{shown(path)}: not UTF-8 at byte {position}; {advice}")


def without_mark(line: str, where: str, within: bool) -> str:
    """A line without the byte-order mark that a file begins with, whether alone or joined to others.

    Args:
        line: The line.
        where: Its file and number.
        within: Whether it stands within a sentence.

    Raises:
        DataError: It has the mark, and stands within a sentence.
    """
    line = line.lstrip(BYTE_ORDER_MARK)
    if within and line.strip():
        raise DataError(
            f"{where}: found a byte-order mark within a sentence, before {line[:80]!r}; put a blank line before it if "
            "another file begins there, or else remove it"
        )
    return line


def numbered_lines(path: Path, encoding: str | None = None) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers, one by one, without their ends; a compressed file is unpacked.

    Not ``splitlines()``: words of real data contain characters at which it splits (U+0085, U+2028).

    Args:
        path: The file.
        encoding: Its encoding, by default UTF-8.

    Raises:
        DataError: The file cannot be read, a line is not of the encoding, or it holds a NUL.
    """
    position = 0
    for number, line in enumerate(raw_lines(path, encoding), start=1):
        if isinstance(line, bytes):
            raw = line
            try:
                line = raw.decode()
            except UnicodeDecodeError as error:
                raise not_utf8(path, position + error.start) from None
            position += len(raw)
        line = line.removesuffix("\n").removesuffix("\r")
        if "\0" in line or (number == 1 and line.startswith("version https://git-lfs")):
            utf16 = into("iconv -f UTF-16LE -t UTF-8", path)
            kind = about_content(path) or f"a NUL is in binary files and in UTF-16: {utf16}"
            raise DataError(
                f"{shown(path)}, line {number}: found {'a NUL in ' * (chr(0) in line)}{line[:80]!r}; {kind}"
            )
        yield number, line
