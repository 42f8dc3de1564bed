"""The outer loop of Algorithm 1: from a pretrained model to a primed one."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from pemeta.algorithms import MetaPriming, PrimingAlgorithm, StepLosses
from pemeta.checkpoint import load_checkpoint, save_checkpoint
from pemeta.errors import NotFiniteError, OutputError, PemetaError, TrainingError
from pemeta.heads import HeadSpec
from pemeta.interrupts import deferred_interrupt
from pemeta.model import PEModel
from pemeta.optimization import LossScale, Optimization
from pemeta.partition import modes_kept, only_trainable, state_digest
from pemeta.results import config_digest
from pemeta.seeding import seeded
from pemeta.tasks import EpisodeSampler, Task


@dataclass
class PrimingHistory:
    """What happened in a priming run.

    Attributes:
        losses: of each outer step.
        seconds: wall time, over all the sessions that the run took.
        sentences: support and query sentences seen.
    """

    losses: list[StepLosses] = field(default_factory=list)
    seconds: float = 0.0
    sentences: int = 0

    def to_json(self) -> dict[str, Any]:
        """A JSON value that :meth:`from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> PrimingHistory:
        """The inverse of :meth:`to_json`."""
        losses = [StepLosses(tuple(step["inner"]), step["outer"]) for step in value["losses"]]
        return cls(losses, value["seconds"], value["sentences"])


def prime(
    model: PEModel,
    tasks: Sequence[Task],
    algorithm: PrimingAlgorithm | None = None,
    *,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 100,
    progress: bool = True,
) -> PrimingHistory:
    """Prime a model, in place, on source tasks (paper, Algorithm 1).

    Afterwards the model holds θ_p* and θ_a*, and each source task's last head.

    Args:
        model: on the device that it is to be primed on. Tasks without a head get one.
        tasks: the source tasks.
        algorithm: by default :class:`~pemeta.MetaPriming` with the paper's settings.
        seed: of the heads, the episodes and dropout.
        checkpoint: a safetensors file that the run is saved to now and then and when it is interrupted, and that
            the same call, on a model with the same initial values, continues from. Remove it when you have saved
            what came of it.
        checkpoint_every: outer steps between two checkpoints.
        progress: show a progress bar with the losses, sentences per second and time left.

    Raises:
        DataError: a task has fewer sentences than an episode needs.
        TrainingError: a loss is not finite; the step is named.
        OutputError: the checkpoint cannot be written, or is of another run.
        KeyboardInterrupt: the run was interrupted, between two steps and after saving.
    """
    algorithm = algorithm or MetaPriming()
    algorithm.require()
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
        run = _Run(model, sampler, algorithm, optimization, seed, path, checkpoint_every)
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
    checkpoint: Path | None
    checkpoint_every: int
    digest: str = ""
    history: PrimingHistory = field(default_factory=PrimingHistory)

    def to_the_end(self, progress: bool) -> PrimingHistory:
        """Take the outer steps that are left."""
        self.resume()
        note = self.algorithm.note(self.model)
        if progress and note is not None:
            tqdm.write(note, file=sys.stderr)
        started = time.perf_counter() - self.history.seconds
        done, total = len(self.history.losses), self.algorithm.outer_steps
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
                if interrupted():
                    self.save()
                    raise KeyboardInterrupt(f"priming stopped after step {step + 1} of {total}")
                if (step + 1) % self.checkpoint_every == 0 and step + 1 < total:
                    self.save()
        return self.history

    def step(self, number: int) -> int:
        """One outer step; returns the number of sentences it saw."""
        episodes = self.sampler[number]
        scale, heads = self.optimization.scale, self.model.partition().theta_h
        before = self.model.state(heads) if scale.value > 1 else {}
        while True:
            self.optimization.zero_grad()
            try:
                losses = self.algorithm.accumulate(self.model, episodes, scale.value)
                self.optimization.step()
                break
            except NotFiniteError as error:  # in float16 perhaps only because the losses were scaled too high
                self.model.load_state(before)
                if not scale.lower():
                    raise TrainingError(f"priming, step {number + 1}: {error}") from None
        sentences = sum(map(len, episodes))
        self.history.losses.append(losses)
        self.history.sentences += sentences
        return sentences

    def postfix(self, speed: float) -> str:
        """Losses and speed for the progress bar."""
        last = self.history.losses[-1]
        inner = f"inner {last.inner[0]:.3f}→{last.inner[-1]:.3f}, " if last.inner else ""
        return f"{inner}outer {last.outer:.3f}, {speed:.0f} sentences/s"

    def save(self) -> None:
        """Write the checkpoint, where one was asked for."""
        if self.checkpoint is not None:
            about = {"digest": self.digest, "history": self.history.to_json()}
            save_checkpoint(self.checkpoint, self.model, self.optimization, about)

    def resume(self) -> None:
        """Continue from the checkpoint, where there is one."""
        if self.checkpoint is None:
            return
        self.digest = self.find_digest()
        if not self.checkpoint.exists():
            return
        try:
            about = load_checkpoint(self.checkpoint, self.model, self.optimization, self.digest)
            self.history = PrimingHistory.from_json(about["history"])
        except OutputError:
            raise
        except (PemetaError, KeyError, TypeError, AttributeError) as error:
            raise OutputError(f"cannot continue from {self.checkpoint}: {error}; remove it to start again") from None

    def find_digest(self) -> str:
        """Of all that must not change between a checkpoint and its continuation, the initial values included."""
        data = [(task.name, task.train.digest(), _described(task)) for task in self.sampler.tasks]
        methods = [method.to_config() for method in self.model.attached]
        precision = str(self.model.autocast_dtype)
        return config_digest(
            [self.algorithm.to_config(), methods, data, state_digest(self.model), self.seed, precision]
        )


def _described(task: Task) -> dict[str, Any] | None:
    """How a task's head is made, where that can be told: two heads of the same shape may still compute otherwise."""
    return task.make_head.to_config() if isinstance(task.make_head, HeadSpec) else None
