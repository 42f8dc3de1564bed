"""The base of algorithms with an inner loop: clones adapt on support sets, and the outer gradient follows from them."""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import Self

from pemeta.backbone.layer_reuse import SharedGraph
from pemeta.backbone.masks import masks_once
from pemeta.methods.base import AnyMethod, PEMethod
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
from pemeta.priming.algorithms.source_heads import renew_heads, share_heads
from pemeta.priming.inner_checks import InnerLosses, read_losses
from pemeta.priming.inner_rules import SGD, AnyRule
from pemeta.priming.sparse_embeddings import sparse_word_gradients
from pemeta.tasks.episodes import Episode, EpisodeSampler
from pemeta.tasks.task import Task
from pemeta.typing import Batch, State
from pemeta.utils.neutral import Neutral
from pemeta.utils.phases import phase

if TYPE_CHECKING:
    from pemeta.priming.learner import PrimingLearner  # needs learn2learn

SUPPORT_BELOW = "support passes below θ_a"
QUERY_BELOW = "query passes below θ_a"
INNER_LOOP = "inner loop"
QUERY_PASS = "query pass"
BACKWARD_BELOW = "backward pass below θ_a"

_SGD = {"name": "sgd", "max_grad_norm": None, "warmup_steps": 0}
"""The neutral inner rule: what the inner loop did before there was a choice."""


@dataclass(frozen=True)
class Query:
    """What a task's outer gradient is taken of.

    Attributes:
        task: name of the task.
        batch: the examples of the outer loss, on the model's device; empty for an algorithm without an outer loss.
        step: the outer step.
    """

    task: str
    batch: Batch
    step: OuterStep


class InnerLoopPriming(PrimingAlgorithm):
    """Priming with an inner loop: for each task a clone of θ_a and θ_h takes ``inner_steps`` steps on the support set.

    A subclass says what the outer gradient is (:meth:`outer_gradient`) and may make learners of its own
    (:meth:`make_learner`).

    Attributes:
        inner_method: method whose θ_a the inner loop adapts; null is the method of the fine-tuning to come (the
            paper's proposal), ``full`` is MAML's own loop (§5.1).
        inner_steps: S; 5 (§4.2).
        inner_lr: α; 0.03 (§4.2), and 1e-4 for the MAML loop (§5.1).
        inner_rule: how an inner step follows from gradients: ``sgd`` (Algorithm 1), ``momentum``, ``adam`` or
            ``adamw``, each with arguments of its own.
        inner_dropout: dropout in the inner loop's passes; off, our choice. If on, no pass can be reused, unless the
            backbone has no dropout.
        fresh_support: each inner step takes a support set of its own, of ``support_size`` examples; off, as Algorithm
            1 has one for all steps. If on, an episode has S support sets, so that different examples are drawn.
        source_heads: values that a source task's head starts an episode with: those that the last one left
            (``carried``, Algorithm 1), newly drawn ones (``fresh``), as fine-tuning will start with, or ``zero``. With
            θ_h in ``primes``, ``carried`` heads start with what the outer gradient has made of them, and ``shared``
            ones too, of which all tasks with equal labels have one.
        batch_tasks: run the layers that θ_a does not reach as one batch for all tasks of a meta-batch. Faster if small
            batches do not fill the device; memory then grows with the number of tasks. Off, our choice.
    """

    phases: ClassVar[Mapping[str, PhaseMemory]] = {
        SUPPORT_BELOW: PhaseMemory(keeps=True),
        QUERY_BELOW: PhaseMemory(keeps=True),
        INNER_LOOP: PhaseMemory(cloned=True),
        QUERY_PASS: PhaseMemory(cloned=True),
        BACKWARD_BELOW: PhaseMemory(listed=False),
    }

    inner_method: AnyMethod | None = None
    inner_steps: int = Field(5, gt=0)
    inner_lr: float = Field(0.03, gt=0)
    inner_rule: Annotated[AnyRule, Neutral(_SGD)] = SGD()
    inner_dropout: bool = False
    fresh_support: bool = False
    source_heads: Literal["carried", "fresh", "zero", "shared"] = "carried"
    batch_tasks: bool = False

    @model_validator(mode="after")
    def _heads_that_can_be_primed(self) -> Self:
        if self.primes_heads and self.source_heads in ("fresh", "zero"):
            raise ValueError(
                f"source_heads: {self.source_heads} gives each episode a new head, but primes lists theta_h, the start "
                "of the heads; set source_heads to carried or shared, or remove theta_h from primes"
            )
        if self.shares_heads and not self.primes_heads:
            raise ValueError(
                "source_heads: shared needs the outer gradient, which moves the start that tasks have in common; add "
                "theta_h to primes"
            )
        return self

    @model_validator(mode="after")
    def _moments_that_there_are(self) -> Self:
        if getattr(self.inner_rule, "moments", "own") == "outer" and not {"theta_a", "theta_h"} & set(self.primes):
            raise ValueError(
                "inner_rule.moments: outer needs parameters that the inner loop and the outer optimiser both move; add "
                "theta_a to primes, or set moments: own"
            )
        return self

    @property
    def primes_heads(self) -> bool:
        """Whether the outer gradient moves the values that heads start with."""
        return "theta_h" in self.primes

    @property
    def shares_heads(self) -> bool:
        """``source_heads: shared``."""
        return self.source_heads == "shared"

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

    def outer_batch(self, episode: Episode) -> Batch | None:
        """The examples of an episode's outer loss; None for an algorithm without an outer loss."""
        return episode.query

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
                    queries = self._queries(model, together, shared)
                for episode, support, batch in zip(together, supports, queries, strict=True):
                    seed_passes(model, episode, "alone")
                    clone = learner.clone(episode.task.name)
                    with phase(INNER_LOOP):
                        model.train(self.inner_dropout)
                        clone.adapt_to(support, episode.task.name, wait=False)
                    with phase(QUERY_PASS):
                        model.train(self.outer_dropout)
                        outer.append(self.outer_gradient(clone, learner, Query(episode.task.name, batch, step)))
                    inner.append(clone.inner_losses)
                    heads |= self._heads_of(clone)
                    del clone  # or an error's traceback would keep what it holds
                with phase(BACKWARD_BELOW):
                    shared.backward()
        of_steps, own = read_losses(inner, outer)
        losses = StepLosses(tuple(map(mean, zip(*of_steps, strict=True))), mean(self.checked(own)))
        model.load_state(heads)
        return losses

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

    def _queries(self, model: PEModel, episodes: Sequence[Episode], shared: SharedGraph) -> list[Batch]:
        """The batch of each task's outer loss, with what tasks and passes have in common computed once."""
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
