"""Tables in Parquet and Arrow files, and those that data sets of ``datasets`` are."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pemeta.data.rows import Row
from pemeta.data.tables.table import Table, class_names, of_values, shown, unreadable
from pemeta.errors import DataError, reason, shortened

AT_ONCE = 1000
"""Rows that are read at a time."""


def parquet_table(path: Path) -> Table:
    """The table in a Parquet file.

    Raises:
        DataError: It cannot be read.
    """
    import pyarrow as pa  # here, because most data is text
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        return _of_batches(path, file.schema_arrow, file.iter_batches(AT_ONCE))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise unreadable(path, error) from None


def arrow_table(path: Path) -> Table:
    """The table in an Arrow file, in either of Arrow's two forms (Feather is one), or in a folder of ``save_to_disk``.

    Raises:
        DataError: It cannot be read, or the folder holds several splits.
    """
    if path.is_dir():
        return _saved(path)
    import pyarrow as pa

    try:
        with path.open("rb") as opened:
            head = opened.read(6)
        mapped = pa.memory_map(str(path))
        if head == b"ARROW1":
            file = pa.ipc.open_file(mapped)
            return _of_batches(path, file.schema, (file.get_batch(i) for i in range(file.num_record_batches)))
        stream = pa.ipc.open_stream(mapped)
        return _of_batches(path, stream.schema, iter(stream))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise unreadable(path, error) from None


def _of_batches(path: Path, schema: Any, batches: Iterable[Any]) -> Table:
    import datasets
    import pyarrow as pa

    try:
        names = class_names(datasets.Features.from_arrow_schema(schema))
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError):  # types that datasets does not know
        names = {}

    def rows() -> Iterator[Row]:
        number = itertools.count()
        try:
            for batch in batches:
                for start in range(0, batch.num_rows, AT_ONCE):
                    for values in batch.slice(start, AT_ONCE).to_pylist():
                        yield Row(values, f"{shown(path)}, row {next(number)}")
        except (OSError, ValueError, ArithmeticError, pa.ArrowException) as error:  # dates may overflow Python's
            raise unreadable(path, error) from None

    return Table(shown(path), tuple(schema.names), rows(), names)


def _saved(folder: Path) -> Table:
    """The table in a folder that ``Dataset.save_to_disk`` has written."""
    import datasets

    try:
        found = datasets.load_from_disk(str(folder))
    except Exception as error:  # datasets, pyarrow and json raise nearly anything here
        raise DataError(
            f"cannot read {shown(folder)}: {shortened(reason(error), 160)}; give a file, or a folder that "
            "Dataset.save_to_disk has written"
        ) from None
    if isinstance(found, dict):
        raise DataError(
            f"{shown(folder)} holds the splits {', '.join(found)}; give the folder of one, such as train in it"
        )
    return dataset_table(found, shown(folder))


def dataset_table(dataset: Any, where: str) -> Table:
    """The table that a ``Dataset`` or an ``IterableDataset`` is, with its transform if it has one.

    Columns of images, sounds and the like are left out, for they would be decoded.
    """
    features = getattr(dataset, "features", None)
    transformed = (getattr(dataset, "format", None) or {}).get("type") == "custom"
    if not transformed:
        kinds = {name: of_values(feature) for name, feature in (features or {}).items()}
        decoded = [one for one in kinds if hasattr(kinds[one], "decode") and type(kinds[one]).__name__ != "Json"]
        dataset = (dataset.remove_columns(decoded) if decoded else dataset).with_format(None)  # no tensors, but numbers

    def rows() -> Iterator[Row]:
        number = itertools.count()
        for batch in dataset.iter(batch_size=AT_ONCE):
            for values in zip(*batch.values(), strict=True):
                yield Row(dict(zip(batch, values, strict=True)), f"{where}, row {next(number)}")

    columns = () if transformed else tuple(getattr(dataset, "column_names", None) or ())
    return Table(where, columns, rows(), class_names(features))
