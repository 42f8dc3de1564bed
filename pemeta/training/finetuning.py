"""Fine-tuning θ_a ∪ θ_h on one target task, best-on-validation."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import nn
from tqdm.auto import tqdm

from pemeta.backbone.layer_reuse import has_dropout
from pemeta.data.examples import Examples
from pemeta.errors import DataError, ModelError, NotFiniteError, OutputError, TrainingError, reason
from pemeta.model.pe_model import PEModel
from pemeta.tasks.task import Task
from pemeta.training.checkpoints import Checkpoint
from pemeta.training.evaluation import evaluate
from pemeta.training.finetuning_settings import FineTuning
from pemeta.training.hidden_state_cache import HiddenStateCache
from pemeta.training.optimizer import (
    MOST_SKIPPED,
    LossScale,
    NotFinite,
    Optimization,
    check_choices,
    check_finite,
    too_many,
)
from pemeta.typing import Batch, State
from pemeta.utils.modules import modes_kept, only_trainable, state_digest
from pemeta.utils.seeding import seeded
from pemeta.utils.signals import deferred_interrupt


@dataclass(frozen=True)
class FineTuningHistory:
    """What happened in a fine-tuning run.

    Attributes:
        losses: mean training loss of each epoch.
        validation_scores: the main score after each epoch, higher being better: F1 of entities, accuracy of classes,
            or a language model's loss with its sign turned.
        best_epoch: the first epoch with the highest validation score, counted from 1; its values are kept.
        seconds: wall time, over all the sessions that the run took.
        skipped: steps, counted from 1, that were left out because something was not finite.
    """

    losses: tuple[float, ...]
    validation_scores: tuple[float, ...]
    best_epoch: int
    seconds: float
    skipped: tuple[int, ...] = ()


def finetune(
    model: PEModel,
    task: Task,
    validation: Examples,
    settings: FineTuning | None = None,
    *,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 100,
    not_finite: NotFinite = "stop",
    progress: bool = True,
) -> FineTuningHistory:
    """Fine-tune θ_a and a fresh head for a task, in place, and keep the values that are best on validation.

    All other parameters are frozen: they are afterwards what they were. The layers that θ_a does not reach, which are
    all of them where it acts on the backbone's output, run once per example and not once per epoch, if no dropout is in
    them (``settings.reuse_trunk``).

    Args:
        model: pretrained or primed, on the device that it is to be fine-tuned on.
        task: with its training examples. It gets a new head, in place of one of the same name.
        validation: examples of the same kind that decide which epoch's values are kept.
        settings: by default :class:`FineTuning`'s own.
        seed: of the head, the order of examples, and dropout.
        checkpoint: a safetensors file that the run is saved to now and then and when it is interrupted, and that
            the same call, on a model with the same initial values, continues from; the state before is kept beside it.
            Remove both when you have saved what came of it (:func:`~pemeta.training.checkpoints.remove_checkpoint`).
        checkpoint_every: steps between two checkpoints; 100, our choice.
        not_finite: ``stop`` with an error where a loss or gradient is not finite (our choice), or ``skip`` that step
            and count it in the history; ten in a row end the run.
        progress: show a progress bar with the loss and the validation score.

    Raises:
        ConfigError: ``not_finite`` or ``checkpoint_every`` is none of the possible values.
        DataError: there is no training or no validation example, or they are of different kinds or labels.
        TrainingError: the loss is not finite; the epoch is named.
        OutputError: the checkpoint cannot be written, or is of another run, whose difference is named.
        KeyboardInterrupt: the run was interrupted, between two steps and after saving.
    """
    settings, started = settings or FineTuning(), time.perf_counter()
    check_choices(not_finite, checkpoint_every)
    _check_data(task, validation)
    model.add_head(task.name, task.make_head, seed)
    names = model.stored_names(task.name)
    saved = None
    if checkpoint is not None:
        saved = Checkpoint(Path(checkpoint), _identity(model, task, validation, settings, seed), model.device)
    with (
        HiddenStateCache(model) as cache,
        _bar(task, settings, progress) as bar,
        modes_kept(model),
        seeded(seed, "finetuning", device=model.device),
        only_trainable(model, names) as trained,
    ):
        best = model.state(names)
        task, validation = _prepared(cache, task, validation, settings)
        optimization = _optimization(trained.values(), settings, bar.total, model.autocast_dtype)
        run = _Run(model, task, validation, settings, optimization, seed, not_finite, bar, names, best)
        try:
            run.to_the_end(saved, checkpoint_every, started)
        finally:
            optimization.zero_grad()
            model.load_state(run.best)
    at = run.progress
    best_epoch = at.scores.index(max(at.scores)) + 1
    return FineTuningHistory(tuple(at.losses), tuple(at.scores), best_epoch, at.seconds, tuple(at.skipped))


@dataclass
class _Progress:
    """How far a run is, between two steps."""

    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    batches: int = 0  # of the epoch that was begun
    total: float = 0.0  # of their losses
    skipped: list[int] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class _Run:
    """One fine-tuning run's parts, between :func:`finetune`'s preparation and its end."""

    model: PEModel
    task: Task
    validation: Examples
    settings: FineTuning
    optimization: Optimization
    seed: int
    not_finite: NotFinite
    bar: tqdm[None]
    names: tuple[str, ...]
    best: State
    progress: _Progress = field(default_factory=_Progress)

    def to_the_end(self, checkpoint: Checkpoint | None, checkpoint_every: int, started: float) -> None:
        """Take the epochs that are left."""
        if checkpoint is not None:
            self.resume(checkpoint)
        started -= self.progress.seconds
        with deferred_interrupt() as interrupted:
            for epoch in range(len(self.progress.scores), self.settings.epochs):
                for step in self.steps(epoch):
                    self.progress.seconds = time.perf_counter() - started
                    if interrupted():
                        self.stop(checkpoint)
                    if checkpoint is not None and checkpoint.due(step, checkpoint_every) and step < self.bar.total:
                        self.save(checkpoint)
                self.score()
            self.progress.seconds = time.perf_counter() - started
            if interrupted():  # in the last validation
                self.stop(checkpoint)

    def stop(self, checkpoint: Checkpoint | None) -> None:
        """Save, and leave.

        Raises:
            KeyboardInterrupt: in any case.
        """
        if checkpoint is not None:
            self.save(checkpoint)
        raise KeyboardInterrupt(f"fine-tuning {self.task.name} stopped after step {self.step} of {self.bar.total}")

    @property
    def step(self) -> int:
        """The number of steps taken."""
        at = self.progress
        return len(at.scores) * self.settings.steps_per_epoch(len(self.task.train)) + at.batches

    def steps(self, epoch: int) -> Iterator[int]:
        """Take the steps of an epoch that are left, on the training examples in a new order; gives their numbers."""
        at = self.progress
        self.model.train(self.settings.dropout)
        batches = self.settings.batches(self.task.train, self.seed, self.task.name, epoch)
        for indices in batches[at.batches :]:
            step = epoch * len(batches) + at.batches + 1
            try:
                batch = self.model.placed(self.task.train.batch(indices))
                at.total += _step(self.model, self.task.name, batch, self.optimization, self.settings.lr)
            except TrainingError as error:
                self.skip(step, epoch, error)
            at.batches += 1
            self.bar.update()
            yield step
        taken = len(batches) - sum(epoch * len(batches) < step for step in at.skipped)
        at.losses.append(at.total / max(1, taken))
        at.batches, at.total = 0, 0.0

    def skip(self, step: int, epoch: int, error: TrainingError) -> None:
        """Leave a step out, where that is wanted.

        Raises:
            TrainingError: it is not, or too many in a row were left out.
        """
        if self.not_finite == "stop" or not isinstance(error, NotFiniteError):
            raise TrainingError(f"fine-tuning {self.task.name}, epoch {epoch + 1}: {error}") from None
        self.progress.skipped.append(step)
        if too_many(self.progress.skipped):
            before = f"step {step}, like the {MOST_SKIPPED - 1} before it"
            raise TrainingError(f"fine-tuning {self.task.name}, {before}: {error}") from None

    def score(self) -> None:
        """Score an epoch's values on validation, and keep them if they are the best."""
        at = self.progress
        found = evaluate(self.model, self.validation, self.task.name)
        try:
            check_finite(found.main, "the validation score", f"lower lr (now {self.settings.lr})")
        except NotFiniteError as error:  # compared with others it would be neither better nor worse
            raise TrainingError(f"fine-tuning {self.task.name}, epoch {len(at.scores) + 1}: {error}") from None
        at.scores.append(found.main)
        if len(at.scores) == 1 or at.scores[-1] > max(at.scores[:-1]):
            self.best = self.model.state(self.names)
        self.bar.set_postfix_str(f"loss {at.losses[-1]:.3f}, validation {found.summary}")

    def save(self, checkpoint: Checkpoint) -> None:
        """Write the checkpoint."""
        now = self.model.state(self.names)
        values = {f"now.{name}": value for name, value in now.items()}
        values |= {f"best.{name}": value for name, value in self.best.items()}
        checkpoint.save(values, self.optimization, dataclasses.asdict(self.progress))

    def resume(self, checkpoint: Checkpoint) -> None:
        """Continue from the checkpoint, where there is one."""
        found = checkpoint.load(self.optimization)
        if found is None:
            return
        values, progress = found
        parts: dict[str, State] = {"now": {}, "best": {}}
        try:
            for key, value in values.items():
                part, _, name = key.partition(".")
                parts[part][name] = value
            self.progress = TypeAdapter(_Progress).validate_python(progress)
            self.model.load_state(parts["now"])
        except (ModelError, KeyError, ValueError) as error:
            raise OutputError(
                f"cannot continue from {checkpoint.path}: {reason(error)}; remove it to start again"
            ) from None
        self.best = parts["best"]
        self.bar.update(self.step)


def _identity(model: PEModel, task: Task, validation: Examples, settings: FineTuning, seed: int) -> dict[str, Any]:
    """All that must not change between a checkpoint and its continuation, the initial values included."""
    return {
        "settings": settings.model_dump(mode="json"),
        "method": model.method.to_config(),
        "task": task.name,
        "data": {"train": task.train.digest(), "validation": validation.digest()},
        "head": task.head_config,
        "initial values": state_digest(model),
        "seed": seed,
        "precision": str(model.autocast_dtype),
    }


def _prepared(cache: HiddenStateCache, task: Task, validation: Examples, settings: FineTuning) -> tuple[Task, Examples]:
    """The task and the validation examples, with last hidden states where they stay the same in all passes."""
    keep_validation = settings.reuse_trunk  # which is never seen with dropout
    keep_train = settings.reuse_trunk and not (settings.dropout and has_dropout(cache.model.backbone))
    validation = cache.hold(validation) if keep_validation else validation.holding(None)
    train = cache.hold(task.train) if keep_train else task.train.holding(None)
    return dataclasses.replace(task, train=train), validation


def _check_data(task: Task, validation: Examples) -> None:
    for what, data in (("training", task.train), ("validation", validation)):
        if not len(data):
            raise DataError(f"task {task.name!r} has no {what} {data.unit}; fine-tuning needs some")
    if validation.kind != task.train.kind:
        raise DataError(
            f"task {task.name!r} is trained on {task.train.kind} and validated on {validation.kind}; encode both alike"
        )
    if validation.outputs != task.train.outputs:
        raise DataError(
            f"task {task.name!r} is trained on the labels {task.train.describe_outputs()} and validated on "
            f"{validation.describe_outputs()}; encode both with one label set"
        )


def _optimization(
    trained: Iterable[nn.Parameter], settings: FineTuning, steps: int, dtype: torch.dtype | None
) -> Optimization:
    scale = LossScale.suited_to(dtype)
    return Optimization(
        trained, settings.lr, steps, settings.weight_decay, settings.warmup_steps, settings.max_grad_norm, scale
    )


def _bar(task: Task, settings: FineTuning, progress: bool) -> tqdm[None]:
    return tqdm(
        total=settings.epochs * settings.steps_per_epoch(len(task.train)),
        desc=f"fine-tuning {task.name}",
        unit="batch",
        leave=False,
        disable=None if progress else True,
        dynamic_ncols=True,
    )


def _step(model: PEModel, task: str, batch: Batch, optimization: Optimization, lr: float) -> float:
    """One step of the optimiser; returns the loss. Taken again where float16's losses were scaled too high.

    Raises:
        NotFiniteError: the loss or its gradient is not finite.
    """
    while True:
        optimization.zero_grad()
        loss = model.loss(batch, task)
        scaled = loss * optimization.scale.value
        scaled.backward()  # before the value is asked for: a device would be waited for twice
        try:
            value = loss.item()
            check_finite(value, "the loss", f"lower lr (now {lr})")
            optimization.step()
            return value
        except NotFiniteError:
            if not optimization.scale.lower():
                raise
