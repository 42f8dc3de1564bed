"""The outer loop of Algorithm 1: from a pretrained model to a primed one."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from pemeta.errors import ModelError, NotFiniteError, OutputError, TrainingError
from pemeta.model.pe_model import PEModel
from pemeta.priming.algorithms import MetaPriming, PrimingAlgorithm, StepLosses
from pemeta.priming.history import PrimingHistory
from pemeta.tasks.episodes import Episode, EpisodeSampler
from pemeta.tasks.task import Task
from pemeta.training.checkpoints import Checkpoint
from pemeta.training.optimizer import MOST_SKIPPED, LossScale, NotFinite, Optimization, check_choices, too_many
from pemeta.utils.distributed import Processes
from pemeta.utils.modules import modes_kept, only_trainable, state_digest
from pemeta.utils.seeding import seeded
from pemeta.utils.signals import deferred_interrupt


def prime(
    model: PEModel,
    tasks: Sequence[Task],
    algorithm: PrimingAlgorithm | None = None,
    *,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 100,
    not_finite: NotFinite = "stop",
    progress: bool = True,
) -> PrimingHistory:
    """Prime a model, in place, on source tasks (paper, Algorithm 1).

    Afterwards the model holds θ_p* and θ_a*, and each source task's last head.

    Where torch.distributed is initialised, its processes share out the tasks of each meta-batch: all call this alike,
    sum their gradients once a step, and end with the same model. It is the one that a single process gets, but for
    rounding, and for dropout under ``batch_tasks``. The first process writes the checkpoint, which all must be able
    to read.

    Args:
        model: on the device that it is to be primed on. Tasks without a head get one.
        tasks: the source tasks.
        algorithm: by default :class:`~pemeta.MetaPriming` with the paper's settings.
        seed: of the heads, the episodes and dropout.
        checkpoint: a safetensors file that the run is saved to now and then and when it is interrupted, and that
            the same call, on a model with the same initial values, continues from; the state before is kept beside it.
            Remove both when you have saved what came of it (:func:`~pemeta.training.checkpoints.remove_checkpoint`).
        checkpoint_every: outer steps between two checkpoints; 100, our choice.
        not_finite: ``stop`` with an error where a loss or gradient is not finite (our choice), or ``skip`` that step
            and count it in the history; ten in a row end the run.
        progress: show a progress bar with the losses, sentences per second and time left.

    Raises:
        DataError: a task has fewer sentences than an episode needs.
        TrainingError: a loss is not finite; the step is named.
        OutputError: the checkpoint cannot be written, or is of another run, whose difference is named.
        ConfigError: ``not_finite`` or ``checkpoint_every`` is none of the possible values, or processes that share the
            run have not the same model, data and settings.
        KeyboardInterrupt: the run was interrupted, between two steps and after saving.
    """
    algorithm = algorithm or MetaPriming()
    algorithm.require()
    check_choices(not_finite, checkpoint_every)
    sampler = algorithm.sampler(tasks, seed)
    algorithm.prepare(model, seed)
    for task in tasks:
        if task.name not in model.tasks:
            model.add_head(task.name, task.make_head, seed)
    with (
        modes_kept(model),
        seeded(seed, "priming", device=model.device),
        only_trainable(model, algorithm.trained(model)) as trained,
    ):
        optimization = Optimization(
            trained.values(),
            algorithm.outer_lr,
            algorithm.outer_steps,
            algorithm.weight_decay,
            algorithm.warmup_steps,
            algorithm.max_grad_norm,
            LossScale.suited_to(model.autocast_dtype),
        )
        path = None if checkpoint is None else Path(checkpoint)
        run = _Run(model, sampler, algorithm, optimization, seed, path, checkpoint_every, not_finite)
        try:
            return run.to_the_end(progress)
        finally:
            optimization.zero_grad()


@dataclass
class _Run:
    """One priming run's parts, between :func:`prime`'s preparation and its end."""

    model: PEModel
    sampler: EpisodeSampler
    algorithm: PrimingAlgorithm
    optimization: Optimization
    seed: int
    path: Path | None
    checkpoint_every: int
    not_finite: NotFinite
    checkpoint: Checkpoint | None = None
    history: PrimingHistory = field(default_factory=PrimingHistory)
    processes: Processes = field(default_factory=Processes)

    def to_the_end(self, progress: bool) -> PrimingHistory:
        """Take the outer steps that are left."""
        progress = progress and self.processes.first
        self.resume()
        note = self.algorithm.note(self.model)
        if progress and note is not None:
            tqdm.write(note, file=sys.stderr)
        started = time.perf_counter() - self.history.seconds
        done, total = self.done, self.algorithm.outer_steps
        with (
            deferred_interrupt() as interrupted,
            tqdm(
                total=total,
                initial=done,
                desc="priming",
                unit="step",
                disable=None if progress else True,
                dynamic_ncols=True,
            ) as bar,
        ):
            for step in range(done, total):
                before = time.perf_counter()
                sentences = self.step(step)
                bar.set_postfix_str(self.postfix(sentences / (time.perf_counter() - before)), refresh=False)
                bar.update()
                self.history.seconds = time.perf_counter() - started
                if self.processes.any(interrupted()):
                    self.save()
                    raise KeyboardInterrupt(f"priming stopped after step {step + 1} of {total}")
                # Of several processes the first one's clock counts.
                if step + 1 < total and self.processes.any(self.processes.first and self.is_due(step + 1)):
                    self.save()
        if self.processes.size > 1:
            self.processes.check_same(state_digest(self.model), "primed parameters")
        return self.history

    @property
    def done(self) -> int:
        """Outer steps that were taken or left out."""
        return len(self.history.losses) + len(self.history.skipped)

    def step(self, number: int) -> int:
        """One outer step; returns the number of sentences it saw."""
        episodes = self.sampler[number]
        scale, heads = self.optimization.scale, self.model.partition().theta_h
        before = self.model.state(heads) if scale.value > 1 or self.not_finite == "skip" else {}
        sentences = sum(map(len, episodes))
        while True:
            self.optimization.zero_grad()
            try:
                losses = self.gradient(episodes)
                self.processes.each(self.optimization.step)
                self.history.losses.append(losses)
                self.history.sentences += sentences
                return sentences
            except NotFiniteError as error:  # in float16 perhaps only because the losses were scaled too high
                self.model.load_state(before)
                if scale.lower():
                    continue
                if self.not_finite == "stop":
                    raise TrainingError(f"priming, step {number + 1}: {error}") from None
                self.skip(number + 1, error)
                return sentences

    def gradient(self, episodes: Sequence[Episode]) -> StepLosses:
        """The meta-batch's gradient and its tasks' new heads, in every process; each computes those of its share."""
        own, scale = self.processes.share(episodes), self.optimization.scale.value
        found = self.processes.all(
            lambda: (len(own), self.algorithm.accumulate(self.model, own, scale)) if own else (0, StepLosses((), 0.0))
        )
        self.processes.sum_gradients(self.optimization.parameters)
        self._exchange_heads(episodes)
        if self.processes.size == 1:
            return found[0][1]
        parts = [(size / len(episodes), losses) for size, losses in found if size]
        inner = zip(*([share * loss for loss in losses.inner] for share, losses in parts), strict=True)
        return StepLosses(tuple(map(sum, inner)), sum(share * losses.outer for share, losses in parts))

    def _exchange_heads(self, episodes: Sequence[Episode]) -> None:
        """Give every process the heads that the inner loops of others have adapted."""
        if self.processes.size == 1:
            return
        trained = set(map(id, self.optimization.parameters))
        for index, episode in enumerate(episodes):
            head = self.model.head(episode.task.name).parameters()
            self.processes.copy_from(self.processes.owner(index), [p for p in head if id(p) not in trained])

    def skip(self, number: int, error: NotFiniteError) -> None:
        """Leave a step out; the schedule waits.

        Raises:
            TrainingError: it is one of too many in a row.
        """
        self.history.skipped.append(number)
        if too_many(self.history.skipped):
            raise TrainingError(f"priming, step {number}, like the {MOST_SKIPPED - 1} before it: {error}") from None

    def postfix(self, speed: float) -> str:
        """Losses and speed for the progress bar."""
        if not self.history.losses:
            return f"{len(self.history.skipped)} left out"
        last = self.history.losses[-1]
        inner = f"inner {last.inner[0]:.3f}→{last.inner[-1]:.3f}, " if last.inner else ""
        return f"{inner}outer {last.outer:.3f}, {speed:.0f} sentences/s"

    def is_due(self, step: int) -> bool:
        """Whether the state after a step is to be saved."""
        return self.checkpoint is not None and self.checkpoint.due(step, self.checkpoint_every)

    def save(self) -> None:
        """Write the checkpoint, where one was asked for."""
        checkpoint = self.checkpoint
        if checkpoint is not None:
            self.processes.only_first(
                lambda: checkpoint.save(self.model.state(), self.optimization, self.history.to_json())
            )

    def resume(self) -> None:
        """Continue from the checkpoint, where there is one."""
        if self.path is None and self.processes.size == 1:
            return
        identity = self.identity()
        self.processes.check_same(identity, "model, data or settings")
        if self.path is None:
            return
        self.checkpoint = Checkpoint(self.path, identity, self.model.device)
        found = self.processes.all(self._restored)
        if any(done != found[0] for done in found):
            raise OutputError(f"not all processes can read {self.path}; use a folder that all machines share")

    def _restored(self) -> int:
        """The number of steps done, by the checkpoint."""
        assert self.checkpoint is not None  # or there is nothing to restore
        found = self.checkpoint.load(self.optimization)
        if found is not None:
            values, history = found
            try:
                self.model.load_state(values)
                self.history = PrimingHistory.from_json(history)
            except (ModelError, KeyError, TypeError, AttributeError) as error:
                raise OutputError(f"cannot continue from {self.path}: {error}; remove it to start again") from None
        return self.done

    def identity(self) -> dict[str, Any]:
        """All that must not change between a checkpoint and its continuation, the initial values included."""
        tasks = self.sampler.tasks
        return {
            "settings": self.algorithm.to_config(),
            "methods": [method.to_config() for method in self.model.attached],
            "data": {task.name: task.train.digest() for task in tasks},
            "heads": {task.name: task.head_config for task in tasks},
            "initial values": state_digest(self.model),
            "seed": self.seed,
            "precision": str(self.model.autocast_dtype),
        }
