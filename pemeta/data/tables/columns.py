"""Words and tags in the columns of a table: which columns they are in, and rows that have them as lists."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pemeta.data.rows import Row
from pemeta.data.schemes import PREFIXED
from pemeta.data.tables.cells import BLANKS, NUMBER, is_list, split_text, tags_in, words_in
from pemeta.data.tables.given_columns import TokenColumns as TokenColumns
from pemeta.data.tables.table import Table
from pemeta.data.token_rows import tags_of
from pemeta.errors import DataError, excerpt, shortened, unknown_name
from pemeta.utils.values import missing, whole

USUAL = {"tokens": ("tokens", "words"), "tags": ("ner_tags", "tags", "ner", "labels")}
"""Usual names of the columns, which need not be given."""
ENOUGH = 100
"""Rows of a single word after which they are taken for words, and not for sentences."""


@dataclass(frozen=True)
class Found:
    """The columns of one table, by their names in it.

    Attributes:
        tokens: That of the words.
        tags: That of the tags.
        sentence: Those that say where a sentence begins.
        document: That of the document.
        names: The tags that integers mean.
        apart: Others in which rows of one sentence have the same value: its document, its task.
    """

    tokens: str
    tags: str
    sentence: tuple[str, ...]
    document: str | None
    names: tuple[str, ...] | None
    apart: tuple[str, ...] = ()


def find_columns(table: Table, columns: TokenColumns, names: Sequence[str] | None) -> Found:
    """The columns of a table that hold sentences.

    Args:
        table: The table.
        columns: What was given of them.
        names: The tags that integers mean, if they were given.

    Raises:
        DataError: A column is not there, or not known, or the table has other names for its integers.
    """
    odd = next((key for key in columns.by_role if key not in USUAL), None)
    if odd is not None:
        raise DataError(
            f"{table.where}: columns.{odd} is for another kind of task; token classification reads tokens and tags; "
            "remove it, or set the task"
        )
    tags = _column(table, "tags", columns.tags)
    own = table.names.get(tags)
    if own is not None and names is not None and own != tuple(names):
        raise DataError(
            f"{table.where}: the integers in {tags!r} have the names {shortened(', '.join(own), 200)}; found others in "
            f"names: {shortened(', '.join(names), 200)}; remove names"
        )
    document = None if columns.document is None else _column(table, "document", columns.document)
    return Found(
        tokens=_column(table, "tokens", columns.tokens),
        tags=tags,
        sentence=tuple(_column(table, "sentence", one) for one in columns.of_sentences),
        document=document,
        names=own if names is None else tuple(names),
        apart=() if document is None else (document,),
    )


def _column(table: Table, role: str, given: str | int | None) -> str:
    """The name of one column."""
    if given is not None:
        check_column(table, str(given), f"columns.{role}")
        return str(given)
    there = [name for name in USUAL[role] if name in table.columns]
    if len(there) == 1:
        return there[0]
    found = f"found {' and '.join(there)}" if there else f"it has {_listed(table)}"
    raise DataError(
        f"{table.where}: expected a column of {role} ({' or '.join(USUAL[role])}); {found}; say which they are: "
        f"columns: {{tokens: ..., tags: ...}}{_separator(table) or _no_header(table)}"
    )


def check_column(table: Table, name: str, key: str) -> None:
    """Refuse a column that a table does not have.

    Raises:
        DataError: It does not have it; the message names the configuration's key.
    """
    if name not in table.columns:
        raise DataError(
            f"{table.where}: {key}: {shortened(unknown_name('column', name, table.columns), 300)}{_separator(table)}"
        )


def _listed(table: Table) -> str:
    return shortened(", ".join(map(repr, table.columns)), 200)


def _separator(table: Table) -> str:
    """A remedy for a line of several values that was read as one."""
    (only, *others) = table.columns or ("",)
    mark = next((mark for mark in "\t;|," if mark in only), None)
    written = "tab" if mark == "\t" else repr(mark)
    return f"; if {mark!r} stands between its values: separator: {written}" if mark and not others else ""


def _no_header(table: Table) -> str:
    """A remedy for a first line that was read as the names of columns, if there are tags among them."""
    for name in table.columns:
        tags = name.split()
        if tags and all(tag == "O" or PREFIXED.fullmatch(tag) for tag in tags):
            token_file = ", or, if each line is a word, read them with data: {name: conll}" if len(tags) == 1 else ""
            return f"; if the first line has no names, give numbers: columns: {{tokens: 1, tags: 2}}{token_file}"
    return ""


def token_rows(
    table: Table,
    columns: Found,
    wanted: Callable[[Row], bool] = lambda row: True,
    documents: dict[str, int] | None = None,
) -> Iterator[Row]:
    """The rows of a table with the columns ``tokens`` and ``tags``, lists of strings, and ``document``, an integer.

    Rows of one word each are put together to sentences, if a column says to which one they belong. The table's other
    columns stay.

    Args:
        table: The table.
        columns: Its columns.
        wanted: Whether a sentence's row is to be read.
        documents: The numbers of the documents of earlier tables, to which those of this one are added.

    Raises:
        DataError: Words or tags cannot be told, or rows seem to be words and not sentences.
    """
    rows = _joined(table.rows, columns) if columns.sentence else table.rows
    documents = {} if documents is None else documents
    single: int | None = 0
    held: list[Row] = []  # until it is known that they are no words
    for row in filter(wanted, rows):
        words, tags = value_of(row, columns.tokens), value_of(row, columns.tags)
        if not columns.sentence and single is not None:
            one = isinstance(words, str) and not is_list(words) and len(split_text(words)) == 1 and not is_list(tags)
            single = single + 1 if one else None
            if single == ENOUGH:
                raise _words_in_rows(table, columns)
        values = {**row.values, "tokens": words_in(words, row.where), "tags": tags_in(tags, row.where)}
        document = None if columns.document is None else value_of(row, columns.document)
        values["document"] = None if document is None else documents.setdefault(str(document), len(documents))
        held.append(_with_tags(Row(values, row.where, row.lines), columns.names))
        if columns.sentence or single is None:
            yield from held
            held.clear()
    if single is not None and single > 1:
        raise _words_in_rows(table, columns)
    yield from held


def _with_tags(row: Row, names: tuple[str, ...] | None) -> Row:
    """The row with its tags as strings."""
    given = row.values["tags"]
    spans = [one for one in given if isinstance(one, dict | list | tuple)] if is_list(given) else []
    if spans:
        raise DataError(
            f"{row.where}: expected one tag for each word; found {excerpt(spans[0])}; spans of characters and nested "
            "entities are not read: give each word the tag of one entity, or O"
        )
    return Row({**row.values, "tags": tags_of(row, "tags", names)}, row.where, row.lines)


def value_of(row: Row, column: str) -> Any:
    """A value of a row; arrays as lists, and None for what is missing in a data frame."""
    if column not in row.values:
        known = shortened(unknown_name("column", column, map(str, row.values)), 300)
        raise DataError(f"{row.where}: {known}; give the row a value, or remove it")
    value = row.values[column]
    value = value.tolist() if callable(getattr(value, "tolist", None)) else value
    return None if not isinstance(value, list | tuple | str) and missing(value) else value


def named(value: Any, names: Sequence[str] | None) -> Any:
    """A label, or labels in a list, as names where they are integers that names belong to; else as they are.

    >>> named(1, ["no", "yes"]), named([0, 1], ["no", "yes"]), named("no", ["no", "yes"])
    ('yes', ['no', 'yes'], 'no')
    """
    if names is None:
        return value
    if isinstance(value, list | tuple):
        return [named(one, names) for one in value]
    index = None if isinstance(value, bool) else whole(value)
    return names[index] if index is not None and 0 <= index < len(names) else value


def _words_in_rows(table: Table, columns: Found) -> DataError:
    others = [repr(name) for name in table.columns if name not in (columns.tokens, columns.tags)]
    return DataError(
        f"{table.where}: each row seems to hold one word ({columns.tokens!r}) and its tag; say which column tells the "
        f"sentences apart, columns: {{sentence: ...}} (the others: {shortened(', '.join(others), 200) or 'none'}); "
        "or, if a blank line ends each sentence, read it with data: {name: conll}; or, if they are sentences, give "
        "their words as lists"
    )


# One word in each row


def _joined(rows: Iterator[Row], columns: Found) -> Iterator[Row]:
    """Sentences of rows with a word each."""
    last: tuple[Any, ...] | None = None
    begun: dict[tuple[Any, ...], str] = {}
    own: list[Row] = []
    for row in rows:
        key = _key(row, columns, last)
        if key != last:
            if own:
                yield _sentence(own, columns)
            if key in begun:
                shown = excerpt(key[0] if len(columns.sentence) == 1 else key[: len(columns.sentence)])
                raise DataError(
                    f"{row.where}: the sentence {shown} begins again; it was at {begun[key]}; sort the table by "
                    f"{' and '.join(columns.sentence)}, or, if sentences are counted anew in each document, name both "
                    f"columns: columns: {{sentence: [DOCUMENT, {', '.join(columns.sentence)}]}}"
                )
            begun[key], own, last = row.where, [], key
        own.append(row)
    if own:
        yield _sentence(own, columns)


def _key(row: Row, columns: Found, last: tuple[Any, ...] | None) -> tuple[Any, ...]:
    """What tells the sentence of a row apart: of each column its value, or else the one before."""
    found = []
    for index, column in enumerate((*columns.sentence, *columns.apart)):
        value = value_of(row, column)
        if value is None or (isinstance(value, str) and not value.strip()):
            if last is None and index < len(columns.sentence):
                raise DataError(
                    f"{row.where}: no sentence has begun, for {column!r} is empty; found {excerpt(dict(row.values))}"
                )
            value = None if last is None else last[index]
        found.append(value)
    return tuple(found)


def _sentence(rows: Sequence[Row], columns: Found) -> Row:
    """One row of the rows of a sentence."""
    words, tags = [], []
    for row in rows:
        word, tag = value_of(row, columns.tokens), value_of(row, columns.tags)
        if not isinstance(word, str) or not word.strip(BLANKS):
            raise DataError(
                f"{row.where}: expected a word in {columns.tokens!r}; found {excerpt(word)}; remove the row, or, if "
                "pandas took the word NA or null for a missing value, read the table with keep_default_na=False"
            )
        words.append(word)
        tags.append(int(tag) if isinstance(tag, str) and NUMBER.fullmatch(tag) else tag)
    lines = [line for row in rows if (line := _line(row)) is not None]
    values: Mapping[str, Any] = {**rows[0].values, columns.tokens: words, columns.tags: tags}
    return Row(values, rows[0].where, lines if len(lines) == len(rows) else ())


def _line(row: Row) -> int | None:
    found = re.search(r", line (\d+)$", row.where)
    return int(found[1]) if found else None
