"""Sources of examples in tables, as a configuration describes them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import AfterValidator, Field

from pemeta.data.corpus import Corpus
from pemeta.data.entity_types import label_set
from pemeta.data.roles import Roles
from pemeta.data.row_streams import RowStream, rows_with_held_out
from pemeta.data.sentences import SPLITS, Split
from pemeta.data.sources import DataSource
from pemeta.data.streams import Stream, content_of, with_held_out
from pemeta.data.tables.arrow_files import dataset_table
from pemeta.data.tables.files import read_table
from pemeta.data.tables.hub import hub_sizes, hub_splits
from pemeta.data.tables.places import checked_pattern, files_of, filled, is_whole, names_task
from pemeta.data.tables.reading import TableReading, Tables, types_in
from pemeta.data.tables.table import Table
from pemeta.errors import ConfigError, shortened


def _of_train(splits: dict[Split, str] | None) -> dict[Split, str] | None:
    if splits is not None:
        if "train" not in splits:
            raise ValueError(f"expected one for train too; found {splits}")
        for pattern in splits.values():
            checked_pattern(pattern)
    return splits


def _mark(separator: str | None) -> str | None:
    if separator is None or separator in ("tab", r"\t"):
        return separator and "\t"
    if len(separator) != 1 or separator in '"\r\n ':
        raise ValueError(
            f"expected one character that is neither a blank nor a quotation mark, or tab; found {separator!r}"
        )
    return separator


def _of_task(pattern: str) -> str:
    return checked_pattern(pattern, split=False)


Pattern = Annotated[str, Field(min_length=1), AfterValidator(_of_task)]
Splits = Annotated[dict[Split, str] | None, AfterValidator(_of_train)]


class _Tables(NamedTuple):
    """Where the sentences of a task are.

    Attributes:
        splits: The tables of each split that the data has.
        where: What messages call the data.
        contents: For each split, what finds a JSON value that tells its content, if it is in files.
    """

    splits: Mapping[Split, Tables]
    where: str
    contents: Mapping[Split, Callable[[], Any]]


class TableSource(TableReading, DataSource):
    """What sources of tables have in common: they read tables in one way, and tell tasks apart.

    Attributes:
        splits: Where each split is.
    """

    splits: Splits = None

    def _patterns(self) -> list[str | None]:
        """All that may name the task."""
        return list((self.splits or {}).values())

    def entity_types(self) -> tuple[str, ...]:
        """The configured types, or those of ``names``; the data's own names are not read."""
        if self.types is not None:
            return label_set(self.types).types
        return super().entity_types() if self.names is None else types_in(self.names)

    def check_tasks(self, tasks: Sequence[str]) -> None:
        """Refuse several tasks of a source that cannot tell them apart, and would give each the same sentences."""
        if len(tasks) > 1 and self.task_column is None and not names_task(*self._patterns()):
            names = shortened(", ".join(tasks), 100)
            raise ConfigError(
                f"data {self.name!r} would give the tasks {names} the same sentences; say which column tells them "
                "apart, task_column, or where {task} stands in the names of files or configurations"
            )

    @abstractmethod
    def _tables(self, task: str) -> _Tables:
        """Where the sentences of a task are."""

    def corpus(self, language: str) -> Corpus:
        """The corpus of a task."""
        given = self._tables(language)
        found = self.parts(language, given.splits, given.where)
        return Corpus(language, found.labels, **found.splits, notes=found.notes)

    def streams(self, language: str) -> Mapping[Split, Stream]:
        """The sentences of each split of a task, read row by row."""
        given = self._tables(language)
        found = self.readers(language, given.splits, given.where)
        # All but where the tables are, and which they are, which their content tells.
        read_as = self.model_dump(mode="json", exclude={"path", "splits", "repository", "config", "revision"})

        def fingerprint(split: Split) -> Callable[[], Any] | None:
            find = given.contents.get(split)
            return find and (lambda: [read_as, language, found.scheme, find()])

        streams = {
            split: Stream(found.labels, read, fingerprint(split), found.notes) for split, read in found.splits.items()
        }
        return with_held_out(streams, self.shares, self.split_seed, given.where)

    def rows(self, task: str, roles: Roles) -> Mapping[Split, RowStream]:
        """The rows of each split of a task, by role, read one after the other."""
        given = self._tables(task)
        read_as = [self.columns.by_role, self.names, self.task_column, task, roles.names]

        def fingerprint(split: Split) -> Callable[[], Any] | None:
            find = given.contents.get(split)
            return find and (lambda: [read_as, find()])

        streams = {
            split: RowStream(
                partial(self.role_rows, task, tables, roles, f"{given.where}, {split}"), fingerprint(split)
            )
            for split, tables in given.splits.items()
        }
        return rows_with_held_out(streams, roles, self.shares, self.split_seed, given.where)


class TableData(TableSource):
    """Tables in files: JSON lines, CSV, TSV, Parquet or Arrow, with an example or a word in each row.

    Attributes:
        path: The folder, or the only file; a relative path starts at the working directory.
        format: ``jsonl``, ``csv``, ``tsv``, ``parquet`` or ``arrow``; by the endings of the files' names where null.
        splits: The file of each split, below ``path``, such as ``{train: "{task}/train.csv"}``; several files with
            ``*``. Where null, files named like splits (``train.csv``, ``dev.csv``, ``train-00000-of-00002.parquet``):
            in ``path`` if train is there, or else in a folder named like the task. What the data lacks is held out of
            train.
        separator: What stands between values in CSV and TSV, one character, or ``tab``; a comma and a tab where null.
        quotes: Whether quotation marks around a value of CSV and TSV are not part of it; where null they are not, but
            no value may have several lines, as one that begins with a quotation mark that is a word would have.
    """

    name: ClassVar[str] = "table"

    path: str = Field(min_length=1)
    format: Literal["jsonl", "csv", "tsv", "parquet", "arrow"] | None = None
    separator: Annotated[str | None, AfterValidator(_mark)] = None
    quotes: bool | None = None

    def _patterns(self) -> list[str | None]:
        by_folder = self.splits is None and not is_whole(Path(self.path), self.format)
        return ["{task}"] if by_folder else super()._patterns()

    def _tables(self, task: str) -> _Tables:
        """The files in the task's folder, or those that hold its rows."""
        files = files_of(Path(self.path), task, self.splits, self.format)
        return _Tables(
            {split: partial(map, self._table, paths) for split, paths in files.items()},
            f"{self.path} ({task})",
            {split: partial(_contents, paths) for split, paths in files.items()},
        )

    def _table(self, path: Path) -> Table:
        header = not self.columns.numbered
        return read_table(path, self.format, separator=self.separator, quotes=self.quotes, header=header)


class HubData(TableSource):
    """A data set of the Hugging Face hub, or of a folder with the same layout.

    Attributes:
        repository: Its name, such as ``unimelb-nlp/wikiann``; ``{task}`` may stand in it.
        config: Its configuration, such as ``"{task}"`` if each is a task; needed if it has several.
        revision: Commit, branch or tag; the newest where null.
        splits: Its split for each of train, validation and test, such as ``{train: train, validation: dev}``, or a part
            of one, ``train[:10%]``; those that are named so where null. What the data lacks is held out of train.
    """

    name: ClassVar[str] = "hub"

    repository: Pattern
    config: Pattern | None = None
    revision: str | None = None

    def _patterns(self) -> list[str | None]:
        return [*super()._patterns(), self.repository, self.config]

    def _place(self, task: str) -> tuple[str, str | None, str | None, dict[Split, str] | None]:
        config = None if self.config is None else filled(self.config, task, "")
        splits = (
            None if self.splits is None else {split: filled(one, task, split) for split, one in self.splits.items()}
        )
        return filled(self.repository, task, ""), config, self.revision, splits

    def _tables(self, task: str) -> _Tables:
        """The task's configuration or split, or the one that holds its rows."""
        place = self._place(task)
        where = place[0] if place[1] is None else f"{place[0]} ({place[1]})"
        found = hub_splits(*place)
        return _Tables(
            {split: partial(_dataset_tables, rows, f"{where}, {rows.split}") for split, rows in found.items()},
            where if place[1] == task else f"{where}, {task}",
            {split: partial(_dataset_contents, rows) for split, rows in found.items() if rows.cache_files},
        )

    def sizes(self, language: str) -> dict[Split, int]:
        """What the data set's card says, which is an upper bound where a column tells tasks apart."""
        return self._told(language) or super().sizes(language)

    def row_sizes(self, task: str, roles: Roles) -> dict[Split, int]:
        """The same, whatever the rows are read as."""
        return self._told(task) or super().row_sizes(task, roles)

    def _told(self, task: str) -> dict[Split, int] | None:
        told = hub_sizes(*self._place(task))
        if told is None:
            return None
        shares = {split: getattr(self, split, "train") for split in SPLITS}
        parts = {split: 1.0 if share == "train" else float(share) for split, share in shares.items()}
        return {split: told.get(split) or max(1, round(parts[split] * told["train"])) for split in SPLITS}


def _contents(paths: Sequence[Path]) -> list[Any]:
    return [content_of(path) for path in paths]


def _dataset_tables(rows: Any, where: str) -> list[Table]:
    return [dataset_table(rows, where).not_empty()]


def _dataset_contents(rows: Any) -> list[Any]:
    """What tells a split's content: its files, which part of them it is, and the names of its numbers."""
    files = [content_of(Path(file["filename"])) for file in rows.cache_files]
    return [files, str(rows.split), len(rows), str(rows.features)]
