"""Priming by meta-learning: the paper's Algorithm 1, and other losses at the end of, or along, its inner loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import Self

from pemeta.backbone.layer_reuse import SharedGraph
from pemeta.backbone.masks import masks_once
from pemeta.model.pe_model import PEModel
from pemeta.priming.algorithms.base import (
    FIRST,
    OuterStep,
    PrimingAlgorithm,
    StepLosses,
    mean,
    own_generators,
    seed_passes,
    total,
)
from pemeta.priming.algorithms.inner_loop import InnerLoopPriming
from pemeta.priming.algorithms.query import QUERY_PASS, Query
from pemeta.priming.inner_checks import needs_math
from pemeta.priming.sparse_embeddings import sparse_word_gradients
from pemeta.tasks.episodes import Episode
from pemeta.typing import Batch, State
from pemeta.utils.devices import in_double
from pemeta.utils.neutral import Neutral
from pemeta.utils.phases import phase

if TYPE_CHECKING:
    from pemeta.priming.learner import PrimingLearner  # needs learn2learn
    from pemeta.priming.task_groups import TaskGroup


class MetaPriming(InnerLoopPriming):
    """Priming by meta-learning (paper, Algorithm 1).

    For each task the inner loop takes ``inner_steps`` steps on the support set, in θ_a and θ_h only; the outer gradient
    is that of the query loss at the adapted values, for θ_a and θ_p. Each source task's head takes its adapted value
    (line 11; one head per source task, §4).

    Attributes:
        first_order: treat the inner gradients as constants, as the paper does (§4.2).
        outer_loss: the loss after the ``last`` inner step (Algorithm 1); the ``mean`` over those after every step
            (TTT-E2E, 2512.23675); or ``annealed``, a weighted sum that begins as the mean and ends as the last (MAML++,
            Antoniou et al., 2019, without its lower limit of weights). The clone's values after every step are kept.
        annealing_steps: outer steps in which the weights of all steps but the last fall linearly to zero; null for all
            outer steps, our choice.
        sentences: take the outer loss of the ``query`` set (Algorithm 1), or of support and query set together
            (``both``, Bai et al., 2021), in which case ``query_size`` may be 0.
        hybrid: share of outer steps that are plain: the loss of both sets at the values as they are, without an inner
            loop (pico-maml, 2508.02189); the task's head takes one step of SGD at ``inner_lr``. 0, Algorithm 1.
    """

    name: ClassVar[str] = "meta"
    paper: ClassVar[str] = "Gheini, Ma and May (2023), Algorithm 1"

    first_order: bool = True
    outer_loss: Annotated[Literal["last", "mean", "annealed"], Neutral("last")] = "last"
    annealing_steps: Annotated[int | None, Field(gt=0), Neutral(None)] = None
    sentences: Annotated[Literal["query", "both"], Neutral("query")] = "query"
    hybrid: Annotated[float, Field(ge=0, lt=1), Neutral(0.0)] = 0.0

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.annealing_steps is not None and self.outer_loss != "annealed":
            raise ValueError(f"annealing_steps needs outer_loss: annealed; found outer_loss: {self.outer_loss}")
        if self.hybrid and self.source_heads in ("fresh", "zero"):
            raise ValueError(
                f"hybrid needs heads that have learned, but source_heads: {self.source_heads} gives each episode a new "
                "one; set source_heads: carried, or hybrid: 0"
            )
        return self

    @property
    def needs_query(self) -> bool:
        """Whether the outer loss is that of the query set alone."""
        return self.sentences == "query"

    def make_learner(self, model: PEModel, step: OuterStep, **options: Any) -> PrimingLearner:
        """A learner of first or second order."""
        keeps = self.outer_loss != "last"
        return super().make_learner(model, step, first_order=self.first_order, keep_path=keeps, **options)

    def outer_batch(self, episode: Episode) -> Batch:
        """The query set, or both sets."""
        return episode.query if self.sentences == "query" else episode.both

    @property
    def outer_sentences(self) -> Literal["query", "both"]:
        """``sentences``."""
        return self.sentences

    def outer_gradient(self, clone: PrimingLearner, original: PrimingLearner, query: Query) -> Tensor | float:
        """Add the gradient of the outer loss (line 9 of Algorithm 1)."""
        if self.outer_loss == "last" and not query.parts:
            return self.add_unread(clone.module.loss(query.batch, query.task), clone.loss_scale)
        found: Tensor | float = 0.0
        along = SharedGraph()
        path = [clone.adapted_parameters()] if self.outer_loss == "last" else clone.path
        weights = (1.0,) if self.outer_loss == "last" else self.loss_weights(query.step.number)
        for weight, values in zip(weights, path, strict=True):
            if weight:
                # Each pass frees its graph; the inner loop's, which they have in common, is differentiated once.
                there = clone.with_values({name: along.share(value) for name, value in values.items()})
                for part in query.passes:
                    loss = there.module.loss(part.batch, query.task)
                    share = weight * part.share
                    found = found + share * in_double(self.add_unread(loss, share * clone.loss_scale))
        along.backward()
        return found

    def outer_gradients(
        self, group: TaskGroup, original: PrimingLearner, queries: Sequence[Query]
    ) -> Sequence[Tensor | float]:
        """The same for tasks whose inner loops ran as one: of the sum of their losses."""
        batches, scale, along = [query.batch for query in queries], original.loss_scale, SharedGraph()
        if type(self).outer_gradient is not MetaPriming.outer_gradient or not group.joins(batches):
            return super().outer_gradients(group, original, queries)
        if self.outer_loss == "last":
            return self._added(group.losses(batches), scale)
        totals = [torch.zeros(()) for _ in queries]
        for weight, values in zip(self.loss_weights(queries[0].step.number), group.path, strict=True):
            if weight:
                found = self._added(group.losses_at(group.with_shared(along, values), batches), weight * scale)
                totals = [total + weight * in_double(loss) for total, loss in zip(totals, found, strict=True)]
        along.backward()
        return totals

    def _added(self, losses: Sequence[Tensor], scale: float) -> list[Tensor]:
        """Add the gradient of the sum of losses, and return them."""
        self.add_unread(torch.stack(list(losses)).sum(), scale)
        return [loss.detach() for loss in losses]

    def loss_weights(self, number: int) -> tuple[float, ...]:
        """The weight of the loss after each inner step, in an outer step counted from 0; their sum is 1."""
        others = 0.0 if self.outer_loss == "last" else 1 / self.inner_steps
        if self.outer_loss == "annealed":
            others *= max(0.0, 1 - number / (self.annealing_steps or self.outer_steps))
        return (*[others] * (self.inner_steps - 1), 1 - others * (self.inner_steps - 1))

    def accumulate(self, model: PEModel, episodes: Sequence[Episode], step: OuterStep = FIRST) -> StepLosses:
        """Run lines 3-11 of Algorithm 1, or a plain step if it is one's turn."""
        if self.is_plain(step.number):
            return self._plain_step(model, episodes, step)
        return super().accumulate(model, episodes, step)

    def is_plain(self, number: int) -> bool:
        """Whether an outer step, counted from 0, is a plain one; they are spread evenly."""
        return int((number + 1) * self.hybrid) > int(number * self.hybrid)

    def _plain_step(self, model: PEModel, episodes: Sequence[Episode], step: OuterStep) -> StepLosses:
        """Add the gradient of the tasks' losses on all their examples, at the values as they are."""
        learner, losses, heads = self.make_learner(model, step), [], State()
        model.train(self.outer_dropout)
        with (
            own_generators(model, episodes),
            sparse_word_gradients(model, learner.partition.theta_p),
            masks_once(model.backbone),
        ):
            for episode in episodes:
                seed_passes(model, episode)
                clone = learner.clone(episode.task.name)
                with phase(QUERY_PASS):
                    shares = [
                        self.add_part(
                            clone.module.loss(model.placed(part.batch), episode.task.name), part.share, step.loss_scale
                        )
                        for part in self.parts(model, episode, "both")
                    ]
                    losses.append(total(shares))
                for name, value in self._heads_of(clone).items():
                    gradient = clone.adapted_parameters()[name].grad
                    heads[name] = value if gradient is None else value - self.inner_lr / step.loss_scale * gradient
        found = mean(self.checked(losses))
        model.load_state(heads)
        return StepLosses((), found)

    @property
    def query_passes(self) -> int:
        """1, or S if there is a loss after every inner step."""
        return 1 if self.outer_loss == "last" else self.inner_steps

    @property
    def examples_in_gradient(self) -> int:
        """Number of examples in the outer loss of a task."""
        return self.query_size + (self.support_examples if self.sentences == "both" else 0)

    def gradient_sentences(self, sources: int) -> int:
        """Number of source sentences in the outer gradients of a whole run, those of plain steps included."""
        tasks, both = self.tasks_per_batch or sources, self.support_examples + self.query_size
        kinds = self.kinds_of_steps().items()
        return tasks * sum(many * (both if self.is_plain(step) else self.examples_in_gradient) for step, many in kinds)

    def kinds_of_steps(self) -> Mapping[int, int]:
        """Steps with an inner loop, and plain ones."""
        plain = int(self.outer_steps * self.hybrid)
        first = next(filter(self.is_plain, range(self.outer_steps)), 0)
        return {0: self.outer_steps - plain, **({first: plain} if plain else {})}

    def lighter(self) -> Iterator[tuple[str, PrimingAlgorithm]]:
        """As for any inner loop, and before that first order, and the last loss alone."""
        if not self.first_order:
            yield "first_order: true", self.model_copy(update={"first_order": True})
        if self.outer_loss != "last":
            yield "outer_loss: last", self.model_copy(update={"outer_loss": "last", "annealing_steps": None})
        yield from super().lighter()

    def note(self, model: PEModel) -> str | None:
        """A note that second order uses PyTorch's own formula for attention, if it does."""
        if self.first_order or not needs_math(model, self.inner_method):
            return None
        return (
            "second order through attention: the inner loop uses PyTorch's own formula for SDPA in place of its fused "
            "kernels, which have no second derivative"
        )
