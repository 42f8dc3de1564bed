"""The one training loop: steps, validation, non-finite policy, interrupts and processes; all else is a callback."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import torch
from typing_extensions import TypedDict

from pemeta.errors import ConfigError, NotFiniteError, TrainingError, reason
from pemeta.training.callbacks.base import Callback, StepReport, TrainingState
from pemeta.training.callbacks.checkpointer import Checkpointer
from pemeta.training.callbacks.progress import ProgressBar
from pemeta.training.job import Gradient, Job
from pemeta.training.optimizer import MOST_SKIPPED, NotFinite, check_choices, too_many
from pemeta.training.phase_clock import PhaseClock
from pemeta.utils.devices import peak_memory
from pemeta.utils.distributed import Processes
from pemeta.utils.messages import warn
from pemeta.utils.phases import observed
from pemeta.utils.signals import Stopped, deferred_interrupt


class LoopOptions(TypedDict, total=False):
    """Options that every training run has, as keyword arguments of :func:`pemeta.prime` and :func:`pemeta.finetune`.

    Attributes:
        checkpoint: A safetensors file that the run is saved to now and then and when it is interrupted, and that the
            same call, on a model with the same initial values, continues from; the state before is kept beside it.
            None, the default, for none. Remove both when the result is saved
            (:func:`~pemeta.training.checkpoints.remove_checkpoint`).
        checkpoint_every: Steps between two checkpoints; 100, our choice.
        not_finite: ``stop`` with an error if a loss or gradient is not finite (our choice), or ``skip`` that step and
            count it in the history; ten in a row end the run.
        progress: Show a progress bar with losses and speed; on.
        callbacks: What else happens during training (:class:`~pemeta.training.callbacks.Callback`); nothing.
    """

    checkpoint: str | Path | None
    checkpoint_every: int
    not_finite: NotFinite
    progress: bool
    callbacks: Sequence[Callback]


def check_options(options: LoopOptions) -> None:
    """Refuse values that options cannot have.

    Raises:
        ConfigError: ``not_finite``, ``checkpoint_every`` or ``checkpoint`` is none of the possible values.
    """
    check_choices(options.get("not_finite", "stop"), options.get("checkpoint_every", 100))
    checkpoint = options.get("checkpoint")
    if checkpoint is not None and (not Path(checkpoint).name or Path(checkpoint).is_dir()):
        what = "the folder " if checkpoint else ""
        raise ConfigError(f"checkpoint must be a file to write to; found {what}{str(checkpoint)!r}; add a file's name")


class Loop:
    """Trains a job to its end.

    Args:
        job: What is trained.
        device: Where.
        options: Checked before with :func:`check_options`.
        own: Callbacks of the job itself, which come before the user's.
        processes: Those that train together; by default this one alone.
        started: :func:`time.perf_counter` when the work began; now, by default.
    """

    def __init__(
        self,
        job: Job,
        device: torch.device,
        options: LoopOptions,
        own: Sequence[Callback] = (),
        processes: Processes | None = None,
        started: float | None = None,
    ) -> None:
        self.job, self.device = job, device
        self.processes = processes or Processes.alone()
        self.not_finite: NotFinite = options.get("not_finite", "stop")
        self.started = time.perf_counter() if started is None else started
        path = options.get("checkpoint")
        every = options.get("checkpoint_every", 100)
        self.checkpointer = Checkpointer(job, None if path is None else Path(path), every, device, self.processes)
        bar = [ProgressBar(keep=job.kind == "priming")] if options.get("progress", True) else []
        self.callbacks: list[Callback] = [*bar, *own, *options.get("callbacks", ())]
        self.state = job.state = TrainingState(
            kind=job.kind,
            name=job.name,
            unit=job.unit,
            total=job.total,
            settings=job.settings(),
            writes=self.processes.first,
        )
        self._phases = PhaseClock()
        self._ends = ExitStack()  # of every callback that has started, whatever another one's end does

    def run(self) -> TrainingState:
        """Do the steps that are left.

        Raises:
            TrainingError: A loss, gradient or score is not finite; the step is named.
            OutputError: The checkpoint cannot be written, or belongs to another run.
            KeyboardInterrupt: The run was interrupted, between two steps and after saving.
        """
        state = self.state
        try:
            with deferred_interrupt() as interrupted, observed(self._phases):
                self._start()
                self.started -= state.seconds
                left = True
                while left:
                    left = self._advance()
                    if self.processes.any(interrupted()):
                        self._interrupt()
            state.seconds = time.perf_counter() - self.started
            state.outcome = "stopped early" if state.stop_reason else "finished"
        except BaseException as error:
            state.outcome = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            self._close()
            raise
        self.processes.each(self._close)
        return state

    def _close(self) -> None:
        """Put the values in the model that are kept, and report the end to all callbacks that have started."""
        with self._ends:
            self.job.optimization.zero_grad()
            self.job.end()

    def _start(self) -> None:
        """Continue from the checkpoint, and start the callbacks; the first of them ends last."""
        self.checkpointer.on_start(self.state)  # before the others, which start from what it holds

        def start() -> None:
            for callback in self.callbacks:
                self._ends.callback(self._end, callback)  # also if it cannot start
                callback.on_start(self.state)

        self.processes.each(start)

    def _end(self, callback: Callback) -> None:
        """Report the end to a callback, whose error does not hide the one that has ended the run."""
        try:
            callback.on_end(self.state)
        except Exception as error:
            if self.state.outcome in ("finished", "stopped early"):
                raise
            warn(f"{type(callback).__name__} failed at the end of {self.state.name}: {reason(error)}")

    def _advance(self) -> bool:
        """Validate or take a step, whichever is next; False if nothing is left to do."""
        state = self.state
        if self.processes.any(state.stop_reason is not None) and state.stop_reason is None:
            state.request_stop("a callback in another process requested it")
        if self.job.validation_due():
            self._validate()
            return True
        if state.step >= state.total or state.stop_reason is not None:
            return False
        self._step()
        return True

    def _emit(self, event: Callable[[Callback, TrainingState], None]) -> None:
        """Call every callback's method of an event, and save a checkpoint if one is due or was requested."""

        def call() -> None:
            for callback in self.callbacks:
                getattr(callback, event.__name__)(self.state)

        self.processes.each(call)  # what one raises in one process ends the run in all
        if event is not Callback.on_checkpoint:
            saved = self.state.saves
            getattr(self.checkpointer, event.__name__)(self.state)
            if self.state.saves > saved:
                self._emit(Callback.on_checkpoint)

    def _interrupt(self) -> NoReturn:
        """Save, and leave."""
        state, saved = self.state, self.state.saves
        self.checkpointer.save(state)
        if state.saves > saved:
            self._emit(Callback.on_checkpoint)
        raise Stopped(f"{state.name} stopped after step {state.step} of {state.total}")

    def _validate(self) -> None:
        try:
            found = self.job.validate()
        except Stopped:  # a fine-tuning within priming: priming is what is interrupted
            self._interrupt()
        except NotFiniteError as error:  # compared with others it would be neither better nor worse
            raise TrainingError(f"{self.job.where(self.state.step - 1)}: {error}") from None
        self.state.validations.append(found)
        self.state.seconds = time.perf_counter() - self.started
        self._emit(Callback.on_validation)

    def _step(self) -> None:
        """Take the next step, or skip it."""
        state, begun = self.state, time.perf_counter()
        rate = self.job.optimization.learning_rate
        self._phases.clear()
        skipped, norm, gradient = None, None, Gradient({}, 0, 0)
        try:
            gradient, norm = self._update(state.step)
        except NotFiniteError as error:
            self._skip(state.step, error)
            skipped = str(error)
        state.step += 1
        state.last = StepReport(
            number=state.step,
            losses=gradient.losses,
            learning_rate=rate,
            gradient_norm=norm,
            seconds=time.perf_counter() - begun,
            examples=gradient.examples,
            tokens=gradient.tokens,
            memory=peak_memory(self.device),
            phases=dict(self._phases.seconds),
            skipped=skipped,
        )
        state.summary = self.job.summary(state.last)
        state.seconds = time.perf_counter() - self.started
        self._emit(Callback.on_step)

    def _update(self, number: int) -> tuple[Gradient, float]:
        """Gradient and update of a step, tried again while only float16's loss scale was too high.

        Raises:
            NotFiniteError: A loss or gradient is not finite; everything is as it was before the step.
        """
        job = self.job
        scale = job.optimization.scale
        before = job.before_step() if scale.value > 1 or self.not_finite == "skip" else {}
        while True:
            job.optimization.zero_grad()
            try:
                gradient = job.gradient(number)
                norm = self.processes.each(job.optimization.step)
            except NotFiniteError:
                job.undo(before)
                if not scale.lower():
                    raise
            else:
                job.taken(gradient)
                return gradient, norm

    def _skip(self, number: int, error: NotFiniteError) -> None:
        """Skip a step; the schedule waits.

        Raises:
            TrainingError: Steps are not to be skipped, or too many in a row were.
        """
        if self.not_finite == "stop":
            raise TrainingError(f"{self.job.where(number)}: {error}") from None
        self.state.skipped.append(number + 1)
        if too_many(self.state.skipped):
            like = f"step {number + 1}, like the {MOST_SKIPPED - 1} before it"
            raise TrainingError(f"{self.state.name}, {like}: {error}") from None
