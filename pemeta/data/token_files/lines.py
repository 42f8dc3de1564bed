"""The lines of a token file: bytes that are no text, byte-order marks, and what marks a document."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from pemeta.errors import DataError, excerpt, reason

BYTE_ORDER_MARK = "\ufeff"
MARKER = re.compile(r"-DOC(START|END)-(\s|$)")
"""The beginning of a line that marks where a document begins or ends, as in CoNLL-2003."""
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


def shown(path: Path) -> str:
    """A path in a message, on one line."""
    return str(path) if str(path).isprintable() else repr(str(path))


def is_folder(path: Path) -> bool:
    """Whether a path is a folder's; one that no file system takes is not."""
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that is too long for a file
        return False


def unreadable(path: Path, error: OSError | ValueError) -> DataError:
    """The refusal of a file that cannot be opened or read; a NUL in its path is a ValueError."""
    why = error.strerror if isinstance(error, OSError) else reason(error)
    return DataError(f"cannot read {shown(path)}: {why}; check the path")


def not_utf8(path: Path, raw: bytes, position: int) -> DataError:
    """The refusal of a file that is not UTF-8, of which ``raw`` is the beginning."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        advice = f"it is UTF-16: {into('iconv -f UTF-16 -t UTF-8', path)}"
    else:
        advice = f"if it is Latin-1: {into('iconv -f LATIN1 -t UTF-8', path)}"
    return DataError(f"{shown(path)}: not UTF-8 at byte {position}; convert the file to UTF-8; {advice}")


def into(command: str, path: Path) -> str:
    """A shell command that writes a new file from a path."""
    file = shlex.quote(str(path)) if str(path).isprintable() else "FILE"
    return f"{command} {file} > NEW.conll"


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


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers, one by one, without their ends.

    Not ``splitlines()``: words of real data contain characters at which it splits (U+0085, U+2028).

    Raises:
        DataError: The file cannot be read, or a line is not UTF-8, holds a NUL, or ends with a carriage return alone.
    """
    position = 0
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                try:
                    line = raw.decode()
                except UnicodeDecodeError as error:
                    beginning = raw if number == 1 else b""
                    raise not_utf8(path, beginning, position + error.start) from None
                position += len(raw)
                line = line.removesuffix("\n").removesuffix("\r")
                if "\0" in line:
                    utf16 = into("iconv -f UTF-16LE -t UTF-8", path)
                    raise DataError(
                        f"{shown(path)}, line {number}: found a NUL in {line[:80]!r}; a NUL is in binary files and in "
                        f"UTF-16: {utf16}"
                    )
                yield number, line
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):  # which is a ValueError
            raise
        raise unreadable(path, error) from None
