"""A look at a table: which columns hold the words and the tags, and what the table holds."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from pemeta.data.look.oddities import Oddities
from pemeta.data.rows import Row
from pemeta.data.schemes import PREFIXED, Scheme
from pemeta.data.tables.columns import USUAL, Found, TokenColumns, find_columns, token_rows
from pemeta.data.tables.files import ENDINGS, format_of, read_table
from pemeta.data.tables.table import Table
from pemeta.data.tables.text_files import PACKED
from pemeta.data.token_files.kinds import MOST, Column
from pemeta.data.token_files.shapes import TAGS, WORDS
from pemeta.errors import DataError, counted, shortened

SAMPLE = 1000
"""Rows that are looked at to find the columns."""
FORMATS = {"jsonl": "JSON lines", "csv": "CSV", "tsv": "TSV", "parquet": "Parquet", "arrow": "Arrow"}
MAGIC = {b"PAR1": "parquet", b"ARROW1": "arrow", b"\xff\xff\xff\xff": "arrow"}
"""How files of binary formats begin."""


def table_format(path: Path) -> str | None:
    """The format of a table, by its name's ending or its first bytes; None for what may be a token file."""
    inner = path.with_suffix("") if path.suffix.lower() in PACKED else path
    known = any(inner.suffix.lower() in endings for endings in ENDINGS.values())
    if path.is_dir():
        return "arrow" if (path / "state.json").is_file() else None
    try:
        with path.open("rb") as file:
            head = file.read(6)
    except (OSError, ValueError):  # said by what reads it
        return None
    binary = next((format for start, format in MAGIC.items() if head.startswith(start)), None)
    return binary or (format_of(path) if known else None)


class TableLook:
    """A table of which the columns of words and tags are known.

    Attributes:
        path: The file.
        oddities: What is odd about it.
        likeness: Its format, in words.
        settings: What a configuration says of it: ``format``, ``columns``, ``names``.
        problem: Why its rows cannot all be read, after the first attempt; None if they can.
        of_tasks: Columns whose values may be tasks, with the values.
        encoding: Empty, since not every table is text.
    """

    source: ClassVar[str] = "table"
    encoding: ClassVar[str] = ""

    def __init__(self, path: Path, format: str, word: str | None, tag: str | None, names: Sequence[str] | None) -> None:
        self.path = path
        self.oddities = Oddities()
        self.problem: str | None = None
        self._format = format
        table = read_table(path, format)
        self._names = names
        sample = [row.values for row in islice(table.rows, SAMPLE)]
        self._columns = _columns(table, sample, word, tag)
        try:
            self._found = find_columns(table, self._columns, names)
        except DataError as error:
            here = "; here: --word COLUMN --tag COLUMN" if "say which they are" in str(error) else ""
            raise DataError(f"{error}{here}") from None
        self.likeness = _in_words(format, table, self._found)
        self.settings = self._settings(path)
        self.of_tasks = _task_column(table, sample, self._found)

    def rows(self, scheme: Scheme | None = None, wrong: Callable[[DataError], None] | None = None) -> Iterator[Row]:
        """The sentences, one by one, up to the first that cannot be read, which ``wrong`` gets."""
        table = read_table(self.path, self._format)
        try:
            for row in token_rows(table, self._found):
                words, tags = row.values["tokens"], row.values["tags"]
                if words and len(words) == len(tags):
                    yield row
                elif wrong is not None:
                    where, numbers = row.where.rpartition(", ")[2], f"{counted(len(words), 'word')}, "
                    numbers += counted(len(tags), "tag")
                    if words or tags:
                        self.oddities.add("a row of more or fewer tags than words", where, numbers)
                    else:
                        self.oddities.add("a row without words", where, hint="it is skipped")
        except DataError as error:
            if wrong is not None:
                wrong(error)

    def add_wrong(self, error: DataError) -> None:
        """Note why a row cannot be read."""
        self.problem = str(error)
        if self._found.names is None and "names: [O, B-PER, ...]" in self.problem:
            self.problem += "; here: --names O,B-PER,..."

    def _settings(self, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        try:
            by_name = format_of(path)
        except DataError:
            by_name = None
        if by_name != self._format:
            found["format"] = self._format
        columns = self._columns.model_dump(exclude_none=True)
        if columns:
            found["columns"] = columns
        if self._names is not None:
            found["names"] = list(self._names)
        return found


def _columns(table: Table, sample: Sequence[Mapping[str, Any]], word: str | None, tag: str | None) -> TokenColumns:
    """The columns of words and tags: what was given, else none where their names are usual, else what may be them."""
    lists = {name: [_parts(row.get(name)) for row in sample] for name in table.columns}
    if tag is None and not _usual(table, "tags"):
        tag = _only([name for name, values in lists.items() if _are_tags(values)])
        tag = tag or _only([name for name in lists if name.lower() in TAGS])
    tags = tag or next(iter(_usual(table, "tags")), None)
    if word is None and not _usual(table, "tokens") and tags in lists:
        fitting = [name for name in table.columns if name != tags and _fit(lists[name], lists[tags])]
        word = _only([name for name in fitting if name.lower() in WORDS]) or _only(fitting)
    words = word or next(iter(_usual(table, "tokens")), None)
    chosen = TokenColumns(tokens=word, tags=tag)
    if words in lists and len(sample) > 1 and all(len(parts) == 1 for parts in lists[words]):
        others = [name for name in table.columns if name not in (words, tags)]
        values = {name: ["" if row.get(name) is None else str(row[name]) for row in sample] for name in others}
        named = [name for name in others if Column.of(values[name]).tells_sentences_apart(name)]
        if named:
            return chosen.model_copy(update={"sentence": named[0]})
    return chosen


def _only(names: Sequence[str]) -> str | None:
    return names[0] if len(names) == 1 else None


def _usual(table: Table, role: str) -> list[str]:
    """The column with a usual name, if there is one: it need not be said then."""
    there = [name for name in USUAL[role] if name in table.columns]
    return there if len(there) == 1 else []


def _parts(value: Any) -> list[str]:
    """The words or tags in a value: a list, or a text that shows one or has blanks between them."""
    if isinstance(value, str) and value.startswith("["):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return []
    if isinstance(value, str):
        return value.split()
    return list(map(str, value)) if isinstance(value, list | tuple) else []


def _are_tags(lists: Sequence[Sequence[str]]) -> bool:
    """Whether nearly all values in some lists are tags, and one at least is not ``O``."""
    values = [value for parts in lists for value in parts]
    tags = [value for value in values if value == "O" or PREFIXED.fullmatch(value)]
    return len(tags) > MOST * len(values) and any(value != "O" for value in tags)


def _fit(words: Sequence[Sequence[str]], tags: Sequence[Sequence[str]]) -> bool:
    """Whether there is a word for each tag in nearly all rows."""
    fitting = sum(len(one) == len(other) > 0 for one, other in zip(words, tags, strict=True))
    return fitting > MOST * len(tags)


def _task_column(table: Table, sample: Sequence[Mapping[str, Any]], found: Found) -> dict[str, list[str]]:
    """Columns that may tell tasks apart: few different texts, each in many rows."""
    used = {found.tokens, found.tags, *found.sentence}
    likely = {}
    for name in table.columns:
        values = [row.get(name) for row in sample]
        kinds = {value for value in values if isinstance(value, str)}
        if name not in used and 1 < len(kinds) <= max(2, len(values) / 10) and len(kinds) < 50 and None not in values:
            likely[name] = sorted(kinds)
    return likely


def _in_words(format: str, table: Table, found: Found) -> str:
    others = [name for name in table.columns if name not in (found.tokens, found.tags, *found.sentence)]
    also = f"; {counted(len(others), 'other column')}: {shortened(', '.join(others), 100)}" if others else ""
    ends = f"; {', '.join(found.sentence)} tells sentences apart" if found.sentence else ""
    integers = "" if found.names is None else f", as integers for {shortened(', '.join(found.names), 100)}"
    return f"{FORMATS[format]}: the words are in {found.tokens}, the tags in {found.tags}{integers}{ends}{also}"
