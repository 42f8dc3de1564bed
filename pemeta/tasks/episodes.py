"""Episodes, and the sampler of meta-batches for priming."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pemeta.errors import ConfigError, DataError
from pemeta.tasks.task import Task
from pemeta.typing import Batch
from pemeta.utils.seeding import derive_seed, numpy_generator


@dataclass(frozen=True)
class Episode:
    """A draw from one task: a support set for the inner loop, and a query set disjoint from it.

    Attributes:
        task: the task.
        support_indices: indices of the support set in the task's training examples.
        query_indices: indices of the query set in the task's training examples.
        seed: seed of dropout and new heads in the episode, so that its results depend neither on what was computed
            before nor on which process computes it; None to use PyTorch's generators in their current state.
    """

    task: Task
    support_indices: tuple[int, ...]
    query_indices: tuple[int, ...]
    seed: int | None = None

    @property
    def support(self) -> Batch:
        """The support set (D^tr in the paper), as tensors of first dimension B."""
        return self.task.train.batch(self.support_indices)

    def supports(self, parts: int) -> list[Batch]:
        """The support set in ``parts`` batches of equal size, as tensors of first dimension B.

        Raises:
            ConfigError: its size is not a multiple of ``parts``.
        """
        size, rest = divmod(len(self.support_indices), parts)
        if not size or rest:
            raise ConfigError(
                f"{len(self.support_indices)} support examples cannot be split into {parts} batches of equal size; "
                "draw the episodes from the algorithm's own sampler, algorithm.sampler(tasks, seed)"
            )
        return [self.task.train.batch(self.support_indices[i * size : (i + 1) * size]) for i in range(parts)]

    @property
    def query(self) -> Batch:
        """The query set (D^ts in the paper), as tensors of first dimension B."""
        return self.task.train.batch(self.query_indices)

    @property
    def both(self) -> Batch:
        """The support and the query set as one batch, as tensors of first dimension B."""
        return self.task.train.batch(self.support_indices + self.query_indices)

    def __len__(self) -> int:
        return len(self.support_indices) + len(self.query_indices)


class EpisodeSampler:
    """Meta-batches by step: ``sampler[step]`` depends only on the seed and the step.

    A resumed run therefore needs no sampler state, and all priming algorithms with the same seed and sizes see the
    same examples in the same order.

    Args:
        tasks: the source tasks.
        support_size: number of examples in a support set.
        query_size: number of examples in a query set.
        tasks_per_batch: number of tasks drawn for each meta-batch, without replacement; None for all.
        seed: seed of the draws.
        support_batches: number of support sets of that size in an episode, if each inner step has its own.

    Raises:
        ConfigError: there are no tasks, two have the same name, or there are fewer than ``tasks_per_batch``.
        DataError: a task has fewer examples than a support set and a query set need.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        support_size: int = 16,
        query_size: int = 16,
        tasks_per_batch: int | None = None,
        seed: int = 0,
        support_batches: int = 1,
    ) -> None:
        names = [task.name for task in tasks]
        if not tasks or len(set(names)) < len(names):
            raise ConfigError(f"priming needs one or more source tasks with different names; found {names}")
        if tasks_per_batch is not None and not 1 <= tasks_per_batch <= len(tasks):
            raise ConfigError(
                f"tasks_per_batch must be between 1 and the number of source tasks, {len(tasks)}; found "
                f"{tasks_per_batch}"
            )
        need = support_size * support_batches + query_size
        several = f" in each of {support_batches} inner steps" if support_batches > 1 else ""
        for task in tasks:
            if task.train.trunk is not None:
                raise ConfigError(
                    f"source {task.name!r} holds precomputed hidden states, which priming would not update; encode "
                    "its data again"
                )
            if len(task.train) < need:
                raise DataError(
                    f"source {task.name!r} has {len(task.train)} {task.train.unit}s, but an episode needs {need} "
                    f"({support_size} support{several} + {query_size} query); provide more data, or lower the sizes"
                )
        self.tasks = tuple(tasks)
        self.support_size = support_size * support_batches
        self.query_size = query_size
        self.tasks_per_batch = tasks_per_batch or len(tasks)
        self.seed = seed

    def __getitem__(self, step: int) -> list[Episode]:
        """The meta-batch of one outer step; with all tasks in it, they keep their given order."""
        rng = numpy_generator(self.seed, "meta-batch", step)
        chosen: Sequence[int] = range(len(self.tasks))
        if self.tasks_per_batch < len(self.tasks):
            chosen = rng.choice(len(self.tasks), self.tasks_per_batch, replace=False).tolist()
        episodes = []
        for task in (self.tasks[i] for i in chosen):
            drawn = rng.choice(len(task.train), self.support_size + self.query_size, replace=False).tolist()
            support, query = tuple(drawn[: self.support_size]), tuple(drawn[self.support_size :])
            episodes.append(Episode(task, support, query, derive_seed(self.seed, "episode", step, task.name)))
        return episodes
