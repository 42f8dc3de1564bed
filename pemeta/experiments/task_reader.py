"""The tasks of one kind from one source: read, digested and encoded once each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

from transformers import PreTrainedTokenizerBase

from pemeta.data.examples import Examples
from pemeta.data.sentences import Split
from pemeta.data.sources import DataSource
from pemeta.experiments.setting import Sizes
from pemeta.tasks.kinds import Collection, TaskKind
from pemeta.tasks.kinds.base import few_of_each
from pemeta.tasks.task import Task


class TaskReader:
    """Reads the tasks of one kind from one source; what it has read, it keeps.

    Attributes:
        kind: the kind of the tasks.
        source: where their examples are.

    Args:
        kind: the kind of the tasks.
        source: where their examples are.
        tokenizer: finds the backbone's tokenizer.
        max_length: most tokens of an example; the kind's own choice where None.
        streaming: keep examples in files of the cache, mapped into memory.
    """

    def __init__(
        self,
        kind: TaskKind[Any],
        source: DataSource,
        tokenizer: Callable[[], PreTrainedTokenizerBase],
        max_length: int | None = None,
        streaming: bool = False,
    ) -> None:
        self.kind = kind
        self.source = source
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._streaming = streaming
        self.collection = cache(self._collection)
        self.digest = cache(self._digest)
        self.examples = cache(self._examples)
        self.task = cache(self._task)

    def _collection(self, task: str, sizes: Sizes) -> Collection[Any]:
        """The examples of a task."""
        data = self.kind.collection(self.source, task, sizes.of_splits, self._streaming)
        return data if sizes.per_class is None else few_of_each(self.kind, data, sizes.per_class)

    def _digest(self, task: str, sizes: Sizes, split: Split) -> str:
        """A digest of a split of a task."""
        return self.kind.digest(self.collection(task, sizes), split)

    def _examples(self, task: str, sizes: Sizes, split: Split) -> Examples:
        """The encoded examples of a split of a task."""
        return self.kind.encode(self.collection(task, sizes), split, self._tokenizer(), self._max_length)

    def _task(self, task: str, sizes: Sizes) -> Task:
        """A task with its encoded training examples."""
        return self.kind.task(task, self.examples(task, sizes, "train"))

    def identities(self, task: str, sizes: Sizes, split: Split) -> Iterator[Any]:
        """What tells each example of a split from those that are not the same, one after the other."""
        return map(self.kind.identity, self.collection(task, sizes).splits[split])


def unseen(scored: Iterable[Any], trained_on: Iterable[Any]) -> tuple[int, ...]:
    """Indices of scored examples that are none of the training examples, which may not fit into memory.

    Args:
        scored: identities of the scored examples.
        trained_on: identities of the training examples.
    """
    of_scored = list(scored)
    left = set(of_scored)
    for identity in trained_on:
        left.discard(identity)
    return tuple(i for i, identity in enumerate(of_scored) if identity in left)
