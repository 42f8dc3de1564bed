"""Where a token file has its columns, which its first lines and the configuration say."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pemeta.data.schemes import PREFIXED
from pemeta.data.token_files.formats import TokenFormat
from pemeta.data.token_files.lines import BYTE_ORDER_MARK, KEYED, MARKER, numbered_lines, shown
from pemeta.errors import DataError, counted, unknown_name

CONLLU = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
"""The columns of CoNLL-U."""
NUMBER = re.compile(r"(\d+)(?:([-.])(\d+))?")
"""The number of a word, a range of words, or an empty node."""
FLAGS = "MISC"
"""The column of a header that has flags, as in HIPE-2022."""
WORDS = frozenset(("form", "text", "token", "tokens", "word", "words"))
"""Names of columns of words, in a header."""
TAGS = frozenset(("entity", "iob", "label", "labels", "ne", "ner", "ner_tag", "ner_tags", "tag", "tags"))
"""Names of columns of tags, in a header."""
_PLUS = re.compile(r"#\s*global\.columns\s*=\s*(.+)")
_ENTITY = re.compile(r"#\s*global\.Entity\s*=\s*(\S+)")


@dataclass(frozen=True)
class Shape:
    """Where a file has what; columns are indices from 0.

    Attributes:
        separator: ``tab``, ``blanks`` or the characters themselves.
        width: Number of columns.
        filled: Number of them without empty ones at the end of the first line, which may be missing.
        word: Column of words.
        tag: Column of tags; None if they are in MISC.
        misc: Column MISC.
        key: The key in MISC that has the tags.
        flags: Column of flags, of which some end a sentence.
        sentence: Column of which each new value begins a sentence.
        numbered: Whether the first column numbers the words, so that a line that begins with ``#`` is none.
        conllu: Whether it is CoNLL-U.
        header: Cells of the header line.
        fields: What the parts of an entity in brackets are called, as in ``# global.Entity = eid-etype-head``.
        line: Number of the first line of a word.
        varying: Whether sentences differ in their numbers of columns, as in CoNLL-2012, which has one for each verb.
    """

    separator: str
    width: int
    filled: int
    word: int
    tag: int | None = None
    misc: int | None = None
    key: str | None = None
    flags: int | None = None
    sentence: int | None = None
    numbered: bool = False
    conllu: bool = False
    header: tuple[str, ...] | None = None
    fields: str | None = None
    line: int = 1
    varying: bool = False

    def cells(self, line: str) -> list[str]:
        """The cells of a line."""
        return split_line(line, self.separator)


def split_line(line: str, separator: str) -> list[str]:
    """The cells of a line; commas and semicolons may stand in quotes, as in CSV.

    >>> split_line("Ada   B-PER", "blanks"), split_line('",",O', ",")
    (['Ada', 'B-PER'], [',', 'O'])
    """
    if separator == "tab":
        return line.split("\t")
    if separator == "blanks":
        return re.findall("[^ \t]+", line)
    if separator in (",", ";") and '"' in line:
        try:
            return [cell.strip(" ") for cell in next(csv.reader([line], delimiter=separator, skipinitialspace=True))]
        except csv.Error:  # a cell that is longer than any word
            return [line]
    return [cell.strip(" \t") for cell in line.split(separator)]


def named(separator: str) -> str:
    """A separator in words."""
    return {"tab": "tabs", "blanks": "blanks"}.get(separator, repr(separator))


@dataclass
class _Beginning:
    """What the lines before the first word say."""

    header: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None
    fields: str | None = None
    varying: bool = False


def shape_of(path: Path, form: TokenFormat) -> Shape:
    """The shape of a file; no more of it is read than up to the first word, unless CoNLL-U's tags have to be found.

    Raises:
        DataError: It has no word, or not the columns that the format names.
    """
    begun = _Beginning()
    names = [column for column in form.columns.values() if isinstance(column, str)]
    unclear: tuple[int, str] | None = None  # begins with #, but may be a word if all do
    for number, line in numbered_lines(path, form.encoding):
        line = line.lstrip(BYTE_ORDER_MARK)
        if not line.strip() or MARKER.match(line):
            begun.varying = begun.varying or line.startswith("#")
            continue
        wants_header = form.format == "columns" and names and begun.header is None
        if wants_header and (not line.startswith("#") or set(names) <= set(_guessed(line, form))):
            begun.header = _header(path, number, line, form, names)
        elif begun.header is None and _is_header(_guessed(line, form), form):
            begun.header = tuple(_guessed(line, form))
        elif not line.startswith("#"):
            return _shape(path, form, begun, number, line)
        elif found := _PLUS.match(line):
            begun.columns = tuple(found[1].split())
        elif found := _ENTITY.match(line):
            begun.fields = found[1]
        elif unclear is None and not KEYED.match(line):
            unclear = (number, line)
    if unclear is not None:
        return _shape(path, form, begun, *unclear)
    raise DataError(f"{shown(path)} holds no sentence; expected a line for each word")


def _separator(line: str, form: TokenFormat) -> str:
    if form.separator is not None:
        return form.separator
    return "tab" if "\t" in line or form.format == "conllu" else "blanks"


def _guessed(line: str, form: TokenFormat) -> list[str]:
    return split_line(line, _separator(line, form))


def _is_header(cells: list[str], form: TokenFormat) -> bool:
    """Whether cells name the columns of words and tags, which the format says by number."""
    columns = [form.columns.get("word", 1), form.columns.get("tag", 2)]
    if form.format == "conllu" or not all(isinstance(one, int) and -len(cells) <= one <= len(cells) for one in columns):
        return False
    word, tag = (cells[int(one) - (int(one) > 0)].lower() for one in columns)
    return word in WORDS and (tag in TAGS or tag.startswith("ne-"))


def _header(path: Path, number: int, line: str, form: TokenFormat, names: list[str]) -> tuple[str, ...]:
    """The cells of the header line, after checking that they name each column that is wanted once."""
    cells = tuple(_guessed(line, form))
    for name in names:
        if cells.count(name) != 1:
            problem = unknown_name("column", name, cells) if name not in cells else f"two columns are called {name!r}"
            raise DataError(
                f"{shown(path)}, line {number}: {problem}; the header line is {line[:80]!r}; give its names or the "
                "columns' numbers in columns"
            )
    return cells


def _shape(path: Path, form: TokenFormat, begun: _Beginning, number: int, line: str) -> Shape:
    """The shape of a file whose first word stands in a line."""
    separator = _separator(line, form)
    cells = split_line(line, separator)
    where = f"{shown(path)}, line {number}"
    conllu = form.format == "conllu"
    names = begun.columns if conllu else begun.header
    width = len(names) if names else len(cells)
    filled = max((i for i, cell in enumerate(cells, 1) if cell.strip()), default=width)
    shape = Shape(separator, width, filled, 0, conllu=conllu, header=begun.header, fields=begun.fields, line=number)
    if conllu:
        return _conllu(path, form, shape, names, cells, where)
    if not form.columns and width != 2:
        raise DataError(
            f"{where}: expected a word and its tag; found {counted(width, 'column')} separated by {named(separator)}: "
            f"{line[:80]!r}; say which are which, such as columns: {{word: 1, tag: {max(width, 2)}}}"
        )
    found: dict[str, Any] = {role: _index(column, width, names, where, line) for role, column in form.columns.items()}
    found = {"word": 0, **found} if form.columns else {"word": 0, "tag": 1}
    if len(set(found.values())) < len(found):
        raise DataError(f"{where}: expected a column for each; found one for two in columns: {dict(form.columns)}")
    if names and FLAGS in names and names.index(FLAGS) not in found.values():
        found.setdefault("flags", names.index(FLAGS))
    first = NUMBER.fullmatch(cells[0])
    numbered = 0 not in found.values() and first is not None and int(first[1]) < 2  # not a year, in a column of lemmas
    varying = begun.varying and all(isinstance(column, int) and column > 0 for column in form.columns.values())
    return replace(shape, numbered=numbered, varying=varying, **found)


def _index(column: int | str, width: int, names: tuple[str, ...] | None, where: str, line: str) -> int:
    """The index of a column by its number or name."""
    if isinstance(column, str):
        if names is None or column not in names:
            raise DataError(f"{where}: {unknown_name('column', column, names or ())}; the line is {line[:80]!r}")
        return names.index(column)
    index = column - 1 if column > 0 else width + column
    if not 0 <= index < width:
        raise DataError(f"{where}: expected a column {column}; found {counted(width, 'column')}: {line[:80]!r}")
    return index


def _conllu(
    path: Path, form: TokenFormat, shape: Shape, names: tuple[str, ...] | None, cells: list[str], where: str
) -> Shape:
    """The shape of a CoNLL-U file, or of one with other columns after the number and the word."""
    line = "\t".join(cells)
    if not NUMBER.fullmatch(cells[0]) or len(cells) < 3:
        raise DataError(
            f"{where}: expected CoNLL-U: a number, a word and more, separated by tabs; found {line[:80]!r}; say "
            "format: columns if words are not numbered"
        )
    names = names or (CONLLU if shape.width == len(CONLLU) else None)
    word = _index(form.columns.get("word", 2), shape.width, names, where, line)
    misc = names.index("MISC") if names and "MISC" in names else None
    shape = replace(shape, word=word, misc=misc, numbered=True)
    others: dict[str, Any] = {
        role: _index(form.columns[role], shape.width, names, where, line)
        for role in ("flags", "sentence")
        if role in form.columns
    }
    shape = replace(shape, **others)
    tag = form.columns.get("tag")
    if tag is None:
        return _with_found_tag(path, form, shape)
    if isinstance(tag, str) and (names is None or tag not in names):
        if misc is None:
            raise DataError(
                f"{where}: expected a column {tag!r}, or MISC with that key; found "
                f"{counted(shape.width, 'column')} without names: {line[:80]!r}; give the column's number"
            )
        return replace(shape, key=tag)
    return replace(shape, tag=_index(tag, shape.width, names, where, line))


def _with_found_tag(path: Path, form: TokenFormat, shape: Shape) -> Shape:
    """The shape with the only key of MISC, or the only column, all of whose values are tags in the whole file."""
    misc = shape.misc
    keys: dict[str, set[str]] = {}
    columns: dict[int, set[str]] = {index: set() for index in range(2, shape.width) if index != misc}
    for _, line in numbered_lines(path, form.encoding):
        cells = shape.cells(line)
        if len(cells) != shape.width or not cells[0].isdigit():
            continue
        for index, values in columns.items():
            if len(values) < 1000:  # words, which no tags are as many as
                values.add(cells[index])
        for key, value in misc_items(cells[misc]) if misc is not None else ():
            keys.setdefault(key, set()).add(value)
    seen: list[tuple[int | str, set[str]]] = [*keys.items(), *((i, values - {"_"}) for i, values in columns.items())]
    found = [one for one, values in seen if _are_tags(values)]
    found = found or [one for one, values in seen if values == {"O"}]  # a file without an entity
    if len(found) != 1:
        what = f"several: {', '.join(_told(one) for one in found)}" if found else "neither"
        raise DataError(
            f"{shown(path)}: expected one column of tags, or one key of MISC that has them, such as name=B-PER; found "
            f"{what}; say which with columns: {{tag: ...}}, the column's number or the key"
        )
    return replace(shape, key=found[0]) if isinstance(found[0], str) else replace(shape, tag=found[0])


def _told(found: int | str) -> str:
    return f"key {found!r}" if isinstance(found, str) else f"column {found + 1}"


def _are_tags(values: set[str]) -> bool:
    """Whether values are tags, of which one at least is an entity's, or entities in brackets."""
    if any(value.startswith("(") for value in values):
        return all("(" in value or ")" in value for value in values)
    return bool(values - {"O"}) and all(value == "O" or PREFIXED.fullmatch(value) for value in values)


def misc_items(misc: str) -> list[tuple[str, str]]:
    """Keys and values of a MISC column.

    >>> misc_items("SpaceAfter=No|name=B-PER"), misc_items("_")
    ([('SpaceAfter', 'No'), ('name', 'B-PER')], [])
    """
    if misc == "_":
        return []
    items = (part.partition("=") for part in misc.split("|"))
    return [(key.strip(), value.strip()) for key, equals, value in items if equals]
