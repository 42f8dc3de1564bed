"""The layout of a token file: which columns it has, found by what they hold, and what such files are called."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from pemeta.data.schemes import PREFIXED
from pemeta.data.token_files.formats import TokenFormat
from pemeta.data.token_files.kinds import BLANK, CHUNKS, Column, number_words
from pemeta.data.token_files.lines import BYTE_ORDER_MARK, KEYED, MARKER, SOURCE
from pemeta.data.token_files.shapes import CONLLU, FLAGS, NUMBER, TAGS, WORDS, split_line
from pemeta.errors import DataError, counted, excerpt

SEPARATORS = ("tab", "blanks", ",", ";", "|")
"""What may separate columns, in the order in which it is tried: words may hold blanks and commas."""
FLAG = "EndOfSentence"
"""What HIPE-2022 has in its last column where a sentence ends."""
PLUS = "# global.columns"
"""What names the columns of CoNLL-U Plus, in its first line."""
_TAGS = re.compile(f"{'|'.join(TAGS)}|((iob|bio|ne|ner|(named[-_ ])?entit(y|ies))([-_ ].*)?)", re.IGNORECASE)
"""What a header calls a column of tags."""


@dataclass(frozen=True)
class Layout:
    """How a token file's lines are laid out; columns are numbered from 0.

    Attributes:
        separator: What separates columns: ``tab``, ``blanks``, or the character.
        width: Number of columns in most lines.
        word: The column of the word.
        tag: The column of its tag.
        header: Names of the columns; empty if no line names them.
        sentence: The column that names the sentence, where no blank lines separate them.
        flags: The column that says where a sentence ends.
        other_tags: Further columns that hold tags.
        likeness: What such files are called; empty if they have no name.
        usual: The separator that the reader takes if none is said.
        brackets: Whether the column of tags has entities in brackets.
    """

    separator: str
    width: int
    word: int
    tag: int
    header: tuple[str, ...] = ()
    sentence: int | None = None
    flags: int | None = None
    other_tags: tuple[int, ...] = ()
    likeness: str = ""
    usual: str = "tab"
    brackets: bool = False

    @property
    def form(self) -> TokenFormat:
        """The format; columns and separator are said only where the reader would not find them itself."""
        found = {"word": self.word, "tag": self.tag, "sentence": self.sentence}
        if self.flags is not None and self._called(self.flags) != FLAGS:  # where the reader looks for them
            found["flags"] = self.flags
        columns = {role: self._called(column) for role, column in found.items() if column is not None}
        plain = self.width == 2 and columns == {"word": 1, "tag": 2} and not self.brackets
        unsaid = self.separator == self.usual and not (plain and self.usual == "blanks")
        return TokenFormat(columns={} if plain else columns, separator=None if unsaid else self.separator)

    def __str__(self) -> str:
        """In words: how many columns there are, and what they hold."""
        by = {"tab": "tabs", "blanks": "blanks", ",": "commas", ";": "semicolons", "|": "bars"}[self.separator]
        whose = ", as in " + self.likeness if self.likeness else ""
        text = f"{counted(self.width, 'column')} separated by {by}{whose}: the word is in {self._named(self.word)}, "
        text += f"its tag in {self._named(self.tag)}"
        if self.other_tags:
            text += f" (other tags in {', '.join(str(self._called(column)) for column in self.other_tags)})"
        if self.flags is not None:
            text += f"; {self._named(self.flags)} says where sentences end"
        if self.sentence is not None:
            text += f"; {self._named(self.sentence)} tells sentences apart"
        return text

    def _called(self, column: int) -> int | str:
        """A column as a configuration says it: its name in the header, or its number from 1."""
        return self.header[column] if self.header and self.header[column] else column + 1

    def _named(self, column: int) -> str:
        called = self._called(column)
        return called if isinstance(called, str) else f"column {called}"


@dataclass(frozen=True)
class _Table:
    """The lines of words as rows, of which those of another width are omitted."""

    separator: str
    rows: list[list[str]]
    columns: list[Column]
    header: tuple[str, ...]

    def tags(self) -> list[int]:
        """The columns that may hold tags: of a scheme with letters, or else with a fitting name, or types alone.

        Chunks are tagged like entities, and are taken for such only where nothing else is.
        """
        tagged = [n for n, column in enumerate(self.columns) if column.holds_tags]
        nothing = [n for n, column in enumerate(self.columns) if column.holds_nothing]
        if tagged == [0] and nothing and not self.columns[0].share("O"):  # words such as U-Boot
            tagged = []
        named = [n for n, name in enumerate(self.header) if _TAGS.fullmatch(name)]
        by_name = [n for n in named if self.columns[n].share("O") or self.columns[n].types]  # not labels of texts
        types = [n for n, column in enumerate(self.columns) if column.holds_types]
        kinds = (
            [n for n in tagged if not self.columns[n].types.keys() <= CHUNKS],
            [n for n, column in enumerate(self.columns) if column.holds_brackets],
            [n for n in by_name if not any(map(BLANK.search, self.columns[n].values))],
            [n for n in types if n > 0] or types,  # the first is rather the word's
            nothing,
            tagged,
            [n for n, column in enumerate(self.columns) if n > 0 and column.holds_some_tags],
        )
        return next(filter(None, kinds), [])

    def sentence(self) -> int | None:
        """The column that names the sentence of each word."""
        names = self.header or ("",) * len(self.columns)
        return next((n for n, column in enumerate(self.columns) if column.tells_sentences_apart(names[n])), None)

    def called(self, column: int) -> str:
        """A column's name in the header, or its number from 1."""
        return self.header[column] if self.header and self.header[column] else str(column + 1)


def is_conllu(lines: Sequence[str]) -> bool:
    """Whether words are numbered, and there are CoNLL-U's ten columns, or what only its numbers can say."""
    if any(line.startswith(PLUS) for line in lines[:20]):
        return True
    rows = [line.split("\t") for line in lines if line.strip() and not line.startswith("#")]
    if not rows or not all(NUMBER.fullmatch(row[0]) for row in rows[:1000]):
        return False
    return len(rows[0]) == len(CONLLU) or any("-" in row[0] or "." in row[0] for row in rows)


def find_layout(
    lines: Iterable[str], where: str, word: str | None = None, tag: str | None = None, types: Collection[str] = ()
) -> Layout:
    """The layout of a token file.

    Args:
        lines: Its lines.
        where: The file, for messages.
        word: The column of the word, by number from 1 or name, if that is known.
        tag: That of the tag, if that is known.
        types: Entity types that are wanted: of several columns of tags, those with these alone are likelier.

    Raises:
        DataError: No column holds tags, several do, or a column is not there.
    """
    given = [line.removesuffix("\r").lstrip(BYTE_ORDER_MARK) for line in lines]
    some = [line for line in given if line.strip() and not MARKER.match(line)]
    found = [line for line in some if not line.startswith("#")] or [line for line in some if not KEYED.match(line)]
    if not found:
        raise DataError(f"{where} holds no word; expected a word and its tag in each line")
    varying = any(line.startswith("#begin document") for line in given)
    made = [one for separator in SEPARATORS if (one := _table(found, separator, varying))]
    made.sort(key=lambda one: len(one.rows) + bool(one.header) < len(found))  # rather one that fits all lines
    table = next((one for one in made if tag is not None or one.tags()), None)
    if table is None:
        raise DataError(f"{where}: {_no_tags(made, found, where)}")
    numbered = len(table.columns) > 2 and not table.header and number_words([row[0] for row in table.rows])
    blank = any(not line.strip() for line in given[:-1])
    sentence = None if blank or numbered else table.sentence()
    chosen, others = _chosen(table, where, types) if tag is None else (_given(table, tag, where), ())
    own = _word(table, {chosen, *([0] if numbered else [])}, sentence) if word is None else _given(table, word, where)
    if own is None or own == chosen:
        raise DataError(
            f"{where}: its columns hold tags and no words; say which one holds the words: {_asking(where, 'word')}"
        )
    if table.columns[chosen].holds_integers:
        raise DataError(
            f"{where}: expected tags such as B-PER and O in column {table.called(chosen)}; found integers, such as "
            f"{next(iter(table.columns[chosen].values))}; write the tag that each stands for"
        )
    return Layout(
        separator=table.separator,
        width=len(table.columns),
        word=own,
        tag=chosen,
        header=table.header,
        sentence=sentence,
        flags=next((n for n, one in enumerate(table.columns) if any(FLAG in value for value in one.values)), None),
        other_tags=others,
        likeness=_likeness(table, given, own, chosen, numbered),
        usual="tab" if "\t" in found[0] else "blanks",
        brackets=table.columns[chosen].holds_brackets,
    )


def _table(lines: Sequence[str], separator: str, varying: bool) -> _Table | None:
    """The lines as rows, if most of them have the same number of columns, of which there are two or more.

    Where sentences vary in their numbers of columns, as in CoNLL-2012, these are the columns that all have.
    """
    rows = [split_line(line, separator) for line in lines]
    if varying:
        rows = [row[: min(map(len, rows))] for row in rows]
    width, number = Counter(map(len, rows)).most_common(1)[0]
    if width < 2 or number < len(rows) / 2:
        return None
    same = [row for row in rows if len(row) == width]
    header = tuple(rows[0]) if _is_header(rows[0], same) else ()
    same = [row for row in same if tuple(row) != header]
    if not same:
        return None
    return _Table(separator, same, [Column.of(values) for values in zip(*same, strict=True)], header)


def _is_header(row: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first line names the columns: with such names, none twice, and no tag of a line below."""
    unknown = [n for n, name in enumerate(row) if name.lower() not in WORDS and not _TAGS.fullmatch(name)]
    if len(unknown) > len(row) - (2 if len(row) == 2 else 1) or len(set(row)) < len(row):
        return False
    if any(name == "O" or PREFIXED.fullmatch(name) for name in row):
        return False
    return not any(other[n] == row[n] for other in rows if other != row for n in unknown)


def _word(table: _Table, others: Collection[int], sentence: int | None) -> int | None:
    """The column of the words: by its name, or else the first that is nothing else, rather one that varies."""
    spoken = [n for n, name in enumerate(table.header) if name.lower() in WORDS]
    varied = [n for n, column in enumerate(table.columns) if column.varies]
    tags = {n for n, one in enumerate(table.columns) if one.share("O") and (one.holds_tags or one.holds_nothing)}
    return next(
        (n for n in (*spoken, *varied, *range(len(table.columns))) if n not in {*others, *tags, sentence}), None
    )


def _chosen(table: _Table, where: str, types: Collection[str]) -> tuple[int, tuple[int, ...]]:
    """The column of the tag, and others that hold tags of the same words.

    Where one column's entities lie within another's, these are the outer ones, as in GermEval and HIPE-2022.
    """
    tags = table.tags()
    entities = [n for n in tags if table.columns[n].types and table.columns[n].types.keys() <= set(types)] or tags
    if len(entities) == 1:
        return entities[0], ()
    within = {n: {i for i, row in enumerate(table.rows) if row[n] not in ("O", "_")} for n in entities}
    outer = [n for n in entities if all(within[other] <= within[n] for other in entities)]
    if not outer:
        shown = " and ".join(map(table.called, entities))
        raise DataError(
            f"{where}: the columns {shown} hold different entities; say which one is meant: "
            f"{_asking(where, 'tag', table.called(entities[0]))}"
        )
    return outer[0], tuple(n for n in entities if n != outer[0])


def _asking(where: str, role: str, column: str = "COLUMN") -> str:
    """The command that says which column is meant."""
    return f"pemeta data {shlex.quote(where)} --{role} {shlex.quote(column)}"


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


def _no_tags(tables: Sequence[_Table], lines: Sequence[str], where: str) -> str:
    """Why no column was found that holds tags."""
    if not tables:
        return (
            "its lines have no columns: none of tab, blanks, comma, semicolon and bar divides most into equally "
            f"many; the first line is {excerpt(lines[0])}; expected a word and its tag in each"
        )
    widest = max(tables, key=lambda table: len(table.columns))
    integers = [n for n, column in enumerate(widest.columns) if n > 0 and column.holds_integers]
    if integers:
        return f"column {widest.called(integers[-1])} holds integers; write the tag that each stands for"
    return (
        f"none of its {counted(len(widest.columns), 'column')} holds tags, which are O and B-TYPE, I-TYPE and the "
        f"like, or types and O; the first line is {excerpt(lines[0])}; if one does, say which: {_asking(where, 'tag')}"
    )


def _likeness(table: _Table, lines: Sequence[str], word: int, tag: int, numbered: bool) -> str:
    """What files with such columns are called."""
    width, names = len(table.columns), set(table.header)
    if table.columns[tag].holds_brackets and width > 10:
        return "CoNLL-2012"
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
