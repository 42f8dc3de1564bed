"""One step of priming or fine-tuning, or one pass of a model, run without values to count its cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from pemeta.backbone.layer_reuse import has_dropout
from pemeta.estimate.counter import CostCounter, Work
from pemeta.estimate.fake import Shape, fake_tensors
from pemeta.estimate.findings import Passes, Step
from pemeta.estimate.monitor import REST, StepMonitor
from pemeta.methods.base import PEMethod
from pemeta.model.pe_model import PEModel
from pemeta.priming.algorithms import OuterStep, PrimingAlgorithm
from pemeta.training.finetuning_settings import FineTuning
from pemeta.training.optimizer import LossScale
from pemeta.typing import Batch
from pemeta.utils.phases import observed

EVALUATED = 32
"""Sentences in a batch of :func:`pemeta.training.evaluation.predict` and of the hidden-state cache."""


def priming_step(shape: Shape, method: PEMethod, algorithm: PrimingAlgorithm, tasks: int, sources: int) -> Step:
    """The cost of one outer step on ``tasks`` of ``sources`` source tasks; its work is the mean over kinds of steps.

    Tasks that run one after the other cost the same each and free their memory, so two are run and count for all,
    unless each has much for itself.

    Raises:
        ModelError: the method cannot be attached to the backbone, or second order cannot pass through it.
        MissingLearn2LearnError: the algorithm has an inner loop, and learn2learn is not installed.
    """
    algorithm.require()
    run = tasks if algorithm.joins_tasks or algorithm.grows_with_sources else min(tasks, 2)
    held = [shape.task(f"source {number}") for number in range(sources if algorithm.grows_with_sources else run)]
    model = shape.model([method], held)
    with torch.device("meta"):
        algorithm.prepare(model, 0)
        algorithm.make_heads(model, held, 0)
    # New heads would be made outside of what is counted; they are small.
    one_batch = algorithm.with_carried_heads().model_copy(update={"tasks_per_batch": None})
    episodes = [replace(episode, seed=None) for episode in one_batch.sampler(held[:run], 0)[0]]
    cloned = algorithm.cloned(model, held[0].name)
    named = algorithm.trained(model)
    monitor = StepMonitor(
        model, named, shape.gpu, cloned, algorithm.phases, vocabulary=shape.vocabulary, kind=algorithm.optimizer
    )
    with fake_tensors(model, shape.gpu), monitor:
        _check_reach(model, shape, algorithm.adapted_method)
        monitor.counter.begin()
        scale, works = LossScale.suited_to(model.compute_dtype).value, []
        for number, many in algorithm.kinds_of_steps().items():
            with monitor.counter.within(REST), observed(monitor.observe):
                one_batch.accumulate(model, episodes, OuterStep(number, scale))
            works.append(monitor.counter.take_work().times(tasks * many, run * algorithm.outer_steps))
        monitor.update()
        work, memory = Work.of(*works, monitor.counter.take_work()), monitor.memory()
        algorithm.release(model)  # what a task has in priming alone is not part of its head
        return Step(monitor.parameters(held[0].name), work, memory)


def finetuning_step(shape: Shape, methods: Sequence[PEMethod], settings: FineTuning) -> Step:
    """The cost of one step of fine-tuning on a full batch, from cached hidden states if later epochs have them.

    Args:
        shape: sizes that the step depends on.
        methods: the attached methods; the first is fine-tuning's.
        settings: settings of fine-tuning.

    Raises:
        ModelError: a method cannot be attached to the backbone.
    """
    task = shape.task("target")
    model = shape.model(methods, [task])
    keeps = keeps_training_states(model, settings)
    if keeps:  # what is kept is padded
        task = replace(shape, padding="padded").task("target")
    most, layout = settings.max_tokens, shape.layout
    examples = settings.batch_size if most is None else layout.examples(most)
    trained = model.stored_names(task.name)
    monitor = StepMonitor(model, trained, shape.gpu, vocabulary=shape.vocabulary, kind=settings.optimizer)
    with fake_tensors(model, shape.gpu), monitor:
        batches: list[Batch] = [task.train.batch(part) for part in settings.parts(np.arange(examples))]
        if keeps:
            model.eval()
            with torch.no_grad():
                batches = [model.reusing([batch])[0] for batch in batches]
        model.train(settings.dropout)
        monitor.counter.begin()
        with monitor.counter.within("training step"):
            scale = LossScale.suited_to(model.compute_dtype).value
            for batch in batches:
                (model.loss(batch, task.name) * scale).backward()
        monitor.update()
        return Step(monitor.parameters(task.name), monitor.counter.take_work(), monitor.memory())


def evaluation_passes(shape: Shape, methods: Sequence[PEMethod], settings: FineTuning) -> Passes:
    """The cost of fine-tuning's passes outside of its steps: validation, the test, and filling the cache.

    The longest sentences come first, which fill their batch, so that rows do not make the fullest moment lighter; kept
    hidden states are padded.
    """
    padded = _passes(replace(shape, padding="padded"), methods, settings)
    if shape.padding == "padded" or padded.kept:
        return padded
    return replace(_passes(shape, methods, settings), held=padded.held)


def _passes(shape: Shape, methods: Sequence[PEMethod], settings: FineTuning) -> Passes:
    task = shape.task("target")
    model = shape.model(methods, [task]).eval()
    keeps = settings.reuse_trunk and model.unchanging() is not None
    with fake_tensors(model, shape.gpu):
        _check_reach(model, shape, None)
        with CostCounter() as counter, torch.no_grad():
            weights = counter.known([*model.parameters(), *model.buffers()])
            batch = task.train.batch(range(EVALUATED))
            _predict_batch(model, batch, task.name)
            whole = above = counter.take_work()
            below, size = Work(), 0
            if keeps:
                [batch] = model.reusing([batch])
                below = counter.take_work()
                _predict_batch(model, batch, task.name)
                above = counter.take_work()
                size = batch[model.unchanging() or ""][0].nbytes
        held = max(peak.held for peak in counter.peaks.values()) - weights
        return Passes(whole, below, above, size, keeps_training_states(model, settings), held)


def _predict_batch(model: PEModel, batch: Batch, task: str) -> None:
    """Predict one batch, as :func:`pemeta.training.evaluation.predict` does."""
    model.head(task).predictions(model(batch, task), batch)


def keeps_training_states(model: PEModel, settings: FineTuning) -> bool:
    """Whether the training examples' hidden states are cached for all epochs."""
    drops = settings.dropout and has_dropout(model.backbone)
    return settings.reuse_trunk and not drops and model.unchanging() is not None


def _check_reach(model: PEModel, shape: Shape, method: PEMethod | None) -> None:
    """Have the model check how far down θ_a reaches, as it does once, before anything is counted."""
    trainable = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.requires_grad_(True).eval()
    batch: Batch = shape.task("").train.batch(range(1))
    model.reusing([batch], method)
    for parameter, required in trainable.items():
        parameter.requires_grad_(required)
