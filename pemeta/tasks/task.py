"""Tasks, episodes, and the meta-batches that priming steps through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pemeta.data.blocks import EncodedBlocks
from pemeta.data.encoding import Encoded
from pemeta.data.examples import Examples
from pemeta.data.texts import EncodedTexts
from pemeta.errors import ConfigError, DataError
from pemeta.heads import CausalLM, Head, HeadSpec, SequenceClassification, TokenClassification
from pemeta.heads.causal_lm import Output
from pemeta.heads.sequence_classification import Pooling
from pemeta.typing import Batch
from pemeta.utils.seeding import derive_seed, numpy_generator


@dataclass(frozen=True)
class Task:
    """One source or target task: a name, its training examples, and how its head, with its loss, is made.

    The tasks of one priming run may be of different kinds, label sets and losses: each keeps a head of its own.

    Attributes:
        name: such as a language code.
        train: what priming draws episodes from, or fine-tuning trains on.
        make_head: from the width of the hidden states to a new head; a :class:`~pemeta.HeadSpec` or your own function.
    """

    name: str
    train: Examples
    make_head: Callable[[int], Head]

    @classmethod
    def token_classification(cls, name: str, train: Encoded) -> Task:
        """A task with a :class:`~pemeta.TokenClassificationHead` for the label set of its data."""
        _check_kind(name, train, TokenClassification.name)
        return cls(name, train, TokenClassification(labels=train.outputs))

    @classmethod
    def sequence_classification(
        cls, name: str, train: EncodedTexts, pooling: Pooling = "mean", dropout: float = 0.0
    ) -> Task:
        """A task with a :class:`~pemeta.SequenceClassificationHead` for the classes of its data.

        Args:
            name: of the task.
            train: from :func:`~pemeta.encode_texts`.
            pooling: how a text becomes one vector: ``mean`` (our choice), ``first``, or ``last``.
            dropout: probability on that vector while training.
        """
        _check_kind(name, train, SequenceClassification.name)
        return cls(name, train, SequenceClassification(labels=train.outputs, pooling=pooling, dropout=dropout))

    @classmethod
    def causal_lm(cls, name: str, train: EncodedBlocks, output: Output = "tied") -> Task:
        """A task with a :class:`~pemeta.CausalLMHead` for the vocabulary of its data.

        Args:
            name: of the task.
            train: from :func:`~pemeta.encode_language_model`.
            output: ``tied`` to the backbone's word embedding, or a matrix of the task's ``own``.
        """
        _check_kind(name, train, CausalLM.name)
        return cls(name, train, CausalLM(vocab_size=len(train.outputs), output=output))

    @property
    def head_config(self) -> dict[str, Any] | None:
        """How the head is made; None where that cannot be told. Two heads of one shape may still compute otherwise."""
        return self.make_head.to_config() if isinstance(self.make_head, HeadSpec) else None


def _check_kind(name: str, train: Examples, kind: str) -> None:
    if train.kind != kind:
        raise DataError(f"the examples of task {name!r} are for {train.kind}, not for {kind}; use Task.{train.kind}")


@dataclass(frozen=True)
class Episode:
    """A draw from one task: the support set for the inner loop, and a query set disjoint from it.

    Attributes:
        task: the task.
        support_indices: of its training examples.
        query_indices: of its training examples.
        seed: of dropout and new heads in the episode's passes, which then do not depend on what was computed before, or
            by which process; PyTorch's generators go on as they are where None.
    """

    task: Task
    support_indices: tuple[int, ...]
    query_indices: tuple[int, ...]
    seed: int | None = None

    @property
    def support(self) -> Batch:
        """D^tr of the paper, as tensors of first dimension B."""
        return self.task.train.batch(self.support_indices)

    def supports(self, parts: int) -> list[Batch]:
        """The support set cut into parts of equal size, as tensors of first dimension B.

        Raises:
            ConfigError: its size is not a multiple of ``parts``.
        """
        size, rest = divmod(len(self.support_indices), parts)
        if not size or rest:
            raise ConfigError(
                f"{len(self.support_indices)} support examples cannot be {parts} batches of equal size; draw the "
                "episodes from the sampler that the algorithm makes, algorithm.sampler(tasks, seed)"
            )
        return [self.task.train.batch(self.support_indices[i * size : (i + 1) * size]) for i in range(parts)]

    @property
    def query(self) -> Batch:
        """D^ts of the paper, as tensors of first dimension B."""
        return self.task.train.batch(self.query_indices)

    def __len__(self) -> int:
        return len(self.support_indices) + len(self.query_indices)


class EpisodeSampler:
    """Meta-batches by step: ``sampler[step]`` is a function of the seed and the step alone.

    So a resumed run needs no sampler state, and every priming algorithm with the same seed and the same sizes sees the
    same examples in the same order.

    Args:
        tasks: the source tasks.
        support_size: examples in a support set.
        query_size: examples in a query set.
        tasks_per_batch: tasks drawn for each meta-batch, without repetition; all of them where None.
        seed: of the draws.
        support_batches: support sets of that size in an episode, one behind the other, if each inner step has its own.

    Raises:
        ConfigError: there is no task, two have the same name, or fewer than ``tasks_per_batch``.
        DataError: a task has fewer examples than a support and a query set need.
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
            raise ConfigError(f"priming needs one or more source tasks of different names; found {names}")
        if tasks_per_batch is not None and not 1 <= tasks_per_batch <= len(tasks):
            raise ConfigError(
                f"tasks_per_batch must be from 1 to the {len(tasks)} source tasks; found {tasks_per_batch}"
            )
        need = support_size * support_batches + query_size
        several = f" in each of {support_batches} inner steps" if support_batches > 1 else ""
        for task in tasks:
            if task.train.trunk is not None:
                raise ConfigError(
                    f"source {task.name!r} holds hidden states, which priming would not move; encode anew"
                )
            if len(task.train) < need:
                raise DataError(
                    f"source {task.name!r} has {len(task.train)} {task.train.unit}s, but an episode needs {need} "
                    f"({support_size} support{several} + {query_size} query); give more data or smaller sets"
                )
        self.tasks = tuple(tasks)
        self.support_size = support_size * support_batches
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
            support, query = tuple(drawn[: self.support_size]), tuple(drawn[self.support_size :])
            episodes.append(Episode(task, support, query, derive_seed(self.seed, "episode", step, task.name)))
        return episodes
