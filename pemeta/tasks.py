"""Tasks, episodes, and the meta-batches that priming steps through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pemeta.data.encoding import Encoded
from pemeta.errors import ConfigError, DataError
from pemeta.heads import Head, TokenClassificationHead
from pemeta.seeding import numpy_generator
from pemeta.typing import Batch


@dataclass(frozen=True)
class Task:
    """One source or target task: a name, its training sentences, and how its head is made.

    Attributes:
        name: such as a language code.
        train: what priming draws episodes from, or fine-tuning trains on.
        make_head: from the width of the hidden states to a new head.
    """

    name: str
    train: Encoded
    make_head: Callable[[int], Head]

    @classmethod
    def token_classification(cls, name: str, train: Encoded) -> Task:
        """A task with a :class:`~pemeta.heads.TokenClassificationHead` for the label set of its data."""
        return cls(name, train, TokenHeadMaker(len(train.labels)))


@dataclass(frozen=True)
class TokenHeadMaker:
    """Makes token-classification heads with a given number of labels."""

    num_labels: int

    def __call__(self, hidden_size: int) -> Head:
        """A new head for hidden states of width ``hidden_size``."""
        return TokenClassificationHead(hidden_size, self.num_labels)


@dataclass(frozen=True)
class Episode:
    """A draw from one task: the support set for the inner loop, and a query set disjoint from it."""

    task: Task
    support_indices: tuple[int, ...]
    query_indices: tuple[int, ...]

    @property
    def support(self) -> Batch:
        """D^tr of the paper, as tensors of shape (B, T)."""
        return self.task.train.batch(self.support_indices)

    @property
    def query(self) -> Batch:
        """D^ts of the paper, as tensors of shape (B, T)."""
        return self.task.train.batch(self.query_indices)

    def __len__(self) -> int:
        return len(self.support_indices) + len(self.query_indices)


class EpisodeSampler:
    """Meta-batches by step: ``sampler[step]`` is a function of the seed and the step alone.

    So a resumed run needs no sampler state, and every priming algorithm with the same seed sees the same
    sentences in the same order.

    Args:
        tasks: the source tasks.
        support_size: sentences in a support set.
        query_size: sentences in a query set.
        tasks_per_batch: tasks drawn for each meta-batch, without repetition; all of them where None.
        seed: of the draws.

    Raises:
        ConfigError: there is no task, two have the same name, or fewer than ``tasks_per_batch``.
        DataError: a task has fewer sentences than a support and a query set need.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        support_size: int = 16,
        query_size: int = 16,
        tasks_per_batch: int | None = None,
        seed: int = 0,
    ) -> None:
        names = [task.name for task in tasks]
        if not tasks or len(set(names)) < len(names):
            raise ConfigError(f"priming needs one or more source tasks of different names; found {names}")
        if tasks_per_batch is not None and not 1 <= tasks_per_batch <= len(tasks):
            raise ConfigError(
                f"tasks_per_batch must be from 1 to the {len(tasks)} source tasks; found {tasks_per_batch}"
            )
        need = support_size + query_size
        for task in tasks:
            if task.train.trunk is not None:
                raise ConfigError(
                    f"source {task.name!r} holds hidden states, which priming would not move; encode anew"
                )
            if len(task.train) < need:
                raise DataError(
                    f"source {task.name!r} has {len(task.train)} sentences, but an episode needs {need} "
                    f"({support_size} support + {query_size} query); give more data or smaller sets"
                )
        self.tasks = tuple(tasks)
        self.support_size = support_size
        self.query_size = query_size
        self.tasks_per_batch = tasks_per_batch or len(tasks)
        self.seed = seed

    def __getitem__(self, step: int) -> list[Episode]:
        """The meta-batch of one outer step; tasks in their given order when all of them take part."""
        rng = numpy_generator(self.seed, "meta-batch", step)
        chosen: Sequence[int] = range(len(self.tasks))
        if self.tasks_per_batch < len(self.tasks):
            chosen = rng.choice(len(self.tasks), self.tasks_per_batch, replace=False).tolist()
        episodes = []
        for task in (self.tasks[i] for i in chosen):
            drawn = rng.choice(len(task.train), self.support_size + self.query_size, replace=False).tolist()
            episodes.append(Episode(task, tuple(drawn[: self.support_size]), tuple(drawn[self.support_size :])))
        return episodes
