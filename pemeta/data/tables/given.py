"""Tables that are objects in Python: data sets of ``datasets``, data frames of pandas, and mappings of their splits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import PathLike
from typing import Any

from pemeta.data.rows import Row
from pemeta.data.sentences import Split
from pemeta.data.tables.arrow_files import dataset_table
from pemeta.data.tables.held_out import parts_of
from pemeta.data.tables.reading import Tables
from pemeta.data.tables.table import Table
from pemeta.errors import DataError, article, excerpt, shortened, unknown_name


def given_tables(data: object, splits: Mapping[Split, str] | None, where: str) -> dict[Split, Tables]:
    """The tables of each split of a data set that is an object.

    Args:
        data: A ``Dataset``, an ``IterableDataset`` or a ``DataFrame``, all of which is train; or a ``DatasetDict`` or
            another mapping of the splits' names to them.
        splits: Which of its splits are which; by default those that are named so.
        where: What messages call it.

    Raises:
        DataError: It is none of these, or has no such split.
    """
    if not isinstance(data, Mapping):
        return {"train": _tables(data, where)}
    for name in data:
        if not isinstance(name, str):
            raise DataError(f"{where}: expected the name of a split; found {excerpt(name)}; call it train, for example")
    if data and not any(map(_is_table, data.values())):
        raise DataError(
            f"{where}: expected data sets or data frames by split; found {excerpt(data)}; make a data set of columns: "
            "datasets.Dataset.from_dict(data); or of rows: datasets.Dataset.from_list(rows)"
        )
    found = parts_of(list(data), splits, where)
    for name in found.values():
        if name not in data:
            raise DataError(f"{where}: splits: {shortened(unknown_name('split', name, map(str, data)), 300)}")
    return {split: _tables(data[name], f"{where}, {name}") for split, name in found.items()}


def _is_table(data: object) -> bool:
    return _is_frame(data) or _is_dataset(data)


def _is_frame(data: object) -> bool:
    return hasattr(data, "itertuples") and hasattr(data, "columns")


def _is_dataset(data: object) -> bool:
    return hasattr(data, "features") and hasattr(data, "with_format") and hasattr(data, "iter")


def _tables(data: Any, where: str) -> Tables:
    """Opens one object as a table."""
    if _is_frame(data):
        return lambda: [_frame_table(data, where)]
    if _is_dataset(data):
        return lambda: [dataset_table(data, where).not_empty()]
    kind = article(type(data).__name__)
    remedy = "convert it with to_pandas()"
    if isinstance(data, str | PathLike):
        remedy = "load it: datasets.load_dataset(...), or data: {name: table, path: ...} in a configuration"
    elif not hasattr(data, "to_pandas"):
        remedy = "make one: datasets.Dataset.from_list(rows)"
    raise DataError(
        f"{where}: expected a datasets.Dataset, a pandas.DataFrame, or a mapping of splits to them; found {kind}: "
        f"{excerpt(data)}; {remedy}"
    )


def _frame_table(frame: Any, where: str) -> Table:
    columns = tuple(map(str, frame.columns))

    def rows() -> Iterator[Row]:
        for number, values in enumerate(frame.itertuples(index=False, name=None)):
            yield Row(dict(zip(columns, values, strict=True)), f"{where}, row {number}")

    return Table(where, columns, rows()).not_empty()
