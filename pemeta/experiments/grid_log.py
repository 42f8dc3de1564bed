"""Messages of a grid while it is running, and a file that lists the running stages."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout
from typing_extensions import Self

from pemeta.errors import OutputError, UnwritableError
from pemeta.experiments.backbones import Say
from pemeta.experiments.output_folder import LOCK
from pemeta.experiments.schedule import Schedule
from pemeta.experiments.stage import Outcome, Stage
from pemeta.utils.digests import slug
from pemeta.utils.distributed import Processes
from pemeta.utils.durations import format_duration
from pemeta.utils.files import read_json, remove, write_json, write_text

RUNNING = "running.json"
"""File of an output folder that lists the running stages."""


class GridLog:
    """Notes in the schedule how stages end, and reports it; of several processes, the first one writes.

    Args:
        schedule: schedule of the grid.
        folder: the output folder.
        say: takes one line for each stage that is done.
        warn: takes one line for each stage that failed.
        jobs: number of stages that run at a time.
    """

    def __init__(self, schedule: Schedule, folder: Path, say: Say, warn: Say, jobs: int) -> None:
        self.schedule = schedule
        self._config = schedule.config
        self._folder = folder
        self._say = say
        self._warn = warn
        self._jobs = jobs
        self._writes = Processes().first

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writes:
            remove(self._folder / RUNNING)

    def started(self, stages: Sequence[Stage]) -> None:
        """Record the running stages, so that `pemeta run --dry-run` in another shell can show them."""
        if self._writes:
            names = [stage.describe(self._config) for stage in stages]
            about = {"process": os.getpid(), "since": int(time.time()), "stages": names}
            with suppress(OutputError):  # a full disk ends the grid where something would be lost
                write_json(self._folder / RUNNING, about)

    def ended(self, outcome: Outcome) -> None:
        """Note how a stage ended, and report it."""
        stage = outcome.stage
        if outcome.error is not None and not outcome.fatal:
            self._warn(f"failed: {stage.describe(self._config)}: {outcome.error}")
        self.note(outcome)
        if outcome.error is not None:
            return
        finetunings = self.schedule.finetunings
        done = sum(one in self.schedule.done for one in finetunings)
        count = f"[{done}/{len(finetunings)}] " if stage.target is not None else ""
        left = self.schedule.time_left(self._jobs) if self.schedule.left else "done"
        what = f"{count}{stage.describe(self._config, done=True)}"
        self._say(f"{what}: {outcome.result} ({format_duration(outcome.seconds)}; {left})")

    def note(self, outcome: Outcome) -> None:
        """Note how a stage ended, and write the traceback of an unexpected error.

        Raises:
            UnwritableError: nothing can be written any more.
        """
        if outcome.error is None:
            self.schedule.finish(outcome.stage, outcome.seconds)
            return
        if outcome.fatal:
            raise UnwritableError(outcome.error)
        self.schedule.fail(outcome.stage, outcome.error, outcome.diverged)
        if outcome.details is not None and self._writes:
            path = self._folder / "errors" / f"{slug(outcome.stage.describe(self._config))}.txt"
            write_text(path, outcome.details)
            self._warn(f"the traceback is in {path}")


def running_elsewhere(folder: Path) -> list[str]:
    """A line about the stages that another process is running in an output folder, if there is one."""
    try:
        found = read_json(folder / RUNNING)
        line = f"being done by process {found['process']}: {', '.join(found['stages'])}"
    except (OutputError, KeyError, TypeError):
        return []
    try:
        with FileLock(folder / LOCK, timeout=0):
            return []  # that process was killed
    except Timeout:
        return [line]
    except OSError:  # the folder is read-only, so that nothing is known of its lock
        return []
