"""A look at one file, whatever its format: sentences with tags, or rows of texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pemeta.data.look.base import Asked, Look
from pemeta.data.look.row_look import RowLook, look_at_rows
from pemeta.data.look.table_file import TableLook, table_format
from pemeta.data.look.tally import Tally
from pemeta.data.look.token_file import TokenLook
from pemeta.data.rows import Row
from pemeta.data.schemes import DETECTED, Scheme, SchemeError, SchemeFinder, converted
from pemeta.data.token_files.lines import shown
from pemeta.errors import DataError

KEPT = 100_000
"""Most sentences that are kept in memory; a larger file is read again."""


@dataclass(frozen=True, kw_only=True)
class SentenceLook(Look):
    """What a file of sentences with tags holds.

    Attributes:
        tally: What it holds.
        scheme: Scheme of its tags; ``conlleval`` if they fit no other, and None if they do not fit that either.
        closest: The scheme that most of its tags fit; the same, if all do.
    """

    tally: Tally
    scheme: Scheme | None
    closest: Scheme


def look_at(path: Path, asked: Asked) -> Look:
    """Look at a file.

    Raises:
        DataError: It cannot be read at all, or what it holds may be more than one thing.
    """
    format = table_format(path)
    if format is not None and not asked.about_tokens:
        found = _rows_in(path, format, asked)
        if found is not None:
            return found
    if format in ("csv", "tsv") and asked.names is None:
        try:
            return _look(TokenLook(path, asked.word, asked.tag), asked)
        except DataError as error:
            try:
                return _look(TableLook(path, format, asked.word, asked.tag, asked.names), asked)
            except DataError as other:
                raise (other if "--names" in str(other) else error) from None
    if format is not None:
        return _look(TableLook(path, format, asked.word, asked.tag, asked.names), asked)
    return _look(TokenLook(path, asked.word, asked.tag), asked)


def _rows_in(path: Path, format: str, asked: Asked) -> RowLook | None:
    """A table of texts; None if it is none, or perhaps none: a token file may have commas or tabs too."""
    try:
        return look_at_rows(path, format, asked)
    except DataError:
        if asked.kind is not None or asked.columns:
            raise
        return None


def _look(file: TokenLook | TableLook, asked: Asked) -> SentenceLook:
    finder, kept = SchemeFinder(), list[Row]()
    for row in file.rows(asked.scheme, file.add_wrong):
        finder.add(row.values["tags"], row.place)
        if len(kept) <= KEPT:
            kept.append(row)

    def again(scheme: Scheme | None = None) -> Iterable[Row]:
        # Of types alone, the reader tells words from comments in another way.
        return file.rows(scheme) if len(kept) > KEPT or scheme == "types" else kept

    scheme, closest, problem = _schemes(finder, again, asked.scheme)
    tally = Tally(file.oddities, scheme=closest)
    for row in again(closest):
        tally.add(row)
    tally.finish()
    if not tally.examples:
        raise DataError(file.problem or f"{shown(file.path)} holds no sentence")
    return SentenceLook(
        path=file.path,
        source=file.source,
        likeness=file.likeness,
        encoding=file.encoding,
        settings=file.settings,
        scheme=scheme,
        closest=closest,
        problem=file.problem or problem,
        tally=tally,
        oddities=file.oddities,
        of_tasks=file.of_tasks,
    )


def _schemes(
    finder: SchemeFinder, rows: Callable[[], Iterable[Row]], given: Scheme | None
) -> tuple[Scheme | None, Scheme, str | None]:
    """The scheme to read a file with, the one that most of its tags fit, and why the file has none."""
    if given is not None:
        return given, given, None
    try:
        scheme = finder.found().scheme
    except SchemeError as error:
        closest = _closest(rows())
        try:
            return finder.found(("conlleval",)).scheme, closest, None
        except SchemeError:
            return None, closest, str(error)
    return scheme, scheme, None


def _closest(rows: Iterable[Row]) -> Scheme:
    """The scheme that fits all but the fewest sentences."""
    misfits = dict.fromkeys(DETECTED, 0)
    for row in rows:
        for scheme in DETECTED:
            misfits[scheme] += converted(row.values["tags"], scheme)[1] is not None
    return min(DETECTED, key=lambda scheme: misfits[scheme])


def common_scheme(looks: Sequence[SentenceLook]) -> str | None:
    """The scheme that reads several files: theirs, ``detect`` if they differ; None if one has none.

    A file without an entity fits every scheme.
    """
    schemes = {look.scheme for look in looks if look.tally.entities} or {looks[0].scheme}
    if None in schemes:
        return None
    if "conlleval" in schemes and schemes <= {"conlleval", "IOB1", "IOB2"}:
        return "conlleval"
    return schemes.pop() if len(schemes) == 1 else "detect"
