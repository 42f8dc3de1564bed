"""Tables in files: JSON lines, CSV, TSV, Parquet and Arrow, row by row, whatever they are about."""

from __future__ import annotations

from pathlib import Path

from pemeta.data.tables.arrow_files import arrow_table, parquet_table
from pemeta.data.tables.table import Table, shown
from pemeta.data.tables.text_files import PACKED, delimited_rows, json_rows
from pemeta.errors import DataError

ENDINGS = {
    "jsonl": (".jsonl", ".ndjson", ".json"),
    "csv": (".csv",),
    "tsv": (".tsv",),
    "parquet": (".parquet",),
    "arrow": (".arrow", ".feather"),
}
"""How the names of files of each format end."""
SEPARATORS = {"csv": ",", "tsv": "\t"}


def read_table(
    path: str | Path,
    format: str | None = None,
    *,
    separator: str | None = None,
    quotes: bool | None = None,
    header: bool = True,
) -> Table:
    """A table in a file.

    In messages lines count from 1, and rows of files without lines from 0, as in ``datasets`` and pandas.

    Args:
        path: The file; or a folder that ``Dataset.save_to_disk`` has written. A text file may be compressed, if its
            name ends with ``.gz``, ``.bz2`` or ``.xz``.
        format: ``jsonl``, ``csv``, ``tsv``, ``parquet`` or ``arrow``; by the ending of the file's name if None.
        separator: What stands between the values of a line, one character; a comma in CSV and a tab in TSV if None.
        quotes: Whether quotation marks around a value of CSV and TSV are not part of it. If None they are not, but a
            value may not have several lines, because a quotation mark that is a word would begin such a one.
        header: Whether the first line of CSV and TSV names the columns; otherwise their names are ``1``, ``2`` ...

    Raises:
        DataError: The file is missing, empty, or not of the format; the message names the line and its content.
    """
    path = Path(path)
    format = format or format_of(path)
    if format == "parquet":
        table = parquet_table(path)
    elif format == "arrow":
        table = arrow_table(path)
    elif format == "jsonl":
        table = Table(shown(path), (), json_rows(path))
    else:
        rows = delimited_rows(path, separator or SEPARATORS[format], quotes, header)
        table = Table(shown(path), (), rows)
    return table.not_empty()


def format_of(path: Path) -> str:
    """The format of a file, by the ending of its name.

    Raises:
        DataError: There is no format of that ending.

    >>> format_of(Path("train.jsonl")), format_of(Path("train.csv.gz")), format_of(Path("train.feather"))
    ('jsonl', 'csv', 'arrow')
    """
    inner = path.with_suffix("") if path.suffix.lower() in PACKED else path
    for format, endings in ENDINGS.items():
        if inner.suffix.lower() in endings:
            return format
    if path.is_dir():
        return "arrow"
    raise DataError(f"{shown(path)} has no ending that tells its format; set format: {', '.join(ENDINGS)}")
