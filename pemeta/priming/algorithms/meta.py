"""Priming by meta-learning: the inner loop of the paper's Algorithm 1, and the outer gradient at its end."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from pemeta.backbone.layer_reuse import SharedGraph
from pemeta.methods.base import AnyMethod, PEMethod
from pemeta.model.pe_model import PEModel
from pemeta.priming.algorithms.base import (
    PhaseMemory,
    PrimingAlgorithm,
    StepLosses,
    mean,
    own_generators,
    seed_passes,
)
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


class MetaPriming(PrimingAlgorithm):
    """Priming by meta-learning (paper, Algorithm 1).

    For each task the inner loop takes ``inner_steps`` steps of SGD on the support set, in θ_a and θ_h
    only; the outer gradient is that of the query loss at the adapted values, for θ_a and θ_p. Each
    source task's head takes its adapted value (line 11; one head per source task, §4).

    Attributes:
        inner_method: method whose θ_a the inner loop adapts; null is the method of the fine-tuning to come (the
            paper's proposal), ``full`` is MAML's own loop (§5.1).
        inner_steps: S; 5 (§4.2).
        inner_lr: α; 0.03 (§4.2), and 1e-4 for the MAML loop (§5.1).
        inner_rule: how an inner step follows from gradients: ``sgd`` (Algorithm 1), ``momentum``, ``adam`` or
            ``adamw``, each with arguments of its own.
        first_order: treat the inner gradients as constants, as the paper does (§4.2).
        inner_dropout: dropout in the inner loop's passes; off, our choice. If on, no pass can be reused, unless the
            backbone has no dropout.
        fresh_support: each inner step takes a support set of its own, of ``support_size`` examples; off, as Algorithm
            1 has one for all steps. If on, an episode has S support sets, so that different examples are drawn.
        source_heads: values that a source task's head starts an episode with: those that the last one left
            (``carried``, Algorithm 1), newly drawn ones (``fresh``), as fine-tuning will start with, or ``zero``.
        batch_tasks: run the layers that θ_a does not reach as one batch for all tasks of a meta-batch. Faster if small
            batches do not fill the device; memory then grows with the number of tasks. Off, our choice.
    """

    name: ClassVar[str] = "meta"
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
    first_order: bool = True
    inner_dropout: bool = False
    fresh_support: bool = False
    source_heads: Literal["carried", "fresh", "zero"] = "carried"
    batch_tasks: bool = False

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

    def with_carried_heads(self) -> MetaPriming:
        """The algorithm with ``source_heads: carried``."""
        return self.model_copy(update={"source_heads": "carried"})

    def lighter(self) -> Iterator[tuple[str, PrimingAlgorithm]]:
        """As for any algorithm, and before that tasks one after the other, and first order."""
        if self.batch_tasks:
            yield "batch_tasks: false", self.model_copy(update={"batch_tasks": False})
        if not self.first_order:
            yield "first_order: true", self.model_copy(update={"first_order": True})
        yield from super().lighter()

    def trained(self, model: PEModel) -> tuple[str, ...]:
        """Names of θ_p ∪ θ_a."""
        parts = model.partition(self.inner_method)
        return parts.theta_p + parts.theta_a

    def accumulate(self, model: PEModel, episodes: Sequence[Episode], loss_scale: float = 1.0) -> StepLosses:
        """Run lines 3-11 of Algorithm 1."""
        from pemeta.priming.learner import PrimingLearner  # here: it needs learn2learn

        self._renew_heads(model, episodes)
        learner = PrimingLearner(
            model,
            self.inner_lr,
            method=self.inner_method,
            first_order=self.first_order,
            rule=self.inner_rule,
            loss_scale=loss_scale,
        )
        inner: list[list[float]] = []
        outer: list[float] = []
        heads: State = {}
        with own_generators(model, episodes), sparse_word_gradients(model, learner.partition.theta_p):
            for together in [episodes] if self.batch_tasks else [[episode] for episode in episodes]:
                seed_passes(model, together[0])  # for the passes of all tasks as one batch
                shared = SharedGraph()
                with phase(SUPPORT_BELOW):
                    supports = self._supports(model, together, shared)
                with phase(QUERY_BELOW):
                    queries = self._queries(model, together, shared)
                for episode, support, query in zip(together, supports, queries, strict=True):
                    seed_passes(model, episode, "alone")
                    clone = learner.clone(episode.task.name)
                    with phase(INNER_LOOP):
                        inner.append(self._inner_loop(clone, support, episode.task.name))
                    with phase(QUERY_PASS):
                        outer.append(self._query_pass(clone, query, episode.task.name))
                    own = set(model.head_names(episode.task.name))
                    heads |= {n: p.detach() for n, p in clone.adapted_parameters().items() if n in own}
                with phase(BACKWARD_BELOW):
                    shared.backward()
        model.load_state(heads)
        return StepLosses(tuple(mean(step) for step in zip(*inner, strict=True)), mean(outer))

    def _renew_heads(self, model: PEModel, episodes: Sequence[Episode]) -> None:
        """Reset the heads of the episodes' tasks, unless they are carried over."""
        if self.source_heads == "carried":
            return
        for episode in episodes:
            task = episode.task
            seed = int(torch.randint(2**31, ())) if episode.seed is None else episode.seed
            model.add_head(task.name, task.make_head, seed)
            if self.source_heads == "zero":
                for parameter in model.head(task.name).parameters():
                    nn.init.zeros_(parameter)

    def _supports(self, model: PEModel, episodes: Sequence[Episode], shared: SharedGraph) -> list[list[Batch]]:
        """The support batches of each task's inner steps, with what the steps have in common computed once."""
        model.train(self.inner_dropout)
        parts = [[e.support] if self._parts == 1 else e.supports(self._parts) for e in episodes]
        own = [[model.placed(batch) for batch in batches] for batches in parts]
        # In second order θ_p's meta-gradient passes through here.
        with torch.set_grad_enabled(not self.first_order):
            flat = model.reusing([batch for batches in own for batch in batches], self.inner_method)
        flat = [{key: shared.share(value) for key, value in batch.items()} for batch in flat]
        each = self.inner_steps // self._parts  # steps on one batch
        return [flat[i : i + self._parts] * each for i in range(0, len(flat), self._parts)]

    def _queries(self, model: PEModel, episodes: Sequence[Episode], shared: SharedGraph) -> list[Batch]:
        """The query batch of each task; for several tasks, the layers below θ_a are computed as one batch."""
        batches = [model.placed(episode.query) for episode in episodes]
        if len(batches) == 1:
            return batches
        model.train(self.outer_dropout)
        found = model.reusing(batches, self.inner_method, once=True)
        return [{key: shared.share(value) for key, value in batch.items()} for batch in found]

    @property
    def _parts(self) -> int:
        """Number of batches that the support examples of an episode are split into."""
        return self.inner_steps if self.fresh_support else 1

    def _inner_loop(self, clone: PrimingLearner, support: Sequence[Batch], task: str) -> list[float]:
        """Take S steps of SGD on the clone; returns the support loss before each."""
        clone.module.train(self.inner_dropout)
        return clone.adapt_to(support, task)

    def _query_pass(self, clone: PrimingLearner, query: Batch, task: str) -> float:
        """Add the gradient of the query loss (line 9 of Algorithm 1); returns the loss."""
        clone.module.train(self.outer_dropout)
        return self._add_gradient(clone.module.loss(query, task), clone.loss_scale)

    def note(self, model: PEModel) -> str | None:
        """A note that second order uses PyTorch's own formula for attention, if it does."""
        from pemeta.priming.learner import needs_math  # here: it needs learn2learn

        if self.first_order or not needs_math(model, self.inner_method):
            return None
        return (
            "second order through attention: the inner loop uses PyTorch's own formula for SDPA in place of its fused "
            "kernels, which have no second derivative"
        )

    def describe(self) -> dict[str, Any]:
        """The inner loop's method, None if it is fine-tuning's own, and S."""
        name = None if self.inner_method is None else self.inner_method.name
        return {"inner_method": name, "inner_steps": self.inner_steps}
