"""What kinds of task have in common whose examples are rows of a table."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, ClassVar, TypeVar

import numpy as np

from pemeta.data.roles import Roles
from pemeta.data.rows import Row
from pemeta.data.sentences import SPLITS, Split
from pemeta.data.sources import MOST_TEXT, DataSource
from pemeta.data.streams import Text
from pemeta.errors import ConfigError
from pemeta.tasks.kinds.base import Collection, TaskKind

Raw = TypeVar("Raw")


class RowTasks(TaskKind[Raw]):
    """A kind of task whose examples are rows of a table, all of which are in memory."""

    roles: ClassVar[Roles]
    """The columns that its examples are in."""

    @abstractmethod
    def raw(self, rows: Iterable[Row]) -> Iterator[Raw]:
        """The examples that rows hold, in order.

        Raises:
            DataError: a row holds none; the message names its place.
        """

    @abstractmethod
    def text(self, example: Raw) -> str:
        """The text of an example."""

    def about(self, train: Sequence[Raw]) -> Any:
        """What is to be known of all training examples of a task, however few of them are used."""
        return None

    def check(self, data: Collection[Raw]) -> None:
        """Refuse examples that do not go with those of train; by default, accept all.

        Raises:
            DataError: one does not; the message names its place.
        """

    def collection(
        self, source: DataSource, task: str, sizes: Mapping[str, int | None], streaming: bool = False
    ) -> Collection[Raw]:
        """The examples of a task, from its rows."""
        if streaming:
            raise ConfigError(f"streaming: sentences with tags can be streamed; {self.name} cannot; remove it")
        streams = source.rows(task, self.roles)
        whole = {split: tuple(self.raw(streams[split].read())) for split in SPLITS}
        about = self.about(whole["train"])
        splits = {split: examples[: sizes.get(split)] for split, examples in whole.items()}
        if self.exchange_seed is not None:
            splits["train"] = exchanged(splits["train"], self.with_answer_of, self.exchange_seed)
        data = Collection(task, splits, streams["train"].notes, about)
        self.check(data)
        return data

    @property
    def exchange_seed(self) -> int | None:
        """The seed by which training examples exchange their answers; None, by default, where they keep them."""
        return None

    def with_answer_of(self, example: Raw, other: Raw) -> Raw:
        """An example with the answer of another."""
        raise NotImplementedError

    def sizes(self, source: DataSource, task: str) -> Mapping[Split, int]:
        """The number of rows in each split."""
        return source.row_sizes(task, self.roles)

    def pretraining_text(self, source: DataSource, tasks: Sequence[str]) -> Text:
        """The texts of the training examples, of each task the first 10,000."""
        return Text(partial(self._texts, source, tuple(tasks)))

    def _texts(self, source: DataSource, tasks: Sequence[str]) -> Iterator[Sequence[str]]:
        for task in tasks:
            train = source.rows(task, self.roles)["train"]
            for example in islice(self.raw(train.read()), MOST_TEXT):
                yield [self.text(example)]


def exchanged(examples: Sequence[Raw], with_answer_of: Callable[[Raw, Raw], Raw], seed: int) -> tuple[Raw, ...]:
    """Examples of which each has the answer of another one, chosen by a seed.

    >>> exchanged(["ab", "cd"], lambda one, other: one[0] + other[1], 0)
    ('ad', 'cb')
    """
    order = np.random.default_rng(seed).permutation(len(examples)).tolist()
    found = list(examples)
    for index, other in zip(order, [*order[1:], *order[:1]], strict=True):
        found[index] = with_answer_of(examples[index], examples[other])
    return tuple(found)
