"""Priming by plain fine-tuning, the paper's setting 5."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar, Literal

from pemeta.backbone.masks import masks_once
from pemeta.model.partition import Partition
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
    total,
)
from pemeta.priming.sparse_embeddings import sparse_word_gradients
from pemeta.tasks.episodes import Episode
from pemeta.utils.phases import phase

PASSES = "forward and backward pass"


class FineTunePriming(PrimingAlgorithm):
    """Priming by plain fine-tuning of θ_p ∪ θ_a ∪ θ_h on the same episodes (paper, §4.3, setting 5).

    Attributes:
        sentences: take the gradient of ``both`` halves of each episode, so that it sees the same data as
            meta-priming (without ``fresh_support``), or of the ``query`` half alone, so that θ_p's gradient sees as
            many sentences as in meta-priming. Both, our choice: the paper says "the same data that would have
            constructed the meta dataset".
        primes: what the gradient moves besides the heads, which it always does.
    """

    name: ClassVar[str] = "finetune"
    paper: ClassVar[str] = "Gheini, Ma and May (2023), §4.3, setting 5"
    phases: ClassVar[Mapping[str, PhaseMemory]] = {PASSES: PhaseMemory(listed=False)}

    sentences: Literal["both", "query"] = "both"

    @property
    def examples_in_gradient(self) -> int:
        """Number of examples in one half of an episode, or in both."""
        return self.query_size + (self.support_size if self.sentences == "both" else 0)

    @property
    def needs_query(self) -> bool:
        """Whether the gradient is that of the query half alone."""
        return self.sentences == "query"

    @property
    def passes(self) -> int:
        """1."""
        return 1

    def trained(self, model: PEModel) -> tuple[str, ...]:
        """Names of what ``primes`` lists, and of all heads."""
        names, heads = super().trained(model), model.partition().theta_h
        return (*(name for name in names if name not in set(heads)), *heads)

    def accumulate(self, model: PEModel, episodes: Sequence[Episode], step: OuterStep = FIRST) -> StepLosses:
        """Add the gradient of the tasks' summed losses."""
        model.train(self.outer_dropout)
        losses, parts = [], model.partition()
        values_of = self._values(model, parts)
        with (
            own_generators(model, episodes),
            sparse_word_gradients(model, self._model_wide(parts)),
            masks_once(model.backbone),
        ):
            for episode in episodes:
                seed_passes(model, episode)
                with phase(PASSES), values_of(episode.task.name):
                    found = [
                        self.add_part(
                            model.loss(model.placed(part.batch), episode.task.name), part.share, step.loss_scale
                        )
                        for part in self.parts(model, episode, self.sentences)
                    ]
                    losses.append(total(found))
        return StepLosses((), mean(self.checked(losses)))

    def _model_wide(self, parts: Partition) -> tuple[str, ...]:
        """Names of the backbone's parameters with whose own values all tasks compute: all."""
        return parts.theta_p + parts.theta_a

    def _values(self, model: PEModel, parts: Partition) -> Callable[[str], AbstractContextManager[None]]:
        """For a task's name the values that its passes compute with within a block: the model's own."""
        return lambda task: nullcontext()
