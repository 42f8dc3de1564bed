"""Fine-tuning θ_a ∪ θ_h on one target task, best-on-validation."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import TypeAdapter
from torch import Tensor, nn
from typing_extensions import Unpack

from pemeta.backbone.layer_reuse import has_dropout
from pemeta.backbone.masks import masks_once
from pemeta.data.examples import Examples
from pemeta.model.given import require_model
from pemeta.model.pe_model import PEModel
from pemeta.tasks.task import Task
from pemeta.training.callbacks.base import StepReport, Validation
from pemeta.training.callbacks.early_stopping import EarlyStopping
from pemeta.training.checkpoints import prefixed, unprefixed
from pemeta.training.evaluation import evaluate
from pemeta.training.example_checks import check_examples
from pemeta.training.finetuning_settings import FineTuning, as_counted
from pemeta.training.head_start import give_head
from pemeta.training.hidden_state_cache import HiddenStateCache
from pemeta.training.job import Gradient, Job
from pemeta.training.loop import Loop, LoopOptions, check_options
from pemeta.training.micro_batches import Part, parts_of
from pemeta.training.optimizer import LossScale, Optimization, check_finite
from pemeta.training.reach import check_theta_a, without_gradient
from pemeta.typing import Batch, State
from pemeta.utils.ahead import Ahead
from pemeta.utils.devices import in_double, pinned, read_numbers
from pemeta.utils.modules import modes_kept, only_trainable, state_digest
from pemeta.utils.numerics import precision_of
from pemeta.utils.seeding import seeded
from pemeta.utils.signatures import checked


@dataclass(frozen=True)
class FineTuningHistory:
    """What happened in a fine-tuning run.

    Attributes:
        losses: Mean training loss of each epoch.
        validation_scores: Main score after each epoch, higher being better: F1 of entities, accuracy of classes, or the
            negative loss of a language model.
        best_epoch: The first epoch with the highest validation score, counted from 1; its values are kept.
        seconds: Wall time over all sessions of the run.
        skipped: Steps, counted from 1, that were skipped because something was not finite.
        packed: Whether training batches ran without padding, in rows, as ``padding`` allowed.
    """

    losses: tuple[float, ...]
    validation_scores: tuple[float, ...]
    best_epoch: int
    seconds: float
    skipped: tuple[int, ...] = ()
    packed: bool = False


@checked(model=None)
def finetune(
    model: PEModel,
    task: Task,
    validation: Examples,
    settings: FineTuning | None = None,
    *,
    seed: int = 0,
    **options: Unpack[LoopOptions],
) -> FineTuningHistory:
    """Fine-tune θ_a and a new head for a task, in place, and keep the values that are best on validation.

    All other parameters are frozen and keep their values. The layers that θ_a does not reach (all of them if it acts
    on the backbone's output) run once per example and not once per epoch, unless they have dropout
    (``settings.reuse_trunk``).

    Args:
        model: Pretrained or primed, on the device to fine-tune on.
        task: The task with its training examples. It gets a new head, replacing one of the same name, which starts as
            ``settings.head`` says.
        validation: Examples of the same kind, which decide which epoch's values are kept.
        settings: By default :class:`FineTuning`'s own.
        seed: Seed of the head, the order of examples, and dropout.
        options: Checkpoints, progress, callbacks: see :class:`~pemeta.training.loop.LoopOptions`.

    Raises:
        ConfigError: ``not_finite`` or ``checkpoint_every`` is none of the possible values; or the head is to start from
            a primed one, and the model has none, or several, with the task's labels.
        DataError: There is no training or no validation example, none to train on has a label, or they are of different
            kinds or labels.
        ModelError: No gradient reaches anything of θ_a, or what a method has added, as the first batch shows.
        TrainingError: The loss is not finite; the epoch is named.
        OutputError: The checkpoint cannot be written, or belongs to another run, whose difference is named.
        KeyboardInterrupt: The run was interrupted, between two steps and after saving.
    """
    require_model(model, "finetune")
    settings, started = settings or FineTuning(), time.perf_counter()
    check_options(options)
    check_examples(task, validation)
    give_head(model, task, settings.head, seed)
    own = [] if settings.early_stopping is None else [EarlyStopping(settings.early_stopping)]
    with (
        HiddenStateCache(model) as cache,
        modes_kept(model),
        model.padded_as(settings.padding),
        masks_once(model.backbone),
        seeded(seed, "finetuning", device=model.device),
        only_trainable(model, model.stored_names(task.name)) as trained,
    ):
        task, validation = _prepared(cache, task, validation, settings)
        job = FineTuningJob(model, task, validation, settings, seed, trained.values())
        state = Loop(job, model.device, options, own, started=started).run()
    scores, at = tuple(one.score for one in state.validations), job.at
    best_epoch = scores.index(max(scores)) + 1
    return FineTuningHistory(tuple(at.losses), scores, best_epoch, state.seconds, tuple(state.skipped), at.packed)


@dataclass
class _Epochs:
    """Losses of the epochs so far.

    Attributes:
        losses: Mean training loss of each whole epoch.
        total: Sum of the losses of the epoch that has begun.
        taken: Steps that were taken in it.
        packed: Whether a training batch was packed.
    """

    losses: list[float] = field(default_factory=list)
    total: float = 0.0
    taken: int = 0
    packed: bool = False


class FineTuningJob(Job):
    """Fine-tuning as the training loop sees it.

    Args:
        model: What is fine-tuned.
        task: With its training examples.
        validation: Decides which epoch's values are kept.
        settings: Of fine-tuning.
        seed: Of the order of examples.
        trained: The parameters that the optimiser updates.
    """

    kind: ClassVar[Literal["priming", "fine-tuning"]] = "fine-tuning"
    unit: ClassVar[str] = "batch"

    def __init__(
        self,
        model: PEModel,
        task: Task,
        validation: Examples,
        settings: FineTuning,
        seed: int,
        trained: Iterable[nn.Parameter],
    ) -> None:
        self.model, self.task, self.validation = model, task, validation
        self.finetuning, self.seed = settings, seed
        counted = as_counted(settings, model)
        self.ends = list(itertools.accumulate(counted.steps_of_epochs(task.train, seed, task.name)))
        self.name, self.total = f"fine-tuning {task.name}", self.ends[-1]
        self.names = model.stored_names(task.name)
        self._theta_a, self._reach_checked = model.partition().theta_a, False
        self.best: State = model.state(self.names)
        self.at = _Epochs()
        self._epoch = -1
        self._packed_before = model.packed_batches
        self._order = lru_cache(2)(partial(counted.batches, task.train, seed, task.name))
        self._batches = Ahead(self._batch, self.total, model.device)
        self.optimization = Optimization(
            trained,
            settings.lr,
            self.total,
            settings.weight_decay,
            settings.warmup_steps,
            settings.max_grad_norm,
            LossScale.suited_to(model.compute_dtype),
            kind=settings.optimizer,
        )

    def settings(self) -> dict[str, Any]:
        """Method, task, seed and the settings of fine-tuning."""
        own = {"method": self.model.method.to_config(), "task": self.task.name, "seed": self.seed}
        return {**own, "finetuning": self.finetuning.model_dump(mode="json")}

    def identity(self) -> dict[str, Any]:
        """Everything that the run depends on, the initial values included."""
        return {
            "settings": self.finetuning.model_dump(mode="json"),
            "method": self.model.method.to_config(),
            "task": self.task.name,
            "data": {"train": self.task.train.digest(), "validation": self.validation.digest()},
            "head": self.task.head_config,
            "initial values": state_digest(self.model),
            "seed": self.seed,
            "precision": precision_of(self.model.autocast_dtype, self.model.device),
            **self.model.padding_identity(),
        }

    def values(self) -> State:
        """The values of θ_a and the head now, and the best ones so far."""
        return prefixed(now=self.model.state(self.names), best=self.best)

    def progress(self) -> dict[str, Any]:
        """Losses of the epochs so far."""
        return dataclasses.asdict(self.at)

    def restore(self, values: State, progress: Mapping[str, Any]) -> None:
        """Put back values and losses."""
        parts = unprefixed(values, "now", "best")
        found = {"packed": False, **progress}  # which checkpoints have not always said
        self.at = TypeAdapter(_Epochs).validate_python({name: found[name] for name in vars(self.at)})
        self.model.load_state(parts["now"])
        self.best = parts["best"]

    def gradient(self, number: int) -> Gradient:
        """The gradient of the loss on a batch of training examples, which are in a new order in each epoch."""
        epoch = self._epoch_of(number)
        if self._epoch != epoch:
            self._epoch = epoch
            self.model.train(self.finetuning.dropout)
        indices, made = self._batches.take(number)
        labelled = any(self.task.train.has_label(int(i)) for i in indices)
        losses = [self._part(part, labelled) for part in parts_of(self.model.head(self.task.name), made)]
        if not self._reach_checked:
            check_theta_a(self.model, self._theta_a, without_gradient(self.model, self._theta_a))
            self._reach_checked = True
        value = losses[0].item() if len(losses) == 1 else sum(read_numbers(losses))
        check_finite(value, "the loss", f"lower lr (now {self.finetuning.lr})")
        return Gradient({"train": value}, len(indices), sum(self.task.train.length(int(i)) for i in indices))

    def _part(self, part: Part, labelled: bool) -> Tensor:
        """Add the gradient of a part of a batch, and return its share of the loss, unread."""
        batch = self.model.placed(part.batch)
        # By chance, a batch may have only sentences of which no word has a token.
        loss = self.model.loss(batch, self.task.name) if labelled else self.model(batch, self.task.name).sum() * 0.0
        # Before the value is asked for: a device would be waited for twice.
        (loss * (part.share * self.optimization.scale.value)).backward()
        return loss.detach() if part.share == 1 else in_double(loss.detach()) * part.share

    def _epoch_of(self, number: int) -> int:
        """The epoch of a step, both counted from 0."""
        return bisect.bisect_right(self.ends, number)

    def _batch(self, number: int) -> tuple[np.ndarray, list[Batch]]:
        """The examples of a step, and their batch, in the parts that run at once."""
        epoch = self._epoch_of(number)
        indices = self._order(epoch)[number - (self.ends[epoch - 1] if epoch else 0)]
        parts = self.finetuning.parts(indices)
        return indices, [pinned(self.task.train.batch(part), self.model.device) for part in parts]

    def taken(self, gradient: Gradient) -> None:
        """Add the loss to its epoch's."""
        self.at.total += gradient.losses["train"]
        self.at.taken += 1
        self.at.packed |= self.model.packed_batches > self._packed_before

    def where(self, number: int) -> str:
        """The epoch."""
        return f"{self.name}, epoch {self._epoch_of(number) + 1}"

    def summary(self, report: StepReport) -> str:
        """The loss of the epoch so far."""
        return f"loss {self.at.total / max(1, self.at.taken):.3f}"

    def validation_due(self) -> bool:
        """At the end of each epoch, and when the run is stopped before the end of the first one."""
        state = self.state
        last = state.validations[-1].step if state.validations else 0
        unscored = state.stop_reason is not None and not state.validations
        done = self._epoch_of(state.step)  # whole epochs
        return unscored or (done > 0 and last < self.ends[done - 1])

    def validate(self) -> Validation:
        """Score the epoch's values on validation, and keep them if they are the best."""
        found = evaluate(self.model, self.validation, self.task.name)
        check_finite(found.main, "the validation score", f"lower lr (now {self.finetuning.lr})")
        self.at.losses.append(self.at.total / max(1, self.at.taken))
        self.at.total, self.at.taken = 0.0, 0
        self.state.summary = f"loss {self.at.losses[-1]:.3f}"
        best = self.state.best
        if best is None or found.main > best.score:
            self.best = self.model.state(self.names)
        return Validation(self.state.step, found.main, found.summary, found.numbers())

    def end(self) -> None:
        """The best values so far."""
        self._batches.close()
        self.model.load_state(self.best)


def _prepared(cache: HiddenStateCache, task: Task, validation: Examples, settings: FineTuning) -> tuple[Task, Examples]:
    """The task and the validation examples, with last hidden states where they stay the same in all passes."""
    keep_validation = settings.reuse_trunk  # which is never seen with dropout
    keep_train = settings.reuse_trunk and not (settings.dropout and has_dropout(cache.model.backbone))
    validation = cache.hold(validation) if keep_validation else validation.holding(None)
    train = cache.hold(task.train) if keep_train else task.train.holding(None)
    return dataclasses.replace(task, train=train), validation
