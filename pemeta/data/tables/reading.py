"""What a configuration says about the sentences in tables, and how they are made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field

from pemeta.data.entity_types import TypeMap, Types, checked_types, label_set, type_map
from pemeta.data.roles import Roles
from pemeta.data.rows import Row
from pemeta.data.schemes import Scheme, SchemeError, split_tag
from pemeta.data.sentences import SPLITS, LabelSet, Sentence, Split
from pemeta.data.tables.columns import TokenColumns, check_column, find_columns, named, token_rows, value_of
from pemeta.data.tables.held_out import Share, held_out
from pemeta.data.tables.table import Table
from pemeta.data.token_rows import detect_rows, sentences
from pemeta.errors import DataError, excerpt, shortened, unknown_name
from pemeta.utils.registry import Frozen
from pemeta.utils.values import missing, whole

Tables: TypeAlias = Callable[[], Iterable[Table]]
"""Opens the tables of one split, as often as they are to be read."""
DEFAULT_TYPES = ("PER", "ORG", "LOC")


class Parts(NamedTuple):
    """What a corpus is made of.

    Attributes:
        labels: Label set of all sentences.
        splits: The sentences of each split.
        notes: What was found or decided in reading, in a line each.
    """

    labels: LabelSet
    splits: dict[Split, tuple[Sentence, ...]]
    notes: tuple[str, ...]


class Readers(NamedTuple):
    """What a corpus is made of, for those who read it one by one.

    Attributes:
        labels: Label set of all sentences.
        scheme: The scheme that the tags are in.
        splits: For each split that the data has, what begins to read its sentences.
        notes: What was found in reading, in a line each.
    """

    labels: LabelSet
    scheme: Scheme
    splits: dict[Split, Callable[[], Iterator[Sentence]]]
    notes: list[str]


def _checked(types: Any) -> Any:
    return None if types is None else checked_types(types)


def _of_labels(types: Types | None) -> Types | None:
    if types is not None:
        label_set(types)
    return types


def _of_tags(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if names is not None:
        if len(set(names)) < len(names):
            raise ValueError(f"two integers have the same name in {list(names)}; give each one of its own")
        types_in(names)
    return names


class TableReading(Frozen):
    """What is to be known about tables to make sentences of them.

    Attributes:
        columns: The columns of words and tags, or of what else a kind of task reads.
        names: The tags, or classes, that integers mean, in order; those of the data itself (its ClassLabel) where null.
        task_column: The column whose values are the tasks, if the tables hold several.
        types: Entity types in the order of the label indices, or what the data's types are called
            (``{PERS: PER, DATE: null}``), or either for each task; where null, those of ``names`` or of the data's own
            names, or else PER, ORG and LOC.
        scheme: Scheme of the tags; ``detect`` finds it, looking at all of them. ``IOB2``, our choice.
        validation: Part of the training sentences that is held out for validation, if the data has none; 0.1, our
            choice. Or ``train``, to try things out: the training sentences stand in for it.
        test: Part of the training sentences that is held out to be tested on, if the data has none, or ``train``; 0.1,
            our choice.
        split_seed: Seed of the choice of these sentences.
    """

    columns: TokenColumns = TokenColumns()
    names: Annotated[tuple[str, ...] | None, AfterValidator(_of_tags)] = Field(None, min_length=1)
    task_column: str | None = Field(None, min_length=1)
    types: Annotated[Types | None, BeforeValidator(_checked), AfterValidator(_of_labels)] = None
    scheme: Literal[Scheme, "detect"] = "IOB2"
    validation: Share = 0.1
    test: Share = 0.1
    split_seed: int = 0

    def readers(self, task: str, splits: Mapping[Split, Tables], where: str) -> Readers:
        """What reads the sentences of a task, one by one.

        Args:
            task: The task.
            splits: The tables of each split that the data has; train is one of them.
            where: What notes call the data.

        Raises:
            DataError: A table is malformed, or no scheme fits. What is wrong with a row is said when it is read.
        """
        labels, mapping = self._labels(task, splits["train"])
        rows = {split: partial(self._rows, task, tables) for split, tables in splits.items()}
        scheme, notes = self._scheme(rows.values(), where)
        found: dict[Split, Callable[[], Iterator[Sentence]]] = {
            split: partial(self._sentences, read, labels, scheme, mapping, f"{where}, {split}")
            for split, read in rows.items()
        }
        return Readers(labels, scheme, found, notes)

    @property
    def shares(self) -> dict[Split, Share]:
        """What becomes of each split that the data lacks."""
        return {"validation": self.validation, "test": self.test}

    def parts(self, task: str, splits: Mapping[Split, Tables], where: str) -> Parts:
        """The sentences of a task.

        Args:
            task: The task.
            splits: The tables of each split that the data has; train is one of them.
            where: What notes call the data.

        Raises:
            DataError: A table or a row is malformed, a split holds no sentence, or too few to hold some out.
        """
        labels, _, readers, notes = self.readers(task, splits, where)
        found = {split: tuple(read()) for split, read in readers.items()}
        lacking = {split: self.shares[split] for split in SPLITS if split not in splits}
        if lacking:
            parts, more = held_out(found["train"], lacking, self.split_seed, where)
            found, notes = {**found, **parts}, [*notes, *more]
        return Parts(labels, found, tuple(notes))

    def _sentences(
        self,
        read: Callable[[], Iterator[Row]],
        labels: LabelSet,
        scheme: Scheme,
        mapping: TypeMap | None,
        where: str,
    ) -> Iterator[Sentence]:
        """The sentences of a split, of which there must be one."""
        empty = True
        try:
            for sentence in sentences(read(), labels=labels, scheme=scheme, types=mapping):
                yield sentence
                empty = False
        except SchemeError as error:
            raise self._with_remedy(error, read) from None
        if empty:
            raise DataError(f"{where}: found no sentence; remove it from splits, or give it one")

    def _labels(self, task: str, train: Tables) -> tuple[LabelSet, TypeMap | None]:
        """The label set, and what each type of the data is called in it."""
        if self.types is not None:
            return label_set(self.types), type_map(self.types, task)
        names = self.names
        for table in train():
            names = find_columns(table, self.columns, self.names).names
            break
        return LabelSet(DEFAULT_TYPES if names is None else types_in(names)), None

    def _scheme(self, splits: Iterable[Callable[[], Iterator[Row]]], where: str) -> tuple[Scheme, list[str]]:
        """The scheme of the tags, and a line about it if it was detected."""
        if self.scheme != "detect":
            return self.scheme, []
        found = detect_rows(chain.from_iterable(read() for read in splits))
        return found.scheme, [f"{where}: {found}"]

    def _with_remedy(self, error: SchemeError, read: Callable[[], Iterator[Row]]) -> DataError:
        """The error for a tag that the scheme does not allow, with the scheme that all tags fit, if there is one."""
        try:
            found = detect_rows(read())
        except SchemeError as other:
            return DataError(f"{error}; {shortened(str(other), 300)}")
        except DataError as other:  # what rows are is wrong, and the tags look wrong because of it
            return other
        return DataError(f"{error}; {found}: set scheme: {found.scheme}")

    def _rows(self, task: str, tables: Tables) -> Iterator[Row]:
        """The rows of a task in a split."""
        others: dict[str, None] = {}
        documents: dict[str, int] = {}
        number, where = 0, ""
        for table in tables():
            where = table.where
            columns = find_columns(table, self.columns, self.names)
            if self.task_column is not None:
                check_column(table, self.task_column, "task_column")
                columns = replace(columns, apart=(*columns.apart, self.task_column))
            wanted = partial(self._is_of, task, table.names, others)
            for row in token_rows(table, columns, wanted, documents):
                number += 1
                yield row
        if not number and others:
            raise DataError(f"{where}: {shortened(unknown_name(f'{self.task_column}', task, others), 300)}")

    def role_rows(self, task: str, tables: Tables, roles: Roles, where: str) -> Iterator[Row]:
        """The rows of a task in a split, with values by role.

        Args:
            task: The task.
            tables: The tables of the split.
            roles: What the columns are for.
            where: What messages call the split.

        Raises:
            DataError: A table lacks a column, a row is of no task, or there is no row of this one.
            ConfigError: A column is given for something that is not among the roles.
        """
        others: dict[str, None] = {}
        empty = True
        for table in tables():
            columns = roles.columns(table, self.columns.by_role)
            if self.task_column is not None:
                check_column(table, self.task_column, "task_column")
            for row in filter(partial(self._is_of, task, table.names, others), table.rows):
                values = {role: value_of(row, column) for role, column in columns.items()}
                if late := roles.late(row.values, columns):
                    raise DataError(
                        f"{row.where}: the row has {late!r}, which rows before it lack; give each row one, or remove it"
                    )
                for role in {"label", "labels"} & columns.keys():
                    values[role] = named(values[role], table.names.get(columns[role]) or self.names)
                yield Row(values, row.where)
                empty = False
        if empty and others:
            raise DataError(f"{where}: {shortened(unknown_name(f'{self.task_column}', task, others), 300)}")
        if empty:
            raise DataError(f"{where}: found no example; remove it from splits, or give it one")

    def _is_of(self, task: str, names: Mapping[str, Sequence[str]], others: dict[str, None], row: Row) -> bool:
        """Whether a row is one of the task's; those of others are noted."""
        if self.task_column is None:
            return True
        value = row.values.get(self.task_column)
        index = None if isinstance(value, bool) else whole(value)
        own = names.get(self.task_column)
        if own is not None and index is not None and 0 <= index < len(own):
            value = own[index]
        if missing(value) or not str(value).strip():
            raise DataError(
                f"{row.where}: the row is of no task, for {self.task_column!r} is empty; give it one, or remove the row"
            )
        if str(value) == task:
            return True
        if str(value).strip() == task.strip():
            raise DataError(
                f"{row.where}: {self.task_column!r} is {excerpt(value)}, but the task is {task!r}; remove the blanks"
            )
        others[str(value)] = None
        return False


def types_in(names: Iterable[str]) -> tuple[str, ...]:
    """The entity types in tags of any scheme, in their order.

    >>> types_in(["O", "B-PER", "I-PER", "B-LOC"]), types_in(["O", "PER", "LOC"])
    (('PER', 'LOC'), ('PER', 'LOC'))
    """
    return LabelSet(tuple(dict.fromkeys(kind for name in names if (kind := split_tag(name)[1])))).types
