"""Priming by plain fine-tuning, the paper's setting 5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pemeta.model.pe_model import PEModel
from pemeta.priming.algorithms.base import (
    PhaseMemory,
    PrimingAlgorithm,
    StepLosses,
    mean,
    own_generators,
    seed_passes,
)
from pemeta.priming.sparse_embeddings import sparse_word_gradients
from pemeta.tasks.episodes import Episode
from pemeta.typing import Batch
from pemeta.utils.phases import phase

PASSES = "forward and backward pass"


class FineTunePriming(PrimingAlgorithm):
    """Priming by plain fine-tuning of θ_p ∪ θ_a ∪ θ_h on the same episodes (paper, §4.3, setting 5).

    Attributes:
        sentences: take the gradient of ``both`` halves of each episode, so that it sees the same data as
            meta-priming (without ``fresh_support``), or of the ``query`` half alone, so that θ_p's gradient sees as
            many sentences as in meta-priming. Both, our choice: the paper says "the same data that would have
            constructed the meta dataset".
    """

    name: ClassVar[str] = "finetune"
    phases: ClassVar[Mapping[str, PhaseMemory]] = {PASSES: PhaseMemory(listed=False)}

    sentences: Literal["both", "query"] = "both"

    @property
    def examples_in_gradient(self) -> int:
        """Number of examples in one half of an episode, or in both."""
        return self.query_size + (self.support_size if self.sentences == "both" else 0)

    def trained(self, model: PEModel) -> tuple[str, ...]:
        """Names of all parameters, including the heads."""
        parts = model.partition()
        return parts.theta_p + parts.theta_a + parts.theta_h

    def accumulate(self, model: PEModel, episodes: Sequence[Episode], loss_scale: float = 1.0) -> StepLosses:
        """Add the gradient of the tasks' summed losses."""
        model.train(self.outer_dropout)
        losses = []
        with own_generators(model, episodes), sparse_word_gradients(model, self.trained(model)):
            for episode in episodes:
                seed_passes(model, episode)
                with phase(PASSES):
                    loss = model.loss(model.placed(self._batch(episode)), episode.task.name)
                    losses.append(self._add_gradient(loss, loss_scale))
        return StepLosses((), mean(losses))

    def _batch(self, episode: Episode) -> Batch:
        if self.sentences == "query":
            return episode.query
        return episode.task.train.batch(episode.support_indices + episode.query_indices)
