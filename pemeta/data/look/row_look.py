"""A look at a table of texts: what it is for, which columns are what, and what it holds."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pemeta.data.look.base import Asked, Look
from pemeta.data.look.guess import Guess, guess
from pemeta.data.look.oddities import Oddities
from pemeta.data.look.row_tally import RowTally
from pemeta.data.look.table_file import FORMATS, SAMPLE
from pemeta.data.tables.files import format_of, read_table
from pemeta.data.token_files.lines import shown
from pemeta.errors import DataError, counted, shortened


@dataclass(frozen=True, kw_only=True)
class RowLook(Look):
    """What a table of texts holds.

    Attributes:
        tally: What it holds.
        guess: What its columns are.
    """

    tally: RowTally
    guess: Guess


def look_at_rows(path: Path, format: str, asked: Asked) -> RowLook | None:
    """Look at a table of texts; None if its rows seem to be sentences with tags.

    Raises:
        DataError: It cannot be read at all, or what its columns are for may be more than one thing.
    """
    table = read_table(path, format)
    sample = list(islice(table.rows, SAMPLE))
    found = guess(shown(path), [row.values for row in sample], asked.kind, asked.columns)
    if found is None:
        return None
    oddities, problem = Oddities(), None
    numeric = found.problem == "regression"
    tally = RowTally(oddities=oddities, columns=found.columns, tasks=found.tasks, numeric=numeric)
    try:
        for row in read_table(path, format).rows:
            tally.add(row)
    except DataError as error:
        problem = str(error)
    tally.finish()
    return RowLook(
        path=path,
        source="table",
        likeness=_in_words(format, table.columns, found),
        encoding="",
        settings=_settings(path, format, found),
        problem=problem,
        oddities=oddities,
        tally=tally,
        kind=found.kind,
        of_tasks={found.tasks: sorted(tally.by_task)} if found.tasks is not None else {},
        guess=found,
    )


def _settings(path: Path, format: str, found: Guess) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    try:
        by_name = format_of(path)
    except DataError:
        by_name = None
    if by_name != format:
        settings["format"] = format
    settings["columns"] = dict(found.columns)
    if found.tasks is not None:
        settings["task_column"] = found.tasks
    return settings


def _in_words(format: str, columns: tuple[str, ...], found: Guess) -> str:
    used = {*found.columns.values(), found.tasks}
    others = [name for name in columns if name not in used]
    also = f"; {counted(len(others), 'other column')}: {shortened(', '.join(others), 100)}" if others else ""
    return f"{FORMATS[format]}{also}"
