"""What every priming algorithm is: the outer loop's settings, and what one outer step does to gradients and heads."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from pemeta.model.pe_model import PEModel
from pemeta.tasks.episodes import Episode, EpisodeSampler
from pemeta.tasks.task import Task
from pemeta.training.finetuning_settings import FineTuning
from pemeta.training.optimizer import check_finite
from pemeta.utils.registry import Named
from pemeta.utils.seeding import derive_seed, generators_kept, seed_generators


@dataclass(frozen=True)
class StepLosses:
    """Mean losses over the tasks of one outer step.

    Attributes:
        inner: on the support sets at each inner step, before that step's update.
        outer: on what the outer gradient is taken of.
    """

    inner: tuple[float, ...]
    outer: float


class PrimingAlgorithm(Named):
    """The outer loop's settings, shared by all algorithms, and one outer step's gradients.

    Attributes:
        outer_steps: number of outer steps; 1000, our choice: the paper says "while not converged".
        outer_lr: β of AdamW; 5e-5 (§4.2), falling linearly to zero.
        weight_decay: of AdamW; 0.01 (PyTorch's default), our choice.
        warmup_steps: in which the rate first rises linearly; 0, our choice.
        max_grad_norm: norm that the outer gradient is scaled down to; 1.0, our choice; null leaves it.
        support_size: sentences in a support set; 16, our choice.
        query_size: sentences in a query set; 16, our choice.
        tasks_per_batch: source tasks in a meta-batch; all of them where null, our choice.
        outer_dropout: dropout in the pass that the outer gradient is taken of; on, our choice.
        validate_every: outer steps between two validations, each a brief fine-tuning on the validation tasks; the
            values with the best score are kept. No validation where null, our choice.
        validation_finetuning: settings of that fine-tuning; three epochs of the usual ones, our choice.
    """

    kind: ClassVar[str] = "priming algorithm"

    outer_steps: int = Field(1000, gt=0)
    outer_lr: float = Field(5e-5, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup_steps: int = Field(0, ge=0)
    max_grad_norm: float | None = Field(1.0, gt=0)
    support_size: int = Field(16, gt=0)
    query_size: int = Field(16, gt=0)
    tasks_per_batch: int | None = Field(None, gt=0)
    outer_dropout: bool = True
    validate_every: int | None = Field(None, gt=0)
    validation_finetuning: FineTuning = FineTuning(epochs=3)

    def require(self) -> None:
        """Make sure that what the algorithm needs is installed, before anything that takes time.

        Raises:
            MissingLearn2LearnError: the algorithm has an inner loop, and learn2learn is not there.
        """

    def sampler(self, tasks: Sequence[Task], seed: int) -> EpisodeSampler:
        """The meta-batches of a run.

        Raises:
            DataError: a task has fewer sentences than an episode needs.
        """
        return EpisodeSampler(tasks, self.support_size, self.query_size, self.tasks_per_batch, seed)

    def prepare(self, model: PEModel, seed: int) -> None:
        """Make the model ready for :meth:`accumulate`, such as by attaching another method."""

    def note(self, model: PEModel) -> str | None:
        """What a user should know of how the algorithm computes with this model, in a line; None where nothing."""
        return None

    @property
    def examples_in_gradient(self) -> int:
        """Source examples that one task's outer gradient is taken of in a step."""
        return self.query_size

    def gradient_sentences(self, sources: int) -> int:
        """Source sentences that θ_p's gradient is taken of in a whole run, each as often as it is drawn."""
        return self.outer_steps * (self.tasks_per_batch or sources) * self.examples_in_gradient

    @abstractmethod
    def trained(self, model: PEModel) -> tuple[str, ...]:
        """Names of the parameters that the outer optimiser moves."""

    @abstractmethod
    def accumulate(self, model: PEModel, episodes: Sequence[Episode], loss_scale: float = 1.0) -> StepLosses:
        """Add the outer gradient of a meta-batch, summed over its tasks, to the parameters' ``grad``.

        Heads that the algorithm does not train by gradient get their new values here.

        Args:
            model: what is primed.
            episodes: one for each task of the meta-batch.
            loss_scale: factor on the gradient, and on all inner ones, against underflow in float16.

        Raises:
            NotFiniteError: a loss is not finite; the heads are as they were.
        """

    def _add_gradient(self, loss: Tensor, scale: float) -> float:
        """Add the gradient of an outer loss, scaled, and return the loss."""
        (loss * scale).backward()
        value = float(loss.item())  # not before: an accelerator would be waited for
        check_finite(value, "the outer loss", f"lower outer_lr (now {self.outer_lr}) or the inner loop's learning rate")
        return value

    def describe(self) -> dict[str, Any]:
        """What a record says of the inner loop: its method and its number of steps, None without one."""
        return {"inner_method": None, "inner_steps": None}


def own_generators(model: PEModel, episodes: Sequence[Episode]) -> AbstractContextManager[None]:
    """Within the block PyTorch's generators are the episodes'; where these have no seeds, they simply go on."""
    seeded = any(episode.seed is not None for episode in episodes)
    return generators_kept(model.device) if seeded else nullcontext()


def seed_passes(model: PEModel, episode: Episode, *labels: str) -> None:
    """Draw dropout for passes of an episode from its own seed, if it has one."""
    if episode.seed is not None:
        seed_generators(derive_seed(episode.seed, *labels), model.device)


def mean(values: Sequence[float]) -> float:
    """Of losses."""
    return sum(values) / len(values)
