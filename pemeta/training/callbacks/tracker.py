"""Experiment trackers: what a run measures, step by step, in a tool that shows it; they never end a run."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from pemeta.errors import reason
from pemeta.training.callbacks.base import Callback, StepReport, TrainingState
from pemeta.utils.messages import warn
from pemeta.utils.signatures import checked

TRACKERS: dict[str, type[Tracker]] = {}
"""The trackers by the names that configurations call them; a subclass with a ``name`` registers itself."""


@checked()
class Tracker(Callback):
    """A tracker of the numbers in :func:`~pemeta.training.callbacks.tracker.step_numbers` and of every validation.

    One that is not installed, cannot be reached, or fails later is reported in one sentence, once, and not used from
    then on. Of several processes the first one tracks.

    Args:
        folder: Where a tracker that writes files does so; the working directory by default.
        run: Name of the run; the training run's own by default.
        project: Name that the tracker groups runs under.
    """

    name: ClassVar[str]
    """What configurations call it."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Packages that it needs."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" in vars(cls):
            TRACKERS[cls.name] = cls

    def __init__(self, folder: str | Path = ".", run: str | None = None, project: str = "pemeta") -> None:
        self.folder, self.run, self.project = Path(folder), run, project
        self._works = False

    @classmethod
    def missing(cls) -> str | None:
        """Why the tracker cannot be used here, in a sentence; None if it can."""
        absent = [package for package in cls.packages if find_spec(package) is None]
        if not absent:
            return None
        return (
            f"the tracker {cls.name!r} is not used: {' and '.join(absent)} {'are' if len(absent) > 1 else 'is'} not "
            f"installed; run `pip install {' '.join(absent)}`"
        )

    @abstractmethod
    def open(self, run: str, settings: Mapping[str, Any]) -> None:
        """Begin a run.

        Args:
            run: Its name.
            settings: Its settings, by dotted key.
        """

    @abstractmethod
    def log(self, values: Mapping[str, float], step: int) -> None:
        """Record some numbers of a step."""

    def close(self) -> None:
        """End the run."""

    def on_start(self, state: TrainingState) -> None:
        """Begin the run; numbers of a run that continues are added at the steps they belong to."""
        if not state.writes:
            return
        why = self.missing()
        if why is not None:
            warn(why, once=True)
            return
        self._works = True
        self._try(lambda: self.open(self.run or state.name, flat(state.settings)))

    def on_step(self, state: TrainingState) -> None:
        """Record the step."""
        if state.last is not None:
            values = step_numbers(state.last)
            self._try(lambda: self.log(values, state.step))

    def on_validation(self, state: TrainingState) -> None:
        """Record every metric."""
        found = state.validations[-1]
        metrics = {f"validation/{_key(name)}": value for name, value in found.values.items()}
        values = {**metrics, "validation/score": found.score}
        self._try(lambda: self.log(values, found.step))

    def on_end(self, state: TrainingState) -> None:
        """Record the best score, and end the run."""
        best = state.best
        if best is not None:
            self._try(lambda: self.log({"best/score": best.score, "best/step": best.step}, state.step))
        self._try(self.close)
        self._works = False

    def _try(self, action: Callable[[], object]) -> None:
        """Do something with the tracker; what fails there must not end hours of training."""
        if not self._works:
            return
        try:
            action()
        except Exception as error:  # it may raise anything
            self._works = False
            with suppress(Exception):  # a run that stays open would be in the way of the next one
                self.close()
            warn(f"the tracker {self.name!r} is not used any further: {reason(error)}", once=True)


def step_numbers(report: StepReport) -> dict[str, float]:
    """What is recorded of a step: losses, rate, gradient norm, speed, memory, and seconds in each phase."""
    values: dict[str, float] = {f"loss/{name}": value for name, value in report.losses.items()}
    values["learning_rate"] = report.learning_rate
    if report.gradient_norm is not None:
        values["gradient_norm"] = report.gradient_norm
    values["seconds_per_step"] = report.seconds
    values["tokens_per_second"] = report.tokens_per_second
    values["memory_gib"] = report.memory / 2**30
    values.update({f"phase/{_key(name)}": seconds for name, seconds in report.phases.items()})
    values["skipped"] = float(report.skipped is not None)
    return values


def flat(settings: Mapping[str, Any], path: str = "") -> dict[str, bool | int | float | str]:
    """Settings by dotted key, with values that every tracker takes.

    >>> flat({"finetuning": {"lr": 0.001, "warmup_steps": None}, "sources": ["en", "es"]})
    {'finetuning.lr': 0.001, 'finetuning.warmup_steps': 'null', 'sources': 'en, es'}
    """
    found: dict[str, bool | int | float | str] = {}
    for key, value in settings.items():
        where = f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping):
            found |= flat(value, where)
        elif isinstance(value, list | tuple):
            found[where] = ", ".join(map(str, value))
        else:
            found[where] = value if isinstance(value, bool | int | float | str) else "null"
    return found


def _key(name: str) -> str:
    """The name of a phase or a task as a part of a key: MLflow takes no θ."""
    return re.sub(r"[^A-Za-z0-9_./ -]+", "", name.replace("θ", "theta")).strip()
