"""Records as a table: one row per record, for pandas and as a CSV file."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pemeta.errors import OutputError
from pemeta.reporting.records import Record, read_record
from pemeta.utils.files import write_text
from pemeta.utils.signatures import checked

if TYPE_CHECKING:  # takes half a second to import
    import pandas as pd

CSV = "records.csv"
"""The file's name in an output folder."""
NO_COLUMN = ("outcomes", "unseen", "validation_curve")
"""Fields of a record with a value per example or per epoch, which do not fit into a cell."""
DTYPES = {bool: ("bool", "boolean"), int: ("int64", "Int64"), float: ("float64", "float64")}
"""The dtype of a column, and the one of a column with missing values."""


@checked()
def load_records(folder: str | Path | Iterable[str | Path]) -> pd.DataFrame:
    """The records of an output folder as a table with one row per fine-tuning run.

    The columns are the fields of a :class:`~pemeta.reporting.records.Record`, in its order and units: ``score`` is the
    main metric, whose name is in ``metric``; ``seconds`` and ``priming_seconds`` are wall time in seconds, ``num_...``
    are counts.

    - Every score has a column of its name: ``f1``, ``precision`` and ``recall`` of entities, or ``accuracy``; it is
      ``scores.NAME`` if the name is that of another column. What is shown in percent is a fraction from 0 to 1.
    - Nested fields are flattened with dots: ``config.finetuning.lr``, ``config.priming.outer_steps``,
      ``packages.torch``, ``hardware.device``.
    - ``sources`` is one text, such as ``en, es``; a list in ``config`` is its JSON text, such as ``["PER", "ORG"]``.
    - What is known of each test example (``outcomes``, ``unseen``) and ``validation_curve`` have no column;
      :func:`~pemeta.reporting.records.read_records` has them.
    - What a record does not have is a missing value: ``priming_seconds`` without priming, or a configuration's key
      that is newer than the record. Integers and booleans with missing values are of pandas' nullable dtypes.

    All records of a folder are read, also those of a configuration that has changed since, which a report excludes;
    ``digest`` tells configurations apart.

    Args:
        folder: A grid's output folder or the folder with its records; or several of them, which adds a first column
            ``folder`` with the folder as given.

    Raises:
        OutputError: a folder does not exist or has no records, or a record cannot be read.

    Example:
        The mean F1 of each setting, in percent::

            frame = pemeta.load_records("runs/first-grid")
            100 * frame.groupby("setting").f1.mean()
    """
    if isinstance(folder, str | Path):
        return to_frame(_read(Path(folder)))
    read = [(str(Path(one)), _read(Path(one))) for one in folder]
    if not read:
        raise OutputError("expected at least one folder with records; found an empty list")
    frame = to_frame([record for _, records in read for record in records])
    frame.insert(0, "folder", [name for name, records in read for _ in records])
    return frame


def to_frame(records: Sequence[Record]) -> pd.DataFrame:
    """Records as a table; see :func:`pemeta.load_records` for its columns."""
    import pandas as pd

    rows = [dict(_columns(record)) for record in records]
    names = _in_order(rows)
    return pd.DataFrame({name: _column([row.get(name) for row in rows], name) for name in names})


@checked()
def write_csv(folder: str | Path) -> Path:
    """Write ``records.csv``, with the columns of :func:`pemeta.load_records`, into an output folder; return its path.

    Raises:
        OutputError: there are no records, one of them cannot be read, or the folder cannot be written.
    """
    path = Path(folder) / CSV
    frame = load_records(folder)
    text = frame.to_csv(index=False, lineterminator="\n")
    if "\r" in text:  # in a name; some versions of Python do not quote it, and readers take it for the end of a row
        text = frame.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    write_text(path, text)
    return path


def _read(folder: Path) -> list[Record]:
    if not folder.is_dir():
        raise OutputError(f"there is no folder {folder}; give the output folder of a grid")
    # The pattern of records' names: an output folder without records has other JSON files.
    paths = sorted((folder / "records").glob("*.json")) or sorted(folder.glob("*__*__seed*.json"))
    if not paths:
        raise OutputError(f"no records in {folder}; give the output folder of a grid with a finished fine-tuning run")
    return [read_record(path) for path in paths]


def _columns(record: Record) -> Iterator[tuple[str, Any]]:
    """The names and values of a record's row."""
    for name in Record.model_fields:
        value = getattr(record, name)
        if name == "scores":
            yield from ((name_of_score(score), number) for score, number in value.items())
        elif name not in NO_COLUMN:
            yield from _flat(name, (", ".join(value) or None) if isinstance(value, tuple) else value)


def name_of_score(name: str) -> str:
    """The column of a score; that of a field of a record is the field's."""
    return f"scores.{name}" if name in Record.model_fields else name


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}", inner)
    else:
        yield name, json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


def _in_order(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of all columns, those of a mapping together.

    A null where another record has a mapping, such as ``config.priming`` without priming, gets no column of its own:
    the mapping's columns are missing there.
    """
    first = {name: float(place) for place, name in enumerate(Record.model_fields)}
    # Scores stand where a record has them.
    own = [name for row in rows for name in row if name.partition(".")[0] not in first]
    first |= {name: first["scores"] + place / (1 + len(own)) for place, name in enumerate(dict.fromkeys(own), 1)}
    for name in (name for row in rows for name in row):
        for prefix in _prefixes(name):
            first.setdefault(prefix, len(first))
    names = sorted({name for row in rows for name in row}, key=lambda name: [first[part] for part in _prefixes(name)])
    mappings = {prefix for name in names for prefix in _prefixes(name)[:-1]}
    return [name for name in names if name not in mappings or any(row.get(name) is not None for row in rows)]


def _prefixes(name: str) -> list[str]:
    """``a.b`` as ``a`` and ``a.b``."""
    return list(itertools.accumulate(name.split("."), "{}.{}".format))


def _column(values: list[Any], name: str) -> pd.Series[Any]:
    """A column of the narrowest dtype that holds its values; pandas' own choice for texts and mixtures."""
    import pandas as pd

    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        kinds = {float}
    kind = kinds.pop() if len(kinds) == 1 else _declared(name) if not kinds else None
    if kind is int and any(value is not None and abs(value) >= 2**63 for value in values):
        kind = None
    if kind not in DTYPES:
        return pd.Series(values)
    whole, nullable = DTYPES[kind]
    return pd.Series(values, dtype=nullable if None in values else whole)


def _declared(name: str) -> type | None:
    """The type of a record's field, for a column without any value."""
    field = Record.model_fields.get(name)
    kinds = get_args(field.annotation) if field is not None else ()
    return next((kind for kind in kinds if kind in DTYPES), None)
