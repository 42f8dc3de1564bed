"""Rows of lists in an Arrow file, which is mapped into memory: the system reads what is used, and may drop it again."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np

from pemeta.errors import DataError, reason

T = TypeVar("T")
Chunk = dict[str, list[Any]]
"""Rows of a file by column: in each column a list for each row."""

ROWS = 1000
"""Rows that are made, tokenised and written at a time; a file's record batches, of which only the last has fewer."""


def chunked(values: Iterable[T], size: int | None = None) -> Iterator[list[T]]:
    """Lists of ``size`` values, by default :data:`ROWS`, of which the last may be shorter.

    >>> list(chunked("abcde", 2))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    iterator = iter(values)
    while chunk := list(islice(iterator, size or ROWS)):
        yield chunk


def write_rows(path: Path, types: Mapping[str, str], chunks: Iterable[Chunk]) -> int:
    """Write rows to an Arrow file, chunk by chunk.

    Args:
        path: The file.
        types: By column, the type of the items of its lists, as Arrow calls it.
        chunks: Some rows each, as many in all but the last.

    Returns:
        The number of rows.
    """
    import pyarrow as pa  # here, because most runs do not need it

    schema = pa.schema([(name, pa.list_(pa.type_for_alias(kind))) for name, kind in types.items()])
    number = 0
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for chunk in chunks:
            columns = [pa.array(chunk[name], schema.field(name).type) for name in types]
            writer.write_batch(pa.record_batch(columns, schema=schema))
            number += len(columns[0])
    return number


class ArrowFile:
    """A file that :func:`write_rows` has written, mapped into memory.

    Args:
        path: The file.
        about: What is known about it.

    Raises:
        DataError: It is not there, or not whole.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        import pyarrow as pa

        self.path, self.about = path, about
        try:
            with pa.memory_map(str(path)) as file:  # what was read from it keeps it mapped
                reader = pa.ipc.open_file(file)
                self._batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"cannot read {path}: {reason(error)}; it was removed or changed: make it again") from None
        self._rows = self._batches[0].num_rows if self._batches else 1
        self._numbers: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}

    def __reduce__(self) -> tuple[type[ArrowFile], tuple[Path, Mapping[str, Any]]]:
        return type(self), (self.path, self.about)  # another process maps it itself

    def __len__(self) -> int:
        return self._rows * (len(self._batches) - 1) + self._batches[-1].num_rows if self._batches else 0

    def numbers(self, column: str, row: int) -> np.ndarray:
        """A row of a column of numbers; not to be written to."""
        starts, values = self._column(column)[row // self._rows]
        start = row % self._rows
        return values[starts[start] : starts[start + 1]]

    def texts(self, column: str, row: int) -> list[str]:
        """A row of a column of texts."""
        found: list[str] = self._batches[row // self._rows].column(column)[row % self._rows].as_py()
        return found

    def lengths(self, column: str) -> np.ndarray:
        """The number of items in each row."""
        parts = [np.diff(batch.column(column).offsets.to_numpy()) for batch in self._batches]
        return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)

    def rows(self, *columns: str) -> Iterator[tuple[Any, ...]]:
        """All rows of some columns, one after the other, as lists."""
        for batch in self._batches:
            yield from zip(*(_lists(batch.column(name)) for name in columns), strict=True)

    def _column(self, name: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each batch, where the rows of a column begin and end, and their items one after the other."""
        if name not in self._numbers:
            columns = [batch.column(name) for batch in self._batches]
            self._numbers[name] = [(one.offsets.to_numpy(), one.values.to_numpy()) for one in columns]
        return self._numbers[name]


def _lists(column: Any) -> list[list[Any]]:
    """A column of a batch as lists, several times faster than by Arrow's own ``to_pylist``."""
    items = column.values.to_numpy(zero_copy_only=False).tolist()
    return [items[start:end] for start, end in pairwise(column.offsets.to_numpy().tolist())]


class Rows(Sequence[T]):
    """A sequence whose items are made of a row when they are asked for, and not kept."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of rows."""

    @abstractmethod
    def row(self, index: int) -> T:
        """The item of a row, counted from 0."""

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        """An item, or some of them as a list has them."""
        if isinstance(index, slice):
            return self.part(range(len(self))[index])
        return self.row(range(len(self))[index])  # which refuses what a list would refuse

    def part(self, rows: range) -> Sequence[T]:
        """The items of some rows, in a tuple."""
        return tuple(map(self.row, rows))

    def lengths(self) -> np.ndarray:
        """The number of elements of each item; overridden where the items need not be made."""
        return np.array([len(one) for one in self], np.int64)  # type: ignore[arg-type]
