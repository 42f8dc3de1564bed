"""A look at a token file: its layout, and its sentences, also where the reader would refuse it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from pemeta.data.look.layout import Layout, find_layout
from pemeta.data.look.oddities import Oddities
from pemeta.data.look.text import Text, read_text
from pemeta.data.rows import Row
from pemeta.data.schemes import Scheme
from pemeta.data.token_files.columns import SentenceReader
from pemeta.data.token_files.formats import TokenFormat
from pemeta.data.token_files.lines import shown
from pemeta.data.token_files.shapes import CONLLU, NUMBER, Shape, shape_of
from pemeta.errors import DataError

PLUS = "# global.columns"
"""What names the columns of CoNLL-U Plus, in its first line."""


class TokenLook:
    """A token file, of which each sentence can be read that its reader would read.

    Attributes:
        path: The file.
        oddities: What is odd about it.
        likeness: Its format, in words.
        encoding: Its encoding, in words.
        settings: What a configuration says of its format, without the scheme.
        problem: Why its reader refuses it, after the first attempt; None if it does not.
    """

    source: ClassVar[str] = "conll"
    of_tasks: ClassVar[dict[str, list[str]]] = {}

    def __init__(self, path: Path, word: str | None = None, tag: str | None = None) -> None:
        self.path = path
        self.oddities = Oddities()
        self._text: Text = read_text(path, self.oddities)
        self.encoding = self._text.encoding
        self.problem = self._text.unreadable and f"{shown(path)}: {self._text.unreadable}"
        self.likeness, form = _format(self._text.lines, shown(path), word, tag)
        self._shape = self._shape_of(form)
        if self._shape.conllu and tag is None:
            found: int | str = self._shape.key or (self._shape.tag or 0) + 1
            form = replace(form, columns={**form.columns, "tag": found})
            where = f"the key {found} of MISC" if self._shape.key else f"column {found}"
            self.likeness += f": the tag is in {where}"
        self.settings = form.described()

    def rows(self, scheme: Scheme | None = None, wrong: Callable[[DataError], None] | None = None) -> Iterator[Row]:
        """The sentences, one by one; ``wrong`` gets what the reader refuses, which is omitted."""
        reader = self._reader(scheme)
        for number, line in enumerate([*self._text.lines, ""], 1):
            try:
                reader.take(number, line)
            except DataError as error:
                if wrong is not None:
                    wrong(error)
                if not line.strip():  # the sentence cannot be made: the next begins anew
                    reader = self._reader(scheme)
            if reader.rows:
                yield from reader.rows
                reader.rows.clear()

    def add_wrong(self, error: DataError) -> None:
        """Note what the reader refuses."""
        message = str(error)
        self.problem = self.problem or message
        found = re.match(r"(line \d+): (.*)", message.removeprefix(f"{shown(self.path)}, "))
        where, text = (found[1], found[2]) if found else (None, message)
        what, _, content = text.partition("; found ")
        self.oddities.add(f"a line that cannot be read: {what}", where, content)

    def _reader(self, scheme: Scheme | None) -> SentenceReader:
        return SentenceReader(self.path, self._shape, scheme or "IOB2")

    def _shape_of(self, form: TokenFormat) -> Shape:
        """The shape that the reader finds; a file in another encoding is given to it in UTF-8."""
        if self._text.unreadable is None:
            return shape_of(self.path, form)
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / self.path.name
            copy.write_text("\n".join(self._text.lines), encoding="utf-8", newline="\n")
            try:
                return shape_of(copy, form)
            except DataError as error:
                raise DataError(str(error).replace(shown(copy), shown(self.path))) from None


def _format(lines: Sequence[str], where: str, word: str | None, tag: str | None) -> tuple[str, TokenFormat]:
    """The format of a file in words, and as a configuration says it."""
    if _is_conllu(lines):
        columns = {"word": word, "tag": tag}
        return "CoNLL-U", TokenFormat(
            "conllu", {role: _column(one) for role, one in columns.items() if one is not None}
        )
    layout = find_layout(lines, where, word, tag)
    return _in_words(layout), _as_configured(layout, lines)


def _column(given: str) -> int | str:
    """A column as a configuration says it."""
    return int(given) if given.lstrip("-").isdecimal() else given


def _is_conllu(lines: Sequence[str]) -> bool:
    """Whether words are numbered, and there are CoNLL-U's ten columns, or what only its numbers can say."""
    if any(line.startswith(PLUS) for line in lines[:20]):
        return True
    rows = [line.split("\t") for line in lines if line.strip() and not line.startswith("#")]
    if not rows or not all(NUMBER.fullmatch(row[0]) for row in rows[:1000]):
        return False
    return len(rows[0]) == len(CONLLU) or any("-" in row[0] or "." in row[0] for row in rows)


def _in_words(layout: Layout) -> str:
    named = {role: f"{'' if layout.header else 'column '}{column}" for role, column in layout.columns.items()}
    text = f"{layout}: the word is in {named['word']}, its tag in {named['tag']}"
    if layout.other_tags:
        text += f" (other tags in {', '.join(str(layout.called(column)) for column in layout.other_tags)})"
    if layout.flags is not None:
        text += f"; {named['flags']} says where sentences end"
    if layout.sentence is not None:
        text += f"; {named['sentence']} tells sentences apart"
    return text


def _as_configured(layout: Layout, lines: Sequence[str]) -> TokenFormat:
    """The format; columns and separator are said only where the reader would not find them itself."""
    columns = layout.columns
    if layout.header:  # MISC is where the reader looks for flags
        columns = {role: name for role, name in columns.items() if (role, name) != ("flags", "MISC")}
    plain = layout.width == 2 and columns == {"word": 1, "tag": 2}
    first = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    guessed = "tab" if "\t" in first else "blanks"
    unsaid = layout.separator == guessed and not (plain and guessed == "blanks")
    return TokenFormat("columns", {} if plain else columns, None if unsaid else layout.separator)
