"""The reader of token files: one row for each sentence, with its words, tags and document."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pemeta.data.rows import Row
from pemeta.data.schemes import Scheme
from pemeta.data.token_files.brackets import are_brackets, to_tags
from pemeta.data.token_files.formats import TokenFormat
from pemeta.data.token_files.lines import (
    BYTE_ORDER_MARK,
    KEYED,
    MARKER,
    RETURNS,
    TAG,
    Documents,
    numbered_lines,
    shown,
    without_mark,
)
from pemeta.data.token_files.shapes import NUMBER, Shape, misc_items, named, shape_of
from pemeta.errors import DataError, counted

ENDS = {"EndOfSentence", "PySBDSegment"}
"""Flags of a sentence's last word, as in HIPE-2022."""

NOTHING = {"O", "_", "-"}
"""What a range of words may have for a tag, which is none."""


class _Range(NamedTuple):
    """A range of words, as of a contraction, and its own tag."""

    line: int
    start: int
    words: int
    tag: str


class SentenceReader:
    """Makes rows of lines, with nothing in memory but the present sentence.

    Attributes:
        rows: Sentences that have ended, for the caller to take out.

    Args:
        path: The file, for messages.
        shape: Where it has what.
        scheme: Scheme of its tags, by which words are told from comments.
    """

    def __init__(self, path: Path, shape: Shape, scheme: str) -> None:
        self._file, self._shape, self._scheme = shown(path), shape, scheme
        self._documents = Documents()
        self._document: int | None = None
        self._words: list[str] = []
        self._tags: list[str] = []
        self._lines: list[int] = []
        self._ranges: list[_Range] = []
        self._width = shape.width  # of the sentence
        self._number = 0  # of the last word in the sentence
        self._sentence = ""
        self._has_tag = False
        self.rows: list[Row] = []

    def take(self, number: int, line: str) -> None:
        """Take the next line.

        Raises:
            DataError: It is neither blank, nor a marker, a comment or a word.
        """
        if line.startswith(BYTE_ORDER_MARK):
            line = without_mark(line, f"{self._file}, line {number}", bool(self._words))
        cells = self._shape.cells(line)
        if not any(map(str.strip, cells)):  # a line of separators alone is blank, as spreadsheets write it
            self.end()
        elif ("-DOC" in line or line[0] == "#") and self._is_marker(line, cells):
            self.end()
            self._documents.end()
        elif self._shape.header is not None and tuple(cells) == self._shape.header:
            self.end()
            if number > self._shape.line:  # the header of another file, joined to this one
                self._documents.end()
        elif line.startswith("#") and self._is_comment(line, cells):
            if self._documents.mark(line):
                self.end()
            elif self._words and (self._shape.conllu or not KEYED.match(line)):
                raise self._wrong(
                    number, "a comment stands before the first word of a sentence", line, "move or remove it"
                )
        else:
            self._take_word(number, line, cells)

    def end(self) -> None:
        """The present sentence, if there is one; the next line begins another."""
        if self._words:
            self._check_ranges()
            self._check_words()
            where, tags = f"{self._file}, line {self._lines[0]}", self._tags
            if are_brackets(tags):
                tags = to_tags(tags, self._shape.fields, Row({}, where, self._lines).place)
            values = {"tokens": self._words, "tags": tags, "document": self._document}
            self.rows.append(Row(values, where, tuple(self._lines)))
            self._words, self._tags, self._lines, self._ranges = [], [], [], []
        self._number = 0

    def check_tags(self) -> None:
        """Refuse CoNLL-U without a single tag where they should be, after its last line.

        Raises:
            DataError: There was none.
        """
        if self._shape.conllu and not self._has_tag:
            where = f"MISC has the key {self._shape.key!r}"
            if self._shape.key is None:
                where = f"column {(self._shape.tag or 0) + 1} has a tag"
            raise DataError(
                f"{self._file}: no line where {where}; say where tags are with columns: {{tag: ...}}, or give one word "
                "the tag O if there is no entity"
            )

    def _is_marker(self, line: str, cells: list[str]) -> bool:
        """Whether a line marks a document, be it by its beginning or its word; an entity's tag makes it a word."""
        word = cells[self._shape.word] if self._shape.word < len(cells) else ""
        begins = not (self._shape.numbered and self._words)
        marks = MARKER.match(line) or (begins and MARKER.match(word))
        return bool(marks) and not any(TAG.fullmatch(cell) and cell != "O" for cell in cells[1:])

    def _is_comment(self, line: str, cells: list[str]) -> bool:
        if self._shape.numbered:  # no word begins with #, because its number stands before it
            return True
        if not line.startswith("# "):
            return False
        if len(cells) != self._shape.width:
            return True
        tag = cells[self._shape.tag or 0]
        if TAG.fullmatch(tag):
            return False
        # Of types alone any text may be one: what is not `# key = value` is a word, so that none is lost.
        return KEYED.match(line) is not None or (self._shape.separator == "blanks" and self._scheme != "types")

    def _take_word(self, number: int, line: str, cells: list[str]) -> None:
        shape = self._shape
        cells = self._fitted(number, line, cells)
        if shape.sentence is not None:
            name = cells[shape.sentence].strip()
            if name and name != self._sentence:
                self.end()
                self._sentence = name
        tag = self._tag(cells)
        if "\r" in tag:
            raise self._returns(number, line)
        if shape.numbered and not self._is_word(number, line, cells[0], tag):
            return
        word = cells[shape.word]
        if not word.strip():
            raise self._wrong(number, "expected a word", line, "the word is blank; remove the line")
        if not tag.strip():
            raise self._wrong(number, "expected a tag", line, "give the word a tag, or O")
        if not self._words:
            self._document = self._documents.current()
        self._words.append(word)
        self._tags.append(tag)
        self._lines.append(number)
        if shape.flags is not None and ENDS & set(cells[shape.flags].split("|")):
            self.end()

    def _fitted(self, number: int, line: str, cells: list[str]) -> list[str]:
        """The cells of a line, as many as the first line has; only empty ones may be missing at the end, or more."""
        width = self._shape.width
        if self._shape.varying and len(cells) > max(self._shape.word, self._shape.tag or 0):
            self._width = self._width if self._words else len(cells)
            width = self._width
        if len(cells) == width:
            return cells
        if self._shape.separator != "blanks":
            if len(cells) > width and not any(cell.strip() for cell in cells[width:]):
                return cells[:width]
            if self._shape.filled <= len(cells) < width:
                return [*cells, *[""] * (width - len(cells))]
        if "\r" in line:
            raise self._returns(number, line)
        advice = f"it has {len(cells)}: mend it"
        if line.startswith("#"):
            advice = "a comment begins with '# ' and stands before the first word of a sentence"
        elif len(cells) == 1:
            advice = "give the word a tag, or O"
        columns = f"{counted(width, 'column')} separated by {named(self._shape.separator)}"
        raise self._wrong(number, f"expected {columns}, as in line {self._shape.line}", line, advice)

    def _tag(self, cells: list[str]) -> str:
        shape = self._shape
        if shape.tag is not None:
            tag = cells[shape.tag].strip(" ")
            if shape.conllu and tag == "_":  # what CoNLL-U writes for nothing
                return "O"
            self._has_tag = True
            return tag
        items = [value for key, value in misc_items(cells[shape.misc or 0]) if key == shape.key]
        self._has_tag = self._has_tag or bool(items)
        return "|".join(items) or "O"

    def _is_word(self, number: int, line: str, cell: str, tag: str) -> bool:
        """Whether the number of a line is a word's, not that of a range or an empty node."""
        found = NUMBER.fullmatch(cell)
        if found is None:
            if self._shape.conllu:
                raise self._wrong(number, "expected the number of a word", line, "put a blank line between sentences")
            return True
        first, mark, last = int(found[1]), found[2], int(found[3] or 0)
        if first == 1 < self._number == len(self._words) and mark != ".":
            advice = "its numbers begin anew; add one"
            raise self._wrong(number, "expected a blank line before a sentence", line, advice)
        if mark == "-" and first == self._number + 1 and last >= first:
            self._ranges.append(_Range(number, len(self._words), last - first + 1, tag))
            return False
        if mark == "." and first == self._number:
            return False
        if self._shape.conllu and (mark or first != self._number + 1):
            raise self._wrong(
                number, f"expected the number {self._number + 1}", line, "number the words of a sentence from 1"
            )
        self._number = first
        return True

    def _check_ranges(self) -> None:
        """Refuse a range whose words are not there, or with a tag that none of them has, which would be lost."""
        for line, start, words, tag in self._ranges:
            where, own = f"{self._file}, line {line}: the range of {words} words", self._tags[start : start + words]
            if self._shape.conllu and len(own) < words:
                raise DataError(f"{where} has {len(own)} of them after it; give all, or correct the range")
            if tag.strip() and tag not in NOTHING and all(one == "O" for one in own):
                raise DataError(
                    f"{where} has the tag {tag!r}, but its words, which are what CoNLL-U annotates, have none; give "
                    "them the tag"
                )

    def _check_words(self) -> None:
        """Refuse words that were taken out for their licence, which leaves underscores."""
        if self._shape.conllu and set("".join(self._words)) == {"_"} and any(tag != "O" for tag in self._tags):
            raise DataError(
                f"{self._file}, line {self._lines[0]}: the words of the sentence were taken out: found "
                f"{' '.join(self._words)[:80]!r}; put them back as the data set says"
            )

    def _returns(self, number: int, line: str) -> DataError:
        advice = f"a carriage return alone ends none: {RETURNS} FILE > NEW"
        return self._wrong(number, "expected lines that end with a line feed", line, advice)

    def _wrong(self, number: int, expected: str, line: str, advice: str) -> DataError:
        return DataError(f"{self._file}, line {number}: {expected}; found {line[:80]!r}; {advice}")


def token_rows(path: Path, form: TokenFormat, scheme: Scheme | None = None) -> Iterator[Row]:
    """The sentences of a token file, one by one: rows with ``tokens``, ``tags`` as they are, and ``document``.

    ``document`` counts what document marks separate, from 0: ``-DOCSTART-`` lines, ``# newdoc`` and ``document_id``
    comments, other sources than before (``# http://...``), and repeated headers; it is None before the first mark.

    Args:
        path: The file.
        form: How it is written.
        scheme: Scheme of the tags, if it has been detected.

    Raises:
        DataError: The file cannot be read, or a line is not what the format says.
    """
    reader = SentenceReader(path, shape_of(path, form), scheme or form.scheme)
    for number, line in numbered_lines(path, form.encoding):
        reader.take(number, line)
        if reader.rows:
            yield from reader.rows
            reader.rows.clear()
    reader.end()
    yield from reader.rows
    reader.check_tags()
