"""A log of training runs as lines of JSON, for programs that watch a run from outside."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from copy import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pemeta.errors import OutputError, reason
from pemeta.training.callbacks.base import Callback, TrainingState
from pemeta.utils.messages import warn
from pemeta.utils.signatures import checked


@checked()
class JsonLog(Callback):
    """One JSON object a line for each event: start, step, validation, checkpoint, end.

    Every line has ``time`` (seconds since 1970), ``process``, ``run`` and ``event``. Lines are appended whole, so that
    several processes may share a file. A file that can no longer be written is reported once and not written to from
    then on, and the run goes on. Numbers that are not finite, such as a perplexity beyond measure, are null.

    Args:
        path: The file; it is created, or added to.
        run: Name of the run; the training run's own by default.

    Raises:
        OutputError: The file cannot be written now.
    """

    def __init__(self, path: str | Path, run: str | None = None) -> None:
        self.path, self.run = Path(path), run
        self._failed: list[OSError] = []  # one list for the logs of all runs
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.open("a", encoding="utf-8").close()
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have
            raise OutputError(f"cannot write the log {self.path}: {_why(error)}; give another file") from None

    def named(self, run: str) -> JsonLog:
        """The same log for another run; its file is not checked again."""
        other = copy(self)
        other.run = run
        return other

    def on_start(self, state: TrainingState) -> None:
        """Its settings, and how far it is."""
        self._event(state, "start", {"step": state.step, "total": state.total, "settings": dict(state.settings)})

    def on_step(self, state: TrainingState) -> None:
        """The step's report."""
        if state.last is not None:
            report = {**asdict(state.last), "tokens_per_second": state.last.tokens_per_second}
            report["step"] = report.pop("number")
            self._event(state, "step", report)

    def on_validation(self, state: TrainingState) -> None:
        """The validation."""
        self._event(state, "validation", asdict(state.validations[-1]))

    def on_checkpoint(self, state: TrainingState) -> None:
        """The checkpoint's file."""
        self._event(state, "checkpoint", {"step": state.step, "file": str(state.saved)})

    def on_end(self, state: TrainingState) -> None:
        """How the run ended."""
        end = {"step": state.step, "outcome": state.outcome, "reason": state.stop_reason, "seconds": state.seconds}
        self._event(state, "end", end)

    def _event(self, state: TrainingState, event: str, values: Mapping[str, Any]) -> None:
        if state.writes:
            self.write(self.run or state.name, event, values)

    def write(self, run: str, event: str, values: Mapping[str, Any]) -> None:
        """Add a line."""
        if self._failed:
            return
        line = {"time": round(time.time(), 3), "process": os.getpid(), "run": run, "event": event, **_finite(values)}
        try:
            with self.path.open("ab", buffering=0) as file:  # one write a line, which does not mix with another's
                file.write((json.dumps(line, ensure_ascii=False) + "\n").encode())
        except OSError as error:
            self._failed.append(error)
            warn(f"cannot write the log {self.path}: {_why(error)}; no more is logged there", once=True)


def _finite(value: Any) -> Any:
    """A JSON value with null for numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _why(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or reason(error)
