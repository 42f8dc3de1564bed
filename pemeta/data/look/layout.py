"""The layout of a token file: which columns it has, found by what they hold, and what such files are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pemeta.data.look.columns import BLANK, CHUNKS, Column, number_words
from pemeta.data.schemes import PREFIXED
from pemeta.data.token_files.lines import MARKER, SOURCE
from pemeta.data.token_files.shapes import TAGS, WORDS, split_line
from pemeta.errors import DataError, counted, excerpt

SEPARATORS = ("tab", "blanks", ",", ";", "|")
"""What may separate columns, in the order in which it is tried: words may hold blanks and commas."""
FLAG = "EndOfSentence"
"""What HIPE-2022 has in its last column where a sentence ends."""


@dataclass(frozen=True)
class Layout:
    """How a token file's lines are laid out; columns are numbered from 0.

    Attributes:
        separator: What separates columns: ``tab``, ``blanks``, or the character.
        width: Number of columns in most lines.
        word: The column of the word.
        tag: The column of its tag.
        header: Names of the columns; empty if no line names them.
        numbered: Whether the first column numbers the words.
        sentence: The column that names the sentence, where no blank lines separate them.
        flags: The column that says where a sentence ends.
        other_tags: Further columns that hold tags.
        likeness: What such files are called; empty if they have no name.
    """

    separator: str
    width: int
    word: int
    tag: int
    header: tuple[str, ...] = ()
    numbered: bool = False
    sentence: int | None = None
    flags: int | None = None
    other_tags: tuple[int, ...] = ()
    likeness: str = ""

    def called(self, column: int) -> int | str:
        """A column as a configuration says it: its name in the header, or its number from 1."""
        return self.header[column] if self.header and self.header[column] else column + 1

    @property
    def columns(self) -> dict[str, int | str]:
        """What each column is, as a configuration says it."""
        found = {"word": self.word, "tag": self.tag, "flags": self.flags, "sentence": self.sentence}
        return {role: self.called(column) for role, column in found.items() if column is not None}

    def __str__(self) -> str:
        by = {"tab": "tabs", "blanks": "blanks", ",": "commas", ";": "semicolons", "|": "bars"}[self.separator]
        whose = ", as in " + self.likeness if self.likeness else ""
        return f"{counted(self.width, 'column')} separated by {by}{whose}"


@dataclass(frozen=True)
class _Table:
    """The lines of words as rows, of which those of another width are omitted."""

    separator: str
    rows: list[list[str]]
    columns: list[Column]
    header: tuple[str, ...]

    def tags(self) -> list[int]:
        """The columns that may hold tags: of a scheme with letters, or else with a fitting name, or types alone."""
        by_name = [n for n, name in enumerate(self.header) if name.lower() in TAGS]
        kinds = (
            [n for n, column in enumerate(self.columns) if column.holds_tags],
            [n for n in by_name if not any(map(BLANK.search, self.columns[n].values))],
            [n for n, column in enumerate(self.columns) if column.holds_types and n > 0],
            [n for n, column in enumerate(self.columns) if column.holds_nothing],
        )
        return next(filter(None, kinds), [])


def find_layout(lines: Iterable[str], where: str, word: str | None = None, tag: str | None = None) -> Layout:
    """The layout of a token file.

    Args:
        lines: Its lines.
        where: The file, for messages.
        word: The column of the word, by number from 1 or name, if that is known.
        tag: That of the tag, if that is known.

    Raises:
        DataError: No column holds tags, several do, or a column is not there.
    """
    given = list(lines)
    found = [line for line in given if line.strip() and not line.startswith("#") and not MARKER.match(line)]
    if not found:
        raise DataError(f"{where} holds no word; expected a word and its tag in each line")
    tables: list[_Table] = []
    for separator in SEPARATORS:
        if made := _table(found, separator):
            tables.append(made)
            if tag is not None or made.tags():
                break
    else:
        raise DataError(f"{where}: {_no_tags(tables, found)}")
    table = tables[-1]
    numbered = len(table.columns) > 2 and not table.header and number_words([row[0] for row in table.rows])
    blank = any(not line.strip() for line in given[:-1])
    sentence = None if blank or numbered else _naming(table)
    chosen, others = _chosen(table, where) if tag is None else (_given(table, tag, where), ())
    tags = {n for n, column in enumerate(table.columns) if column.holds_tags or column.holds_nothing}
    known = {chosen, sentence, *tags, *([0] if numbered else [])}
    spoken = next((n for n, name in enumerate(table.header) if name.lower() in WORDS), None)
    own = spoken if spoken is not None else next((n for n in range(len(table.columns)) if n not in known), None)
    own = own if word is None else _given(table, word, where)
    if own is None or own == chosen:
        raise DataError(
            f"{where}: its columns hold tags and no words; say which one holds the words with --word COLUMN"
        )
    flags = next((n for n, column in enumerate(table.columns) if any(FLAG in value for value in column.values)), None)
    like = _likeness(table, given, own, chosen, numbered)
    return Layout(
        table.separator, len(table.columns), own, chosen, table.header, numbered, sentence, flags, tuple(others), like
    )


def _table(lines: Sequence[str], separator: str) -> _Table | None:
    """The lines as rows, if most of them have the same number of columns, of which there are two or more."""
    rows = [split_line(line, separator) for line in lines]
    width, number = Counter(map(len, rows)).most_common(1)[0]
    if width < 2 or number < len(rows) / 2:
        return None
    header = tuple(rows[0]) if _is_header(rows[0]) and len(rows[0]) == width else ()
    same = [row for row in rows[1 if header else 0 :] if len(row) == width]
    if not same:
        return None
    return _Table(separator, same, [Column.of(values) for values in zip(*same, strict=True)], header)


def _is_header(row: Sequence[str]) -> bool:
    """Whether the first line names the columns: it has such a name, no tag, and no name twice."""
    named = any(value.lower() in WORDS | TAGS for value in row)
    return named and len(set(row)) == len(row) and not any(one == "O" or PREFIXED.fullmatch(one) for one in row)


def _naming(table: _Table) -> int | None:
    """The column that names the sentence of each word."""
    return next((n for n, column in enumerate(table.columns) if column.names_sentences), None)


def _chosen(table: _Table, where: str) -> tuple[int, tuple[int, ...]]:
    """The column of the tag, and others that hold tags of the same words.

    Where one column's entities lie within another's, these are the outer ones, as in GermEval and HIPE-2022.
    """
    tags = table.tags()
    entities = [n for n in tags if not (table.columns[n].types and table.columns[n].types.keys() <= CHUNKS)] or tags
    if len(entities) == 1:
        return entities[0], ()
    within = {n: {i for i, row in enumerate(table.rows) if row[n] not in ("O", "_")} for n in entities}
    outer = [n for n in entities if all(within[other] <= within[n] for other in entities)]
    if not outer:
        shown = " and ".join(_called(table, n) for n in entities)
        raise DataError(
            f"{where}: the columns {shown} hold different entities; say which one is meant with --tag COLUMN, such as "
            f"--tag {_called(table, entities[0])}"
        )
    return outer[0], tuple(n for n in entities if n != outer[0])


def _called(table: _Table, column: int) -> str:
    return table.header[column] if table.header and table.header[column] else str(column + 1)


def _given(table: _Table, column: str, where: str) -> int:
    """The number from 0 of a column that was given by its number from 1, from the end if negative, or by its name."""
    width = len(table.columns)
    if column in table.header:
        return table.header.index(column)
    number = int(column) if column.lstrip("-").isdecimal() else 0
    if 0 < number <= width or -width <= number < 0:
        return number - 1 if number > 0 else width + number
    names = f", which its first line calls {', '.join(table.header)}" if table.header else ""
    raise DataError(f"{where}: no column {column!r}; it has {counted(width, 'column')}{names}")


def _no_tags(tables: Sequence[_Table], lines: Sequence[str]) -> str:
    """Why no column was found that holds tags."""
    if not tables:
        return (
            "its lines have no columns: none of tab, blanks, comma, semicolon and bar divides most into equally "
            f"many; the first line is {excerpt(lines[0])}; expected a word and its tag in each"
        )
    widest = max(tables, key=lambda table: len(table.columns))
    what = f"{counted(len(widest.columns), 'column')}"
    return (
        f"none of its {what} holds tags, which are O and B-TYPE, I-TYPE and the like, or types and O; the first line "
        f"is {excerpt(lines[0])}; if one does, say which: --tag COLUMN"
    )


def _likeness(table: _Table, lines: Sequence[str], word: int, tag: int, numbered: bool) -> str:
    """What files with such columns are called."""
    width, names = len(table.columns), set(table.header)
    if "NE-COARSE-LIT" in names:
        return "HIPE-2022"
    if numbered and (word, tag) == (1, 2):
        if width == 4 and (
            any(map(SOURCE.match, lines)) or table.columns[3].holds_nothing or table.columns[3].holds_tags
        ):
            return "GermEval 2014"
        return "Universal NER" if width == 5 else ""
    if width == 4 and not names and (word, tag) == (0, 3):
        if table.columns[1].share("_") == 1:
            return "MultiCoNER"
        return "CoNLL-2003" if table.columns[2].holds_tags else ""
    return ""
