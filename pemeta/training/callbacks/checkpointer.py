"""Checkpoints of a run: written now and then and when it is interrupted, and continued from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from pemeta.errors import ModelError, OutputError, reason
from pemeta.training.callbacks.base import Callback, TrainingState, Validation
from pemeta.training.checkpoints import Checkpoint
from pemeta.training.job import Job
from pemeta.utils.distributed import Processes
from pemeta.utils.registry import describe


@with_config(ConfigDict(extra="ignore"))
class _Progress(TypedDict):
    """What of a run's state a checkpoint holds, beside what the job adds."""

    step: int
    seconds: float
    skipped: list[int]
    validations: list[Validation]


class Checkpointer(Callback):
    """Writes and reads a run's checkpoint; of several processes the first one writes, and all read.

    Args:
        job: What is trained.
        path: A safetensors file; None for no checkpoints.
        every: Steps between two checkpoints.
        device: The device whose random generators belong to the state.
        processes: Those that train together.
    """

    def __init__(self, job: Job, path: Path | None, every: int, device: torch.device, processes: Processes) -> None:
        self.job, self.path, self.every = job, path, every
        self.device, self.processes = device, processes
        self.checkpoint: Checkpoint | None = None

    def on_start(self, state: TrainingState) -> None:
        """Continue from the checkpoint, if there is one.

        Raises:
            OutputError: It cannot be read, or belongs to another run, whose difference is named.
            ConfigError: The processes have different models, data or settings.
        """
        if self.path is None and self.processes.size == 1:
            return
        identity = self.job.identity()
        self.processes.check_same(identity, "model, data or settings")
        if self.path is None:
            return
        self.checkpoint = Checkpoint(self.path, identity, self.device)
        found = self.processes.all(lambda: self._restore(state))
        if any(step != found[0] for step in found):
            raise OutputError(f"not all processes can read {self.path}; use a folder that all machines share")

    def on_step(self, state: TrainingState) -> None:
        """Save if a checkpoint is due: of several processes the first one's clock counts."""
        checkpoint = self.checkpoint
        if checkpoint is None:
            return
        due = state.step < state.total and self.processes.first and checkpoint.due(state.step, self.every)
        if self.processes.any(due or state.checkpoint_requested):
            self.save(state)

    def on_validation(self, state: TrainingState) -> None:
        """Save if a callback asked for it."""
        if self.checkpoint is not None and self.processes.any(state.checkpoint_requested):
            self.save(state)

    def save(self, state: TrainingState) -> None:
        """Write the state, if the run has a file for it."""
        checkpoint = self.checkpoint
        if checkpoint is None:
            return
        beside = {
            **self.job.progress(),
            "step": state.step,
            "seconds": state.seconds,
            "skipped": state.skipped,
            "validations": [asdict(one) for one in state.validations],
        }
        self.processes.only_first(lambda: checkpoint.save(self.job.values(), self.job.optimization, beside))
        state.saved, state.checkpoint_requested = checkpoint.path, False
        state.saves += 1

    def _restore(self, state: TrainingState) -> int:
        """Put back what the checkpoint holds; returns the number of steps done."""
        assert self.checkpoint is not None  # or there is nothing to restore
        found = self.checkpoint.load(self.job.optimization)
        if found is None:
            return state.step
        values, beside = found
        try:
            progress = _checked(beside, state.total)
            self.job.restore(values, beside)
        except (ModelError, KeyError, TypeError, ValueError, AttributeError) as error:
            why = describe(error) if isinstance(error, ValidationError) else reason(error)
            raise OutputError(f"cannot continue from {self.checkpoint.path}: {why}; remove it to start again") from None
        state.step, state.seconds = progress["step"], progress["seconds"]
        state.skipped, state.validations = progress["skipped"], progress["validations"]
        return state.step


def _checked(beside: Mapping[str, Any], total: int) -> _Progress:
    """A run's progress as a checkpoint has it.

    Raises:
        ValueError: It is not one, or has more steps than the run.
    """
    progress = TypeAdapter(_Progress).validate_python(beside)
    if not 0 <= progress["step"] <= total:
        raise ValueError(f"it is at step {progress['step']} of {total}")
    return progress
