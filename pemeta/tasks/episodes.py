"""Episodes, and the sampler of meta-batches for priming."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

import numpy as np
import torch

from pemeta.errors import ConfigError, DataError, counted, excerpt
from pemeta.tasks.task import Task
from pemeta.typing import Batch
from pemeta.utils.devices import pinned
from pemeta.utils.seeding import derive_seed, numpy_generator
from pemeta.utils.signatures import checked
from pemeta.utils.values import checked_size, listed, whole


@dataclass(frozen=True)
class Episode:
    """A draw from one task: a support set for the inner loop, and a query set disjoint from it.

    Attributes:
        task: the task.
        support_indices: indices of the support set in the task's training examples.
        query_indices: indices of the query set in the task's training examples.
        seed: seed of dropout and new heads in the episode, so that its results depend neither on what was computed
            before nor on which process computes it; None to use PyTorch's generators in their current state.

    Raises:
        ConfigError: ``task`` is not a task.
        DataError: an index is not one of the task's examples.
    """

    task: Task
    support_indices: tuple[int, ...]
    query_indices: tuple[int, ...]
    seed: int | None = None
    _ready: dict[tuple[int, int], Batch] = field(default_factory=dict, init=False, repr=False, compare=False)
    _asked: dict[tuple[int, int], None] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.task, Task):
            raise ConfigError(f"an episode needs a Task; found {excerpt(self.task)}; make it with EpisodeSampler")
        size = len(self.task.train)
        for what, indices in (("support", self.support_indices), ("query", self.query_indices)):
            given = listed(indices, f"{what} indices", "[0, 1]")
            found = tuple(-1 if (index := whole(one)) is None else index for one in given)
            wrong = [one for one, index in zip(given, found, strict=True) if not 0 <= index < size]
            if wrong:
                raise DataError(
                    f"a {what} set takes indices of its task's {counted(size, self.task.train.unit)}, from 0 to "
                    f"{size - 1}; found {excerpt(wrong[0])}; draw episodes with an EpisodeSampler"
                )
            object.__setattr__(self, f"{what}_indices", found)  # a tuple, whatever was given

    @property
    def support(self) -> Batch:
        """The support set (D^tr in the paper), as tensors of first dimension B."""
        return self._batch(0, len(self.support_indices))

    def supports(self, parts: int) -> list[Batch]:
        """The support set in ``parts`` batches of equal size, as tensors of first dimension B.

        Raises:
            ConfigError: its size is not a multiple of ``parts``, or that is not a positive whole number.
        """
        parts = checked_size(parts, "the number of batches")
        size, rest = divmod(len(self.support_indices), parts)
        if not size or rest:
            raise ConfigError(
                f"{counted(len(self.support_indices), 'support example')} cannot be split into {parts} batches of "
                "equal size; "
                "draw the episodes from the algorithm's own sampler, algorithm.sampler(tasks, seed)"
            )
        return [self._batch(i * size, (i + 1) * size) for i in range(parts)]

    @property
    def query(self) -> Batch:
        """The query set (D^ts in the paper), as tensors of first dimension B."""
        return self._batch(len(self.support_indices), len(self))

    @property
    def both(self) -> Batch:
        """The support and the query set as one batch, as tensors of first dimension B."""
        return self._batch(0, len(self))

    @checked(size=1)
    def parts(self, sentences: Literal["query", "both"], size: int | None) -> list[Batch]:
        """The query set, or both sets, in batches of at most ``size`` examples; in one if that is None."""
        start = len(self.support_indices) if sentences == "query" else 0
        stop, size = len(self), size or max(1, len(self))
        return [self._batch(at, min(at + size, stop)) for at in range(start, stop, size)]

    def _batch(self, start: int, stop: int) -> Batch:
        """Some of the support and query examples, in that order, as tensors of first dimension B."""
        self._asked[start, stop] = None
        ready = self._ready.pop((start, stop), None)
        return self._made(start, stop) if ready is None else ready

    def _made(self, start: int, stop: int) -> Batch:
        return self.task.train.batch((self.support_indices + self.query_indices)[start:stop])

    @property
    def asked(self) -> tuple[tuple[int, int], ...]:
        """The support and query examples that were asked for as batches, each a start and a stop among them all."""
        return tuple(self._asked)

    def make_ahead(self, parts: Iterable[tuple[int, int]], device: torch.device) -> None:
        """Make batches before they are asked for, in pinned memory if they are to be copied to CUDA."""
        self._ready.update((part, pinned(self._made(*part), device)) for part in parts)

    def __len__(self) -> int:
        return len(self.support_indices) + len(self.query_indices)


class EpisodeSampler:
    """Meta-batches by step: ``sampler[step]`` depends only on the seed and the step.

    A resumed run therefore needs no sampler state, and all priming algorithms with the same seed and sizes see the
    same examples in the same order.

    No support or query set is without any label, as sentences may be of which no word has a token: such a draw is
    repeated.

    Args:
        tasks: the source tasks.
        support_size: number of examples in a support set.
        query_size: number of examples in a query set.
        tasks_per_batch: number of tasks drawn for each meta-batch, without replacement; None for all.
        seed: seed of the draws.
        support_batches: number of support sets of that size in an episode, if each inner step has its own.

    Raises:
        ConfigError: there are no tasks, two have the same name, there are fewer than ``tasks_per_batch``, or a size is
            not a whole number that is large enough.
        DataError: a task has fewer examples, or labelled ones, than a support set and a query set need.
    """

    def __init__(
        self,
        tasks: Iterable[Task],
        support_size: int = 16,
        query_size: int = 16,
        tasks_per_batch: int | None = None,
        seed: int = 0,
        support_batches: int = 1,
    ) -> None:
        tasks = _source_tasks(tasks)
        support_size = checked_size(support_size, "support_size")
        query_size = checked_size(query_size, "query_size", 0)
        support_batches = checked_size(support_batches, "support_batches")
        names = [task.name for task in tasks]
        if not tasks or len(set(names)) < len(names):
            raise ConfigError(f"priming needs one or more source tasks with different names; found {names}")
        at_once = len(tasks) if tasks_per_batch is None else whole(tasks_per_batch)
        if at_once is None or not 1 <= at_once <= len(tasks):
            raise ConfigError(
                f"tasks_per_batch must be between 1 and the number of source tasks, {len(tasks)}; found "
                f"{excerpt(tasks_per_batch)}"
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
                    f"source {task.name!r} has {counted(len(task.train), task.train.unit)}, but an episode needs "
                    f"{need} ({support_size} support{several} + {query_size} query); provide more data, or lower "
                    "the sizes"
                )
            _check_labelled(task, support_batches + bool(query_size))
        if whole(seed) is None:
            raise ConfigError(f"seed must be a whole number; found {excerpt(seed)}")
        self.tasks = tasks
        self.parts = support_batches
        self.support_size = support_size * support_batches
        self.query_size = query_size
        self.tasks_per_batch = at_once
        self.seed = seed

    def __getitem__(self, step: int) -> list[Episode]:
        """The meta-batch of one outer step, counted from 0; with all tasks in it, they keep their given order.

        Raises:
            ConfigError: ``step`` is not a whole number from 0.
            DataError: there is hardly a draw in which each set has a label.
        """
        step = checked_size(step, "an outer step", 0)
        rng = numpy_generator(self.seed, "meta-batch", step)
        chosen: Sequence[int] = range(len(self.tasks))
        if self.tasks_per_batch < len(self.tasks):
            chosen = rng.choice(len(self.tasks), self.tasks_per_batch, replace=False).tolist()
        episodes = []
        for task in (self.tasks[i] for i in chosen):
            support, query = self._draw(task, rng, step)
            episodes.append(Episode(task, support, query, derive_seed(self.seed, "episode", step, task.name)))
        return episodes

    def _draw(self, task: Task, rng: np.random.Generator, step: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Indices of a support set and a query set, in each of which, and in each inner step's part, is a label."""
        size, number = self.support_size // self.parts, self.support_size + self.query_size
        for _ in range(MOST_DRAWS):
            drawn = rng.choice(len(task.train), number, replace=False).tolist()
            support, query = tuple(drawn[: self.support_size]), tuple(drawn[self.support_size :])
            sets = [support[start : start + size] for start in range(0, len(support), size)]
            if all(any(map(task.train.has_label, one)) for one in (*sets, *([query] if query else ()))):
                return support, query
        raise DataError(
            f"source {task.name!r}: {MOST_DRAWS} draws for step {step + 1} gave a support or query set without any "
            f"label; remove its {task.train.unit}s without a label, or raise support_size and query_size"
        )


MOST_DRAWS = 1000
"""Draws of an episode before its source is refused."""


def _source_tasks(tasks: Iterable[Task]) -> tuple[Task, ...]:
    try:
        found = listed(tasks, "source tasks", "[Task.token_classification(...)]")
    except DataError as error:
        raise ConfigError(str(error)) from None
    for task in found:
        if not isinstance(task, Task):
            raise ConfigError(
                f"priming needs a list of source tasks; found {excerpt(task)}; make tasks with "
                "Task.token_classification and its like"
            )
    return found


def _check_labelled(task: Task, sets: int) -> None:
    """Refuse a task with fewer labelled examples than there are sets in an episode."""
    labelled = (index for index in range(len(task.train)) if task.train.has_label(index))
    found = len(list(islice(labelled, sets)))
    if found < sets:
        raise DataError(
            f"source {task.name!r} has {counted(found, task.train.unit)} with a label, but the {sets} "
            "sets of an episode need one each; no word of the others has a token in the vocabulary: use a "
            "backbone with a tokenizer for this language"
        )
