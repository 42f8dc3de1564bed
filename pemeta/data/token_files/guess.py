"""How a token file seems to be written, and whether it can be read so."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pemeta.data.schemes import SCHEMES, Detected
from pemeta.data.token_files.columns import token_rows
from pemeta.data.token_files.formats import TokenFormat
from pemeta.data.token_files.lines import BYTE_ORDER_MARK, KEYED, MARKER, TAG
from pemeta.data.token_files.shapes import NUMBER, split_line
from pemeta.data.token_rows import detect_rows
from pemeta.errors import DataError

SEPARATORS = ("tab", "blanks", ",", ";", "|")
MOST_TYPES = 60
"""A column with more different values than this has no types."""
_NAME = re.compile(
    "^(#|id|words?|tok(en)?s?|form|text|tags?|labels?|ne[rl]?|ner?[-_]?tags?|.*entit.*|(iob|bio).*|ne-.*)$", re.I
)
"""What a header calls a column of words or tags."""


@dataclass(frozen=True)
class Guess:
    """A format that a file seems to have.

    Attributes:
        form: The format.
        separator: What separates its columns.
        width: Number of columns.
        tags: The columns, from 1, that have a tag in every line.
        numbered: Whether its words are numbered.
        header: Whether it has a header line.
    """

    form: TokenFormat
    separator: str
    width: int
    tags: tuple[int, ...]
    numbered: bool = False
    header: bool = False


def guesses(text: str, types: Collection[str] = ()) -> Iterator[Guess]:
    """The formats that a file with this text seems to have, likeliest first; none has been tried.

    Args:
        text: The text.
        types: Entity types that are wanted: of several columns of tags, those with these alone are likelier.
    """
    lines = [line.removesuffix("\r").lstrip(BYTE_ORDER_MARK) for line in text.split("\n")]
    lines = [line for line in lines if line.strip() and not MARKER.match(line)]
    words = [line for line in lines if not line.startswith("#")]
    words = words or [line for line in lines if not KEYED.match(line)]
    for separator in SEPARATORS if words else ():
        rows = [split_line(line, separator) for line in words]
        width = len(rows[0])
        if width > 1 and all(_fits(row, width, separator) for row in rows):
            found = _guess(rows, separator, "\t" in words[0], types)
            if found is not None:
                yield found


def tried(path: Path, guess: Guess) -> tuple[TokenFormat, Detected]:
    """The format with the scheme of the file's tags, and what there is of it, after reading all of the file.

    Raises:
        DataError: The file cannot be read so.
    """
    found = detect_rows(token_rows(path, replace(guess.form, scheme="detect")), among=SCHEMES)
    return replace(guess.form, scheme=found.scheme), found


def guessed(path: Path, text: str, types: Collection[str] = ()) -> tuple[Guess, TokenFormat, Detected] | None:
    """The first guess of which the whole file can be read, or None; ``types`` are those of :func:`guesses`."""
    for guess in guesses(text, types):
        try:
            return guess, *tried(path, guess)
        except DataError:
            continue
    return None


def _fits(row: Sequence[str], width: int, separator: str) -> bool:
    """Whether a line has the columns of a file, apart from empty ones at its end."""
    if len(row) == width:
        return True
    return separator != "blanks" and not any(cell.strip() for cell in row[width:])


def _guess(rows: list[list[str]], separator: str, has_tab: bool, types: Collection[str]) -> Guess | None:
    """What columns seem to be, by what stands in each of them."""
    header = len(rows) > 1 and any(map(_NAME.search, rows[0])) and not any(map(TAG.fullmatch, rows[0]))
    width, body = len(rows[0]), rows[1:] if header else rows
    numbered = all(NUMBER.fullmatch(row[0]) for row in body)
    own = [row for row in body if not numbered or row[0].isdigit()]
    columns = range(1 if numbered else 0, width)
    tags = [c for c in columns if all(c < len(row) and TAG.fullmatch(row[c]) for row in own)]
    ours = [c for c in columns if all(c < len(row) for row in own) and _have_types([row[c] for row in own], types)]
    tags = sorted({*tags, *ours})
    if not tags and width > 9 and numbered:
        return Guess(TokenFormat("conllu"), separator, width, (), numbered) if separator == "tab" else None
    if not tags and all(len(row) == width for row in own):
        tags = [c for c in columns if _are_types([row[c] for row in own])][-1:]
    words = [c for c in columns if c not in tags and all(row[c].strip() for row in own if c < len(row))]
    if not tags or not words:
        return None
    likely = ours or tags
    tag = _named_like_entities(rows[0], likely) if header else likely[0] if numbered else likely[-1]
    places: dict[str, int | str] = {"word": words[0] + 1, "tag": tag + 1}
    if header:
        places = {role: rows[0][int(column) - 1] for role, column in places.items()}
        if "sent" in rows[0][0].lower() and rows[0][0] not in places.values():
            places = {"sentence": rows[0][0], **places}
    usual = "tab" if has_tab else "blanks"
    plain = width == 2 and places == {"word": 1, "tag": 2}
    given = None if separator == usual and not (plain and separator == "blanks") else separator
    form = TokenFormat(columns={} if plain else places, separator=given)
    return Guess(form, separator, width, tuple(c + 1 for c in tags), numbered, header)


def _are_types(values: list[str]) -> bool:
    """Whether values seem to be types without prefixes: few different ones, one of them O."""
    return "O" in values and 1 < len(set(values)) <= MOST_TYPES and all(value.strip() for value in values)


def _have_types(values: list[str], types: Collection[str]) -> bool:
    """Whether values are these types, with prefixes or without, or O; and not all of them O."""
    found = {value[2:] if TAG.fullmatch(value) else value for value in values} - {"O", ""}
    return bool(found) and all(kind in types for kind in found)


def _named_like_entities(header: Sequence[str], tags: Sequence[int]) -> int:
    """The first column of tags that a header calls NE something, or the last."""
    return next((c for c in tags if header[c].lower().startswith(("ne", "ent"))), tags[-1])
