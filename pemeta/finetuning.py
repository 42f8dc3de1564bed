"""Fine-tuning θ_a ∪ θ_h on one target task, best-on-validation."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch import nn
from tqdm.auto import tqdm

from pemeta.data.examples import Examples
from pemeta.devices import to_device
from pemeta.errors import DataError, NotFiniteError, TrainingError
from pemeta.evaluation import evaluate
from pemeta.model import PEModel
from pemeta.optimization import LossScale, Optimization, check_finite
from pemeta.partition import modes_kept, only_trainable
from pemeta.registry import Frozen
from pemeta.seeding import numpy_generator, seeded
from pemeta.tasks import Task
from pemeta.trunk import has_dropout
from pemeta.trunk_cache import TrunkCache
from pemeta.typing import Batch

CHUNK = 10
"""Batches whose examples bucketing sorts together; our choice: with more, batches become the same in every epoch."""


class FineTuning(Frozen):
    """Settings of fine-tuning; the paper gives none of them, so all are our choice.

    Attributes:
        epochs: passes over the training examples.
        batch_size: examples in a batch.
        lr: AdamW's highest learning rate, falling linearly to zero; 1e-3 suits adapters and heads,
            5e-5 full fine-tuning.
        weight_decay: of AdamW.
        warmup_steps: in which the rate first rises linearly.
        max_grad_norm: norm that the gradient is scaled down to; null leaves it.
        dropout: dropout in the training passes.
        reuse_trunk: run the layers that θ_a does not reach once per example and not once per epoch, where no dropout is
            in them; the results are the same but for rounding. Up to 2 GiB of hidden states are kept in memory, more in
            a temporary file, which is removed. On, our choice.
        bucket_by_length: make batches of examples of similar length, still in a random order. So less padding is
            computed, and epochs are faster where lengths differ much. But the examples of a batch are then alike in
            length, and a long one weighs more in its batch's mean, so that scores change a little, up or down. Off, our
            choice.
    """

    epochs: int = Field(15, gt=0)
    batch_size: int = Field(16, gt=0)
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup_steps: int = Field(0, ge=0)
    max_grad_norm: float | None = Field(1.0, gt=0)
    dropout: bool = False
    reuse_trunk: bool = True
    bucket_by_length: bool = False

    def steps_per_epoch(self, examples: int) -> int:
        """Number of steps in a pass over so many training examples."""
        return -(-examples // self.batch_size)


@dataclass(frozen=True)
class FineTuningHistory:
    """What happened in a fine-tuning run.

    Attributes:
        losses: mean training loss of each epoch.
        validation_scores: the main score after each epoch, higher being better: F1 of entities, accuracy of classes,
            or a language model's loss with its sign turned.
        best_epoch: the first epoch with the highest validation score, counted from 1; its values are kept.
        seconds: wall time.
    """

    losses: tuple[float, ...]
    validation_scores: tuple[float, ...]
    best_epoch: int
    seconds: float


def finetune(
    model: PEModel,
    task: Task,
    validation: Examples,
    settings: FineTuning | None = None,
    *,
    seed: int = 0,
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
        progress: show a progress bar with the loss and the validation score.

    Raises:
        DataError: there is no training or no validation example, or they are of different kinds or labels.
        TrainingError: the loss is not finite; the epoch is named.
    """
    settings, started = settings or FineTuning(), time.perf_counter()
    _check_data(task, validation)
    model.add_head(task.name, task.make_head, seed)
    names = model.stored_names(task.name)
    losses: list[float] = []
    scores: list[float] = []
    best = model.state(names)
    with (
        TrunkCache(model) as cache,
        _bar(task, settings, progress) as bar,
        modes_kept(model),
        seeded(seed, "finetuning", device=model.device),
        only_trainable(model, names) as trained,
    ):
        task, validation = _prepared(cache, task, validation, settings)
        optimization = _optimization(trained.values(), settings, bar.total, model.autocast_dtype)
        try:
            for epoch in range(settings.epochs):
                losses.append(_epoch(model, task, settings, optimization, epoch, seed, bar))
                found = evaluate(model, validation, task.name)
                scores.append(found.main)
                if len(scores) == 1 or scores[-1] > max(scores[:-1]):
                    best = model.state(names)
                bar.set_postfix_str(f"loss {losses[-1]:.3f}, validation {found.summary}")
        finally:
            optimization.zero_grad()
            model.load_state(best)
    return FineTuningHistory(tuple(losses), tuple(scores), scores.index(max(scores)) + 1, time.perf_counter() - started)


def _prepared(cache: TrunkCache, task: Task, validation: Examples, settings: FineTuning) -> tuple[Task, Examples]:
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
            f"task {task.name!r} is trained on the labels {task.train.outputs_in_words()} and validated on "
            f"{validation.outputs_in_words()}; encode both with one label set"
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


def _batches(train: Examples, settings: FineTuning, rng: np.random.Generator) -> list[np.ndarray]:
    """The indices of all training examples, each once, in batches in a random order."""
    size = settings.batch_size
    order = rng.permutation(len(train))
    if not settings.bucket_by_length:
        return _cut(order, size)
    chunks = [sorted(chunk, key=lambda i: train.length(int(i))) for chunk in _cut(order, size * CHUNK)]
    batches = [batch for chunk in chunks for batch in _cut(np.array(chunk), size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def _cut(order: np.ndarray, size: int) -> list[np.ndarray]:
    return [order[start : start + size] for start in range(0, len(order), size)]


def _epoch(
    model: PEModel,
    task: Task,
    settings: FineTuning,
    optimization: Optimization,
    epoch: int,
    seed: int,
    bar: tqdm[None],
) -> float:
    """One pass over the training examples in a new order; returns the mean loss."""
    model.train(settings.dropout)
    batches = _batches(task.train, settings, numpy_generator(seed, "epoch", task.name, epoch))
    total = 0.0
    for indices in batches:
        batch = to_device(task.train.batch(indices), model.device)
        try:
            total += _step(model, task.name, batch, optimization, settings.lr)
        except TrainingError as error:
            raise TrainingError(f"fine-tuning {task.name}, epoch {epoch + 1}: {error}") from None
        bar.update()
    return total / len(batches)


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
