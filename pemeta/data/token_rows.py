"""What token classification makes of rows: sentences with IOB2 tags of one label set."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from pemeta.data.entity_types import TypeMap, mapped
from pemeta.data.rows import Row
from pemeta.data.schemes import DETECTED, PREFIXED, Detected, Scheme, SchemeError, SchemeFinder, converted
from pemeta.data.sentences import LabelSet, Sentence
from pemeta.errors import DataError, counted, excerpt, shortened, unknown_name
from pemeta.utils.values import listed, missing, whole

NESTED = (
    "nested or overlapping entities need one tag per word in each of several columns; choose one of them, or keep the "
    "outer entity only"
)
"""The remedy where a word has more than one tag."""


def sentences(
    rows: Iterable[Row],
    *,
    tokens: str = "tokens",
    tags: str = "tags",
    labels: LabelSet,
    scheme: Scheme | None = "IOB2",
    types: TypeMap | None = None,
    names: Sequence[str] | None = None,
) -> Iterator[Sentence]:
    """The sentences that rows hold, in order.

    Rows without a word are skipped. A column ``document`` with integers becomes the sentences' ``document``.

    Args:
        rows: Rows with a column of words, and one of tags.
        tokens: The column of words.
        tags: The column of tags: strings in ``scheme``, or integers if ``names`` are given.
        labels: Label set of the sentences.
        scheme: Scheme of the tags; None to detect it, for which all rows are kept in memory.
        types: What each type of the data is called in ``labels``, or None where it is left out; by default types
            are called what they are.
        names: The tags that integers mean, in order.

    Raises:
        DataError: A row lacks a column, a word or tag is none, a tag does not fit the scheme, or a type is neither in
            ``types`` nor in ``labels``. The message names the row's source.
        ConfigError: ``labels`` are no label set.
    """
    if scheme is None:
        rows = list(rows)
        scheme = detect_rows(rows, tags=tags, names=names).scheme
    for row in rows:
        words = _column(row, tokens)
        own = tags_of(row, tags, names)
        if not words and not own:
            continue
        if len(words) != len(own):
            raise DataError(
                f"{row.where}: {counted(len(words), 'word')} but {counted(len(own), 'tag')}; give each word one tag; "
                f"the words are {excerpt(list(words))}"
            )
        made = _labelled(row, words, own, labels, scheme, types)
        try:
            yield Sentence(words, tuple(made), whole(row.values.get("document")))
        except DataError as error:
            raise DataError(f"{row.where}: {error}") from None


def detect_rows(
    rows: Iterable[Row],
    *,
    tags: str = "tags",
    names: Sequence[str] | None = None,
    among: Sequence[Scheme] = DETECTED,
) -> Detected:
    """The scheme of all rows' tags, which are read one by one.

    Raises:
        DataError: A row lacks the column, or a tag is none.
        SchemeError: No scheme fits, or more than one.
    """
    finder = SchemeFinder()
    for row in rows:
        finder.add(tags_of(row, tags, names), row.place)
    return finder.found(among)


def tags_of(row: Row, column: str = "tags", names: Sequence[str] | None = None) -> list[str]:
    """The tags of a row as strings.

    Raises:
        DataError: There is no such column, a tag is missing, or it is an integer that no name belongs to.
    """
    given = _column(row, column)
    if all(type(tag) is str for tag in given):
        return [_single(row, i, tag) for i, tag in enumerate(given)]
    if names is not None and all(type(tag) is int and 0 <= tag < len(names) for tag in given):
        return [_single(row, i, str(names[tag])) for i, tag in enumerate(given)]
    return [_single(row, i, _name(row, i, tag, names)) for i, tag in enumerate(given)]


def _column(row: Row, column: str) -> tuple[Any, ...]:
    if column not in row.values:
        raise DataError(f"{row.where}: {unknown_name('column', column, map(str, row.values))}")
    value = row.values[column]
    if value is None:
        return ()
    try:
        return listed(value, column, "['Ada', 'slept']")
    except DataError as error:
        raise DataError(f"{row.where}: {error}") from None


def _name(row: Row, index: int, tag: Any, names: Sequence[str] | None) -> str:
    """The tag that an integer means."""
    if isinstance(tag, str):
        return tag
    number = None if isinstance(tag, bool) else whole(tag)
    where = row.place(index)
    if missing(tag):
        raise DataError(f"{where}: tag {index + 1} is missing ({tag}); give the word a tag, or O")
    if isinstance(tag, list | tuple | set | Mapping) or (number is None and hasattr(tag, "__len__")):
        raise DataError(f"{where}: tag {index + 1} is several, {excerpt(tag)}; {NESTED}")
    if number is None:
        raise DataError(f"{where}: tag {index + 1} must be a string such as 'O', or an integer; found {excerpt(tag)}")
    if names is None:
        raise DataError(
            f"{where}: tag {index + 1} is the integer {number}; give the tags that integers mean, in order: "
            "names: [O, B-PER, ...]"
        )
    if not 0 <= number < len(names):
        unlabelled = "; -1 and -100 mark words without a tag: remove them" if number < 0 else ""
        raise DataError(
            f"{where}: tag {index + 1} must be an index from 0 to {len(names) - 1}; found {number}{unlabelled}; "
            f"the names are {shortened(', '.join(names), 150)}"
        )
    return str(names[number])


def _single(row: Row, index: int, tag: str) -> str:
    """The tag, unless it is none, or several in one."""
    if not tag or tag.isspace():
        raise DataError(f"{row.place(index)}: tag {index + 1} is empty; give the word a tag, or O")
    if _is_several(tag):
        raise DataError(f"{row.place(index)}: tag {excerpt(tag)} is several in one; {NESTED}")
    return tag


@lru_cache(maxsize=10_000)
def _is_several(tag: str) -> bool:
    """Whether a tag is made of several, as ``B-ORG|B-LOC`` or ``['B-ORG', 'O']``."""
    parts = re.findall(r"[\w-]+", tag)
    return len(parts) > 1 and all(part == "O" or PREFIXED.fullmatch(part) for part in parts)


def _labelled(
    row: Row, words: Sequence[Any], tags: list[str], labels: LabelSet, scheme: Scheme, types: TypeMap | None
) -> list[str]:
    """The tags in IOB2, with the types of the label set."""
    made, misfit = converted(tags, scheme)
    for index, tag in enumerate(made):
        new = tag if types is None else mapped(tag, types)
        if new is None or new not in labels.index:
            raise DataError(f"{row.place(index)}: {_unknown(tag, tags[index], types, labels)}{_at(words, tags, index)}")
        made[index] = new
    if misfit:
        raise SchemeError(f"{row.place(misfit[0])}: {misfit[1]}{_at(words, tags, misfit[0])}")
    return made


def _unknown(tag: str, given: str, types: TypeMap | None, labels: LabelSet) -> str:
    """What is wrong with a tag whose type is unknown, and what to do."""
    if types is None:
        known = shortened(", ".join(labels.types), 200)
        return (
            f"unknown type {excerpt(tag[2:])} of the tag {excerpt(given)}; the types are {known}; list those of "
            "all tags in types, or map them"
        )
    kind = tag[2:]
    known = shortened(", ".join(types), 200)
    plain = kind if kind.isidentifier() else repr(kind)
    return (
        f"type {excerpt(kind)} of the tag {excerpt(given)} is not among those that types maps ({known}); add "
        f"'{plain}: TYPE', or '{plain}: null' to leave it out"
    )


def _at(words: Sequence[Any], tags: Sequence[str], index: int) -> str:
    return f"; the word is {excerpt(words[index])}, its tag {excerpt(tags[index])}"
