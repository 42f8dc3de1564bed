"""A file as lines, whatever its encoding, and what is odd about its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pemeta.data.look.oddities import Oddities
from pemeta.data.tables.text_files import raw_lines
from pemeta.data.token_files.lines import BYTE_ORDER_MARK, into, shown
from pemeta.errors import DataError, counted, excerpt

MARKS = ((b"\xff\xfe\0\0", "UTF-32"), (b"\0\0\xfe\xff", "UTF-32"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))
"""Byte-order marks of other encodings, the longer of two that begin alike first."""

GUESS = ": see whether its letters below are right"
"""What is said of an encoding that is not certain."""


@dataclass(frozen=True)
class Text:
    """A file's text.

    Attributes:
        lines: Its lines, without what ends them.
        encoding: Its encoding in words.
        codec: The encoding that the readers have to be told; None for UTF-8.
        unreadable: Why the readers refuse its bytes, and a command that converts them; None if they do not.
    """

    lines: list[str]
    encoding: str
    codec: str | None = None
    unreadable: str | None = None


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, unpacked.

    Raises:
        DataError: It cannot be read, or is empty.
    """
    raw: bytes = b"".join(raw_lines(path))
    if not raw.strip(b"\xef\xbb\xbf \t\r\n"):
        raise DataError(f"{shown(path)} is empty; give a file with labelled sentences")
    return raw


def read_text(path: Path, oddities: Oddities) -> Text:
    """The text of a file; what is odd about its bytes is added to ``oddities``.

    Raises:
        DataError: It cannot be read, is empty, or is no text.
    """
    text, encoding, codec, unreadable = _decoded(path, read_bytes(path))
    if text.startswith(BYTE_ORDER_MARK):
        text, encoding = text.removeprefix(BYTE_ORDER_MARK), f"{encoding} with a byte-order mark"
    returns, pairs, ends = text.count("\r"), text.count("\r\n"), text.count("\n")
    if returns and not ends:
        command = into("tr '\\r' '\\n' <", path)
        unreadable = unreadable or f"its lines end with a carriage return alone; convert it: {command}"
        text = text.replace("\r", "\n")
    elif pairs and pairs < ends:
        oddities.add(
            "some lines end with a carriage return and others do not",
            f"line {_first(text, chr(13) + chr(10))}",
            hint=f"{pairs} of {counted(ends, 'line')} do; both are read",
        )
    elif pairs:
        encoding += ", lines end with a carriage return and a line feed"
    # Not splitlines(): words of real data contain characters at which it splits (U+0085, U+2028).
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if encoding.endswith(GUESS):
        for number, line in enumerate(lines, 1):
            if not line.isascii():
                oddities.add("a letter that depends on the encoding, a guess", f"line {number}", excerpt(line))
    return Text(lines, encoding, codec, unreadable)


def _decoded(path: Path, raw: bytes) -> tuple[str, str, str | None, str | None]:
    """The text, its encoding in words and for the readers, and why they refuse it."""
    name = next((name for mark, name in MARKS if raw.startswith(mark)), None) or _without_mark(raw)
    if name is not None:
        try:
            return raw.decode(name), name, name.lower(), None
        except UnicodeDecodeError:
            raise DataError(f"{shown(path)} is no text; give a file with labelled sentences") from None
    if b"\0" in raw[:4096]:
        raise DataError(f"{shown(path)} is no text: byte {raw.index(0)} is NUL; give a file with labelled sentences")
    try:
        return raw.decode(), "UTF-8", None, None
    except UnicodeDecodeError as error:
        where = f"byte {error.start}, in line {raw.count(10, 0, error.start) + 1}, is not UTF-8"
    lossy = raw.decode(errors="replace")
    lost = lossy.count("\ufffd")
    if sum(not character.isascii() for character in lossy) > 2 * lost:
        return lossy, "UTF-8 with broken bytes", None, f"{where}, while others are; mend that line"
    found = raw.decode("cp1252", errors="replace")
    name = "Windows-1252" if "\ufffd" not in found else "ISO-8859-1"
    text = found if name == "Windows-1252" else raw.decode("latin-1")
    return text, f"not UTF-8, but perhaps {name}{GUESS}", name.lower(), None


def _without_mark(raw: bytes) -> str | None:
    """UTF-16 without a byte-order mark, by its many NULs at every other byte."""
    start = raw[:4096]
    even, odd = start[::2].count(0), start[1::2].count(0)
    if max(even, odd) < len(start) / 8 or min(even, odd) > max(even, odd) / 8:
        return None
    return "UTF-16LE" if odd > even else "UTF-16BE"


def _first(text: str, part: str) -> int:
    """The number of the first line with a part, which is there."""
    return text.count("\n", 0, text.index(part)) + 1
