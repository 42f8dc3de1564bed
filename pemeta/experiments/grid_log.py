"""What a run tells while it is at work: lines for people, and a file of what is being done."""

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
from pemeta.experiments.config import GridConfig
from pemeta.experiments.schedule import Schedule
from pemeta.experiments.stage import Outcome, Stage
from pemeta.utils.digests import slug
from pemeta.utils.distributed import Processes
from pemeta.utils.durations import format_duration
from pemeta.utils.files import read_json, remove, write_json, write_text

RUNNING = "running.json"
"""File of a run's folder that tells what is being done."""
LOCK = ".run.lock"
"""File of a run's folder that is locked while the run is at work."""


class GridLog:
    """Takes down in the plan how stages end, and tells; of several processes the first one writes.

    Args:
        config: of the run; nothing is left to search.
        schedule: of its stages.
        folder: of the run.
        say: takes one line for each thing that is done.
        jobs: stages that are done at a time.
    """

    def __init__(self, config: GridConfig, schedule: Schedule, folder: Path, say: Say, jobs: int) -> None:
        self.config = config
        self.schedule = schedule
        self.folder = folder
        self.say = say
        self.jobs = jobs
        self._writes = Processes().first

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writes:
            remove(self.folder / RUNNING)

    def begun(self, stages: Sequence[Stage]) -> None:
        """Write down what is being done, for who looks at the run from elsewhere."""
        if self._writes:
            names = [stage.words(self.config) for stage in stages]
            about = {"process": os.getpid(), "since": int(time.time()), "stages": names}
            with suppress(OutputError):  # a full disk ends the run where something is lost
                write_json(self.folder / RUNNING, about)

    def ended(self, outcome: Outcome) -> None:
        """Take down how a stage ended, and tell."""
        words = outcome.stage.words(self.config)
        if outcome.error is not None and not outcome.fatal:
            self.say(f"failed: {words}: {outcome.error}")
        self.take_down(outcome)
        if outcome.error is not None:
            return
        finetunings = self.schedule.finetunings
        left = self.schedule.time_left(self.jobs) if self.schedule.left else "done"
        begin = (
            f"[{sum(cell in self.schedule.done for cell in finetunings)}/{len(finetunings)}] "
            if outcome.stage.target
            else "done: "
        )
        self.say(f"{begin}{words}: {outcome.result} ({format_duration(outcome.seconds)}; {left})")

    def take_down(self, outcome: Outcome) -> None:
        """Take down how a stage ended, and write the traceback of what was not foreseen.

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
            path = self.folder / "errors" / f"{slug(outcome.stage.words(self.config))}.txt"
            write_text(path, outcome.details)
            self.say(f"the traceback is in {path}")


def running_elsewhere(folder: Path) -> list[str]:
    """What another process is doing in a run's folder."""
    try:
        found = read_json(folder / RUNNING)
        words = f"being done by process {found['process']}: {', '.join(found['stages'])}"
    except (OutputError, KeyError, TypeError):
        return []
    try:
        with FileLock(folder / LOCK, timeout=0):
            return []  # it was killed
    except Timeout:
        return [words]
    except OSError:  # a folder that cannot be written to; who works in it cannot be known
        return []
