"""The base of algorithms with an inner loop: clones adapt on support sets, and the outer gradient follows from them."""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import Self

from pemeta.backbone.layer_reuse import SharedGraph
from pemeta.backbone.masks import masks_once
from pemeta.methods.base import PEMethod
from pemeta.model.pe_model import PEModel
from pemeta.priming.algorithms.base import (
    FIRST,
    OuterStep,
    PhaseMemory,
    PrimingAlgorithm,
    StepLosses,
    mean,
    own_generators,
    seed_passes,
)
from pemeta.priming.algorithms.inner_settings import InnerSettings
from pemeta.priming.algorithms.query import BACKWARD_BELOW, INNER_LOOP, QUERY_BELOW, QUERY_PASS, SUPPORT_BELOW
from pemeta.priming.algorithms.query import Query as Query
from pemeta.priming.algorithms.source_heads import renew_heads, share_heads
from pemeta.priming.inner_checks import InnerLosses, read_losses
from pemeta.priming.sparse_embeddings import sparse_word_gradients
from pemeta.tasks.episodes import Episode, EpisodeSampler
from pemeta.tasks.task import Task
from pemeta.training.micro_batches import Part
from pemeta.typing import Batch, State
from pemeta.utils.phases import phase

if TYPE_CHECKING:
    from pemeta.priming.learner import PrimingLearner  # needs learn2learn
    from pemeta.priming.task_groups import TaskGroup


class InnerLoopPriming(InnerSettings):
    """Priming with an inner loop: for each task a clone of θ_a and θ_h takes ``inner_steps`` steps on the support set.

    A subclass says what the outer gradient is (:meth:`outer_gradient`) and may make learners of its own
    (:meth:`make_learner`).
    """

    phases: ClassVar[Mapping[str, PhaseMemory]] = {
        SUPPORT_BELOW: PhaseMemory(keeps=True),
        QUERY_BELOW: PhaseMemory(keeps=True),
        INNER_LOOP: PhaseMemory(cloned=True),
        QUERY_PASS: PhaseMemory(cloned=True),
        BACKWARD_BELOW: PhaseMemory(listed=False),
    }

    # The seam: what a learner is, and what the outer gradient is.

    def make_learner(self, model: PEModel, step: OuterStep, **options: Any) -> PrimingLearner:
        """The learner whose clones run the inner loops of an outer step.

        Args:
            model: the model that is primed.
            step: the outer step.
            options: further arguments of :class:`~pemeta.PrimingLearner`, from a subclass.
        """
        from pemeta.priming.learner import PrimingLearner  # here: it needs learn2learn

        return PrimingLearner(
            model,
            self.inner_lr,
            method=self.inner_method,
            rule=self.inner_rule,
            loss_scale=step.loss_scale,
            head_gradient=self.primes_heads,
            optimizer=step.optimizer,
            **options,
        )

    @abstractmethod
    def outer_gradient(self, clone: PrimingLearner, original: PrimingLearner, query: Query) -> Tensor | float:
        """Add a task's outer gradient to the parameters' ``grad``, and return the outer loss, best without reading it.

        Args:
            clone: the learner after its inner loop, whose losses are ``clone.losses``, which waits for the device.
            original: the learner that it is a clone of; ``original.shared`` is the model.
            query: the examples of the outer loss.

        Raises:
            NotFiniteError: the loss was read, and is not finite.
        """

    def outer_gradients(
        self, group: TaskGroup, original: PrimingLearner, queries: Sequence[Query]
    ) -> Sequence[Tensor | float]:
        """As :meth:`outer_gradient`, of tasks whose inner loops ran as one; by default one after the other.

        Args:
            group: the clones.
            original: the learner that they are clones of.
            queries: the examples of each task's outer loss.
        """
        common, pairs = group.part(), zip(group.clones, queries, strict=True)
        found = [self.outer_gradient(clone, original, query) for clone, query in pairs]
        common.backward()
        return found

    def outer_batch(self, episode: Episode) -> Batch | None:
        """The examples of an episode's outer loss; None for an algorithm without an outer loss."""
        return episode.query

    @property
    def outer_sentences(self) -> Literal["query", "both"]:
        """The sets that :meth:`outer_batch` is of, where it is to run in parts."""
        return "query"

    @property
    def splits(self) -> bool:
        """Whether tasks run one after the other, and the outer loss is that of a batch."""
        return not self.batch_tasks

    @property
    def query_passes(self) -> int:
        """Number of passes over the examples of the outer loss; 1."""
        return 1

    # The outer step.

    def accumulate(self, model: PEModel, episodes: Sequence[Episode], step: OuterStep = FIRST) -> StepLosses:
        """Run lines 3-11 of Algorithm 1."""
        if self.source_heads in ("fresh", "zero"):
            renew_heads(model, episodes, zero=self.source_heads == "zero")
        learner = self.make_learner(model, step)
        inner: list[InnerLosses] = []
        outer: list[Tensor | float] = []
        heads: State = {}
        with (
            own_generators(model, episodes),
            sparse_word_gradients(model, learner.partition.theta_p),
            masks_once(model.backbone),
        ):
            for together in [episodes] if self.batch_tasks else [[episode] for episode in episodes]:
                seed_passes(model, together[0])  # for the passes of all tasks as one batch
                shared = SharedGraph()
                with phase(SUPPORT_BELOW):
                    supports = self._supports(model, together, shared, learner.first_order)
                with phase(QUERY_BELOW):
                    queries = self._queries(model, together, shared, step)
                for clone, loss in self._adapted(learner, together, supports, queries):
                    inner.append(clone.inner_losses)
                    outer.append(loss)
                    heads |= self._heads_of(clone)
                    del clone, loss  # or an error's traceback would keep what it holds
                with phase(BACKWARD_BELOW):
                    shared.backward()
        of_steps, own = read_losses(inner, outer)
        losses = StepLosses(tuple(map(mean, zip(*of_steps, strict=True))), mean(self.checked(own)))
        model.load_state(heads)
        return losses

    def _adapted(
        self, learner: PrimingLearner, episodes: Sequence[Episode], supports: list[list[Batch]], queries: list[Query]
    ) -> Iterator[tuple[PrimingLearner, Tensor | float]]:
        """Each task's clone after its inner loop, with the outer loss, whose gradient is added."""
        model, group = learner.model, None
        if len(episodes) > 1:
            group = self._group(learner, episodes, supports)
        if group is None:
            parts = zip(episodes, supports, queries, strict=True)
            yield from (self._alone(learner, *part) for part in parts)
            return
        with phase(QUERY_PASS):
            model.train(self.outer_dropout)
            losses = self.outer_gradients(group, learner, queries)
        group.conclude()
        yield from zip(group.clones, losses, strict=True)

    def _alone(
        self, learner: PrimingLearner, episode: Episode, support: list[Batch], query: Query
    ) -> tuple[PrimingLearner, Tensor | float]:
        """The same for one task."""
        model = learner.model
        seed_passes(model, episode, "alone")
        clone = learner.clone(episode.task.name)
        with phase(INNER_LOOP):
            model.train(self.inner_dropout)
            clone.adapt_to(support, episode.task.name, wait=False)
        with phase(QUERY_PASS):
            model.train(self.outer_dropout)
            return clone, self.outer_gradient(clone, learner, query)

    def _group(
        self, learner: PrimingLearner, episodes: Sequence[Episode], supports: list[list[Batch]]
    ) -> TaskGroup | None:
        """The clones of all tasks, adapted as one; None if each has to be by itself."""
        from pemeta.priming.task_groups import TaskGroup  # here: it needs learn2learn

        model = learner.model
        if not TaskGroup.fits(learner):
            return None
        seed_passes(model, episodes[0], "alone")
        group = TaskGroup([learner.clone(episode.task.name) for episode in episodes])
        with phase(INNER_LOOP):
            model.train(self.inner_dropout)
            return group if group.adapt_to(supports) else None

    def _heads_of(self, clone: PrimingLearner) -> State:
        """The adapted head, which takes the place of the task's (line 11), unless the outer gradient moves heads."""
        if self.primes_heads:
            return {}
        theta_a = set(clone.partition.theta_a)
        return {name: value.detach() for name, value in clone.adapted_parameters().items() if name not in theta_a}

    def _supports(
        self, model: PEModel, episodes: Sequence[Episode], shared: SharedGraph, first_order: bool
    ) -> list[list[Batch]]:
        """The support batches of each task's inner steps, with what the steps have in common computed once."""
        model.train(self.inner_dropout)
        parts = [[e.support] if self._parts == 1 else e.supports(self._parts) for e in episodes]
        own = [[model.placed(batch) for batch in batches] for batches in parts]
        # In second order θ_p's meta-gradient passes through here.
        with torch.set_grad_enabled(not first_order):
            flat = model.reusing([batch for batches in own for batch in batches], self.inner_method)
        flat = [{key: shared.share(value) for key, value in batch.items()} for batch in flat]
        each = self.inner_steps // self._parts  # steps on one batch
        return [flat[i : i + self._parts] * each for i in range(0, len(flat), self._parts)]

    def _queries(
        self, model: PEModel, episodes: Sequence[Episode], shared: SharedGraph, step: OuterStep
    ) -> list[Query]:
        """What each task's outer loss is taken of: in parts, or with what passes have in common computed once."""
        if self.micro_batch_size is None:
            batches = self._query_batches(model, episodes, shared)
            return [Query(one.task.name, batch, step) for one, batch in zip(episodes, batches, strict=True)]
        return [Query(one.task.name, {}, step, self._placed_parts(model, one)) for one in episodes]

    def _placed_parts(self, model: PEModel, episode: Episode) -> list[Part]:
        parts = self.parts(model, episode, self.outer_sentences)
        return [Part(model.placed(part.batch), part.share) for part in parts]

    def _query_batches(self, model: PEModel, episodes: Sequence[Episode], shared: SharedGraph) -> list[Batch]:
        found = [self.outer_batch(episode) for episode in episodes]
        batches = [model.placed(batch) for batch in found if batch is not None]
        if not batches:
            return [{} for _ in episodes]
        several = len(batches) > 1
        if several or self.query_passes > 1:
            model.train(self.outer_dropout)
            batches = model.reusing(batches, self.inner_method, once=several)
            batches = [{key: shared.share(value) for key, value in batch.items()} for batch in batches]
        return batches

    @property
    def _parts(self) -> int:
        """Number of batches that the support examples of an episode are split into."""
        return self.inner_steps if self.fresh_support else 1

    # What the outer loop, the estimate and records ask.

    def require(self) -> None:
        """Check that learn2learn is installed, which the inner loop needs."""
        importlib.import_module("pemeta.priming.learner")

    def sampler(self, tasks: Sequence[Task], seed: int) -> EpisodeSampler:
        """The meta-batches of a run, with a support set for each inner step under ``fresh_support``."""
        return EpisodeSampler(tasks, self.support_size, self.query_size, self.tasks_per_batch, seed, self._parts)

    def prepare(self, model: PEModel, seed: int) -> None:
        """Attach the inner loop's method if it is not fine-tuning's."""
        if self.inner_method is not None:
            model.attach(self.inner_method, seed=seed)

    def make_heads(self, model: PEModel, tasks: Sequence[Task], seed: int) -> None:
        """Give each source task a head, or the head of the first task with equal labels if they are shared.

        Raises:
            ConfigError: heads are to be shared, and no two tasks have equal labels.
        """
        super().make_heads(model, tasks, seed)
        if self.shares_heads:
            share_heads(model, tasks)

    @property
    def passes(self) -> int:
        """S passes over a support batch, and those over the examples of the outer loss."""
        return self.inner_steps + self.query_passes

    @property
    def support_examples(self) -> int:
        """Number of support examples of an episode, in all its support sets."""
        return self.support_size * self._parts

    @property
    def adapted_method(self) -> PEMethod | None:
        """``inner_method``."""
        return self.inner_method

    @property
    def joins_tasks(self) -> bool:
        """``batch_tasks``."""
        return self.batch_tasks

    def cloned(self, model: PEModel, task: str) -> tuple[str, ...]:
        """Names of θ_a and of the task's head."""
        return model.partition(self.inner_method).theta_a + model.head_names(task)

    def with_carried_heads(self) -> Self:
        """The algorithm with ``source_heads: carried``, unless heads are shared."""
        return self if self.shares_heads else self.model_copy(update={"source_heads": "carried"})

    def lighter(self) -> Iterator[tuple[str, PrimingAlgorithm]]:
        """As for any algorithm, and before that tasks one after the other."""
        if self.batch_tasks:
            yield "batch_tasks: false", self.model_copy(update={"batch_tasks": False})
        yield from super().lighter()

    def describe(self) -> dict[str, Any]:
        """The inner loop's method, None if it is fine-tuning's own, and S."""
        name = None if self.inner_method is None else self.inner_method.name
        return {"inner_method": name, "inner_steps": self.inner_steps}
