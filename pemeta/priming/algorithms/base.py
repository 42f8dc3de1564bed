"""The base of all priming algorithms: the outer loop's settings, and the gradients of one outer step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import Self

from pemeta.backbone.packed_passes import Padding
from pemeta.methods.base import PEMethod
from pemeta.model.pe_model import PEModel
from pemeta.priming.algorithms.outer_step import FIRST as FIRST
from pemeta.priming.algorithms.outer_step import OuterStep as OuterStep
from pemeta.priming.algorithms.outer_step import PhaseMemory as PhaseMemory
from pemeta.priming.algorithms.outer_step import StepLosses as StepLosses
from pemeta.priming.algorithms.outer_step import mean as mean
from pemeta.priming.algorithms.outer_step import own_generators as own_generators
from pemeta.priming.algorithms.outer_step import seed_passes as seed_passes
from pemeta.priming.algorithms.outer_step import total as total
from pemeta.priming.algorithms.presets import PRESETS
from pemeta.priming.algorithms.primes import BACKBONE, Primes, primed_names
from pemeta.tasks.episodes import Episode, EpisodeSampler
from pemeta.tasks.task import Task
from pemeta.training.finetuning_settings import FineTuning
from pemeta.training.lean_adamw import AdamWKind
from pemeta.training.micro_batches import Part, parts_of
from pemeta.training.optimizer import check_finite
from pemeta.utils.devices import in_double, read_numbers
from pemeta.utils.modules import parameter_dict
from pemeta.utils.neutral import Neutral
from pemeta.utils.registry import Named

_BRIEF = {
    "epochs": 3,
    "batch_size": 16,
    "lr": 1e-3,
    "weight_decay": 0.01,
    "warmup_steps": 0,
    "max_grad_norm": 1.0,
    "dropout": False,
    "reuse_trunk": True,
    "bucket_by_length": False,
    "max_tokens": None,
    "padding": "padded",
    "micro_batch_size": None,
    "optimizer": "adamw",
    "early_stopping": None,
    "head": "new",
}
"""The neutral settings of validation's fine-tuning; without validation none of them has an effect."""


class PrimingAlgorithm(Named):
    """The outer loop's settings, shared by all algorithms, and one outer step's gradients.

    Attributes:
        outer_steps: number of outer steps; 1000, our choice: the paper says "while not converged".
        outer_lr: β of AdamW; 5e-5 (§4.2), falling linearly to zero.
        weight_decay: weight decay of AdamW; 0.01 (PyTorch's default), our choice.
        warmup_steps: first steps, in which the rate rises linearly; 0, our choice.
        max_grad_norm: norm that a larger outer gradient is scaled down to; 1.0, our choice; null leaves it.
        support_size: sentences in a support set; 16, our choice.
        query_size: sentences in a query set; 16, our choice; it may be 0 if no loss is that of the query set alone.
        tasks_per_batch: source tasks in a meta-batch; null for all of them, our choice.
        outer_dropout: dropout in the pass whose gradient is the outer gradient; on, our choice.
        primes: what the outer gradient moves: any of ``theta_p``, ``theta_a`` and ``theta_h`` (the values that heads
            start with), and patterns of names of backbone parameters, such as ``encoder.layer.11.*``, for a part of
            θ_p. Everything else keeps its values, and no optimiser state is held for it. θ_p and θ_a, Algorithm 1.
        interpolate: λ of θ_p ← (1 - λ) θ_p + λ θ_p*, once after priming, between the values before it and after it
            (Wortsman et al., 2022; SMAT, 2403.08477), for targets unlike the sources. 1, the paper's, leaves θ_p*.
        padding: how sentences of different lengths run: ``padded`` to the longest of their batch; ``packed``, behind
            each other in rows, which computes the same without the work of padding; or ``auto``, the default and our
            choice, packed where that is so much less work that it is faster. What a backbone cannot compute exactly in
            rows is padded. With dropout, its draw differs. ``padded`` repeats earlier versions bit for bit.
        micro_batch_size: most examples of the outer loss that run at once: a larger batch runs in parts, whose
            gradients, each weighed by its number of labels, sum to the same. Memory falls with it, and speed where
            parts do not fill the device. Null, the default, for the whole batch.
        optimizer: what moves parameters by the outer gradient: ``adamw`` (§4.2); ``adamw_fused``, its step as one
            operation, as CUDA has it anyway: a fifth of the time on a CPU, rounded otherwise; ``adamw_8bit``, whose
            moments take a quarter of the memory, rounded; ``adamw_paged``, whose moments a GPU moves to the CPU's
            memory when its own is full; or ``adamw_8bit_paged``, both. The last three need bitsandbytes (the extra
            ``lean``), and what is paged needs CUDA.
        validate_every: outer steps between two validations, each a brief fine-tuning on the validation tasks; the
            values with the best score are kept. No validation where null, our choice.
        validation_finetuning: settings of that fine-tuning; three epochs of the usual ones, padded, our choice.
    """

    kind: ClassVar[str] = "priming algorithm"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    paper: ClassVar[str]
    """Where the algorithm is from."""
    phases: ClassVar[Mapping[str, PhaseMemory]] = {}
    """Every phase that :meth:`accumulate` marks with :func:`pemeta.utils.phases.phase`."""

    outer_steps: int = Field(1000, gt=0)
    outer_lr: float = Field(5e-5, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup_steps: int = Field(0, ge=0)
    max_grad_norm: float | None = Field(1.0, gt=0)
    support_size: int = Field(16, gt=0)
    query_size: int = Field(16, ge=0)
    tasks_per_batch: int | None = Field(None, gt=0)
    outer_dropout: bool = True
    primes: Annotated[Primes, Neutral(BACKBONE)] = BACKBONE
    interpolate: Annotated[float, Field(ge=0, le=1), Neutral(1.0)] = 1.0
    padding: Annotated[Padding, Neutral("padded")] = "auto"
    micro_batch_size: Annotated[int | None, Field(gt=0), Neutral(None)] = None
    optimizer: Annotated[AdamWKind, Neutral("adamw")] = "adamw"
    validate_every: Annotated[int | None, Field(gt=0), Neutral(None)] = None
    validation_finetuning: Annotated[FineTuning, Neutral(_BRIEF)] = FineTuning(epochs=3, padding="padded")

    @model_validator(mode="after")
    def _has_the_examples_it_needs(self) -> Self:
        if self.query_size == 0 and self.needs_query:
            raise ValueError(
                "query_size is 0, but the outer loss is that of the query set; set a query_size of 1 or more, or "
                "sentences: both"
            )
        return self

    @model_validator(mode="after")
    def _has_the_head_that_validation_starts_from(self) -> Self:
        if self.validation_finetuning.head == "primed" and not self.shares_heads:
            raise ValueError(
                "validation_finetuning.head: primed needs source_heads: shared, so that there is one head to start "
                "from; set that (algorithms with an inner loop have it), or head: new"
            )
        return self

    @model_validator(mode="after")
    def _has_a_batch_to_split(self) -> Self:
        if self.micro_batch_size is not None and not self.splits:
            raise ValueError(
                f"micro_batch_size splits the examples of the outer loss; found {self.micro_batch_size}, but "
                f"{self.name} has no such loss, or runs all tasks as one batch; remove micro_batch_size, or set "
                "batch_tasks: false"
            )
        return self

    @property
    def splits(self) -> bool:
        """Whether an outer loss is that of examples that can run in parts."""
        return True

    @property
    def shares_heads(self) -> bool:
        """Whether source tasks with equal labels have one head, from which fine-tuning may start."""
        return False

    @property
    def needs_query(self) -> bool:
        """Whether an outer loss is that of a query set alone."""
        return True

    @property
    @abstractmethod
    def passes(self) -> int:
        """Forward passes over a batch, for one task in one outer step, if no hidden states are reused."""

    def require(self) -> None:
        """Check that the packages that the algorithm needs are installed, before anything that takes time.

        Raises:
            MissingLearn2LearnError: the algorithm has an inner loop, and learn2learn is not installed.
        """

    def sampler(self, tasks: Sequence[Task], seed: int) -> EpisodeSampler:
        """The meta-batches of a run.

        Raises:
            DataError: a task has fewer sentences than an episode needs.
        """
        return EpisodeSampler(tasks, self.support_size, self.query_size, self.tasks_per_batch, seed)

    def prepare(self, model: PEModel, seed: int) -> None:
        """Prepare the model for :meth:`accumulate`, for example by attaching another method."""

    def make_heads(self, model: PEModel, tasks: Sequence[Task], seed: int) -> None:
        """Give each source task what it has for itself in priming: a head, unless it has one."""
        for task in tasks:
            if task.name not in model.tasks:
                model.add_head(task.name, task.make_head, seed)

    def conclude(self, model: PEModel) -> None:
        """Put into the model what fine-tuning starts from, where that is not what the outer loop trains.

        It is called before each validation and at the end of priming.
        """

    def release(self, model: PEModel) -> None:
        """Remove what source tasks have had for themselves besides heads; called at the end, however priming ends."""

    def note(self, model: PEModel) -> str | None:
        """A line on how the algorithm computes with this model, if there is anything that a user should know."""
        return None

    @property
    def examples_in_gradient(self) -> int:
        """Number of source examples in one task's outer gradient of a step."""
        return self.query_size

    def gradient_sentences(self, sources: int) -> int:
        """Number of source sentences in θ_p's gradients of a whole run, each counted as often as it is drawn."""
        return self.outer_steps * (self.tasks_per_batch or sources) * self.examples_in_gradient

    @property
    def adapted_method(self) -> PEMethod | None:
        """The method that :meth:`prepare` attaches because the algorithm adapts it in place of fine-tuning's."""
        return None

    @property
    def joins_tasks(self) -> bool:
        """Whether the tasks of a meta-batch run as one batch, so that memory grows with their number."""
        return False

    @property
    def grows_with_sources(self) -> bool:
        """Whether each source task has more for itself than a head, so that memory grows with their number."""
        return False

    def kinds_of_steps(self) -> Mapping[int, int]:
        """The first outer step, counted from 0, of each kind that costs differently, and the number of its kind."""
        return {0: self.outer_steps}

    def cloned(self, model: PEModel, task: str) -> tuple[str, ...]:
        """Names of the parameters that a clone for a task owns; none without an inner loop."""
        return ()

    def with_carried_heads(self) -> PrimingAlgorithm:
        """The algorithm with heads that no step draws anew."""
        return self

    def lighter(self) -> Iterator[tuple[str, PrimingAlgorithm]]:
        """Changes after which a step holds less: each as keys of a configuration, with the algorithm that results."""
        support, query = max(1, self.support_size // 2), self.query_size // 2 or min(1, self.query_size)
        if (support, query) != (self.support_size, self.query_size):
            smaller = self.model_copy(update={"support_size": support, "query_size": query})
            yield f"support_size: {support} and query_size: {query}", smaller
        most = self.micro_batch_size or self.examples_in_gradient
        if self.splits and most > 1:
            yield f"micro_batch_size: {most // 2}", self.model_copy(update={"micro_batch_size": most // 2})

    def trained(self, model: PEModel) -> tuple[str, ...]:
        """Names of the parameters that the outer optimiser moves: those that ``primes`` lists.

        Raises:
            ConfigError: ``primes`` lists a set that the method does not have, or a pattern that matches nothing.
        """
        return primed_names(self.primes, model.partition(self.adapted_method))

    def tensors_of(self, model: PEModel, names: Sequence[str]) -> Mapping[str, Sequence[Tensor]]:
        """The tensors that take the gradient of each named parameter of θ_p and θ_a: by default the model's own."""
        return {name: [parameter] for name, parameter in parameter_dict(model, names).items()}

    @abstractmethod
    def accumulate(self, model: PEModel, episodes: Sequence[Episode], step: OuterStep = FIRST) -> StepLosses:
        """Add the outer gradient of a meta-batch, summed over its tasks, to the parameters' ``grad``.

        Heads that the algorithm does not train by gradient get their new values here.

        Args:
            model: the model that is primed.
            episodes: one for each task of the meta-batch.
            step: the outer step.

        Raises:
            NotFiniteError: a loss is not finite; the heads are as they were.
        """

    def parts(self, model: PEModel, episode: Episode, sentences: Literal["query", "both"]) -> list[Part]:
        """The query set of an episode, or both sets, in the parts that run at once (``micro_batch_size``)."""
        return parts_of(model.head(episode.task.name), episode.parts(sentences, self.micro_batch_size))

    def add_part(self, loss: Tensor, share: float, scale: float) -> Tensor:
        """As :meth:`add_unread`, of a part's loss; returns its share of the whole batch's loss."""
        found = self.add_unread(loss, share * scale)
        return found if share == 1 else share * in_double(found)

    def add_gradient(self, loss: Tensor, scale: float) -> float:
        """Add the gradient of an outer loss to the parameters' ``grad``, scaled, and return the loss.

        Raises:
            NotFiniteError: the loss is not finite.
        """
        return self.checked([self.add_unread(loss, scale)])[0]

    def add_unread(self, loss: Tensor, scale: float) -> Tensor:
        """As :meth:`add_gradient`, but nothing waits for the device: return the loss as it is there."""
        (loss if scale == 1 else loss * scale).backward()
        return loss.detach()

    def checked(self, losses: Sequence[Tensor | float]) -> list[float]:
        """Outer losses as numbers, for which the device is waited for once.

        Raises:
            NotFiniteError: a loss is not finite.
        """
        found = read_numbers(losses)
        for value in found:
            check_finite(
                value, "the outer loss", f"lower outer_lr (now {self.outer_lr}) or the inner loop's learning rate"
            )
        return found

    def describe(self) -> dict[str, Any]:
        """A record's entries on the inner loop: its method and its number of steps, None without one."""
        return {"inner_method": None, "inner_steps": None}
