"""A look at a token file: its layout, and its sentences, also where the reader would refuse it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from pemeta.data.look.oddities import Oddities
from pemeta.data.look.text import Text, read_text
from pemeta.data.rows import Row
from pemeta.data.schemes import Scheme
from pemeta.data.token_files.columns import SentenceReader
from pemeta.data.token_files.formats import TokenFormat
from pemeta.data.token_files.layout import find_layout, is_conllu
from pemeta.data.token_files.lines import shown
from pemeta.data.token_files.shapes import Shape, shape_of
from pemeta.errors import DataError


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
        form = replace(form, encoding=self._text.codec)
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
        """The shape that the reader finds; what it would refuse for its bytes is given to it as it should be."""
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
    if is_conllu(lines):
        columns = {"word": word, "tag": tag}
        return "CoNLL-U", TokenFormat(
            "conllu", {role: _column(one) for role, one in columns.items() if one is not None}
        )
    layout = find_layout(lines, where, word, tag)
    return str(layout), layout.form


def _column(given: str) -> int | str:
    """A column as a configuration says it."""
    return int(given) if given.lstrip("-").isdecimal() else given
