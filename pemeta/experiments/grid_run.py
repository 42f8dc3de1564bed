"""One grid with all values given: its stages are done one after the other, by workers, or by processes together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import yaml

from pemeta.errors import FailedRunsError, counted
from pemeta.experiments.backbones import Home, Say
from pemeta.experiments.config import GridConfig, Run
from pemeta.experiments.data_check import check_data
from pemeta.experiments.executor import Executor
from pemeta.experiments.grid_log import GridLog, running_elsewhere
from pemeta.experiments.output_folder import OutputFolder
from pemeta.experiments.schedule import Schedule
from pemeta.experiments.stage import Outcome, Stage
from pemeta.experiments.workers import Workers
from pemeta.reporting.records import Record
from pemeta.training.callbacks import TRACKERS
from pemeta.utils.distributed import Processes
from pemeta.utils.durations import format_duration
from pemeta.utils.files import write_text
from pemeta.utils.messages import warn
from pemeta.utils.signals import deferred_interrupt

MAX_NAMED = 3
"""Number of reasons of failed runs that an error lists before it only counts them."""


@dataclass(frozen=True)
class Options:
    """How grids are run, whatever their configuration.

    Attributes:
        say: takes one line for each thing that is done; silent in all but the first of several processes.
        say_own: the same for what each of several processes does by itself.
        warn: takes one line for each run that failed; silent like ``say``.
        warn_own: the same for what each of several processes does by itself.
        progress: show progress bars, where only one stage runs at a time.
        jobs: number of stages that run at a time.
        devices: devices that they compute on, in turn; the configuration's if empty.
        home: where a backbone is that is pretrained here.
        log: file that gets a line of JSON for each event of each run; None for none.
    """

    say: Say
    say_own: Say
    warn: Say
    warn_own: Say
    progress: bool
    jobs: int
    devices: tuple[str, ...]
    home: Home
    log: Path | None = None


class GridRun:
    """A grid in its output folder.

    Args:
        config: configuration of the grid, with nothing left to search.
        options: how it is run.
        given: the configuration before values were chosen by a search; ``config`` by default.
    """

    def __init__(self, config: GridConfig, options: Options, given: GridConfig | None = None) -> None:
        self.config = config
        self._given = given or config
        self._options = options
        self._processes = Processes()
        device = next(iter(options.devices), None)
        self._executor = Executor(config, options.say, options.progress, device, options.home, options.log)
        self._last: Schedule | None = None

    @property
    def folder(self) -> OutputFolder:
        """The grid's output folder."""
        return self._executor.folder

    def schedule(self) -> Schedule:
        """The grid's stages, with the progress that the output folder shows now."""
        return Schedule.of(self.folder)

    def progress(self, schedule: Schedule) -> list[str]:
        """The progress of the grid, as lines of text."""
        return [*schedule.table(self._options.jobs), *running_elsewhere(self.folder.path)]

    def records(self) -> list[Record]:
        """The records of the runs that are finished."""
        return [record for run in self.config.runs if (record := self.folder.finished(run)) is not None]

    def diverged(self) -> set[Run]:
        """The fine-tuning runs whose training failed when the grid was last run by this object."""
        return {stage.run for stage in self._last.diverged if stage.target is not None} if self._last else set()

    def run(self, check: Callable[[Sequence[Run]], None]) -> None:
        """Do every stage without a result.

        Args:
            check: checks the data of runs before the first of them starts.

        Raises:
            FailedRunsError: stages ended with an error; all others are done.
            OutputError: the output folder cannot be written, or a file in it cannot be read.
        """
        self._last = schedule = self._processes.all(self.schedule)[0]
        if done := sum(stage in schedule.done for stage in schedule.finetunings):
            are = "is" if done == 1 else "are"
            self._options.say(f"{done} of {counted(len(schedule.finetunings), 'run')} {are} done already")
        if schedule.left:
            self._processes.only_first(self._executor.builder.prepare)  # once, and not by several processes
            runs = [stage.run for stage in schedule.finetunings if stage in schedule.left]
            self._processes.each(lambda: check(runs))
        self._processes.only_first(lambda: self._begin(schedule))
        options = self._options
        with GridLog(schedule, self.folder.path, options.say, options.warn, options.jobs) as log:
            if self._processes.size > 1:
                self._run_together(log)
            elif options.jobs > 1 and len(schedule.left) > 1:
                self._run_in_workers(log)
            else:
                self._run_in_order(log)
        self._processes.only_first(lambda: self.folder.remove_checkpoints(schedule.done))
        omitted = [name for name in self._given.settings if name not in self.config.settings]
        self._processes.only_first(lambda: _check_success(schedule, omitted))

    def check_data(self, runs: Sequence[Run]) -> None:
        """Read and encode the data of some runs, and report what was truncated."""
        check_data(self._executor.builder, runs)

    def _begin(self, schedule: Schedule) -> None:
        """Write ``config.yaml``: only after all checks, so that the last good one stays beside its records."""
        resolved = self._given.model_dump(mode="json")
        text = yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)
        write_text(self.folder.path / "config.yaml", text)
        self.folder.remove_checkpoints(schedule.done)
        for name in self.config.trackers if schedule.left else ():
            if why := TRACKERS[name].missing():
                warn(why, once=True)

    def _run_in_order(self, log: GridLog) -> None:
        """Do one stage after the other in this process."""
        last = None
        while (stage := log.schedule.next(last=last)) is not None:
            log.started([stage])
            log.ended(self._executor.perform(stage))
            last = stage

    def _run_together(self, log: GridLog) -> None:
        """Do priming runs by all processes together, and then fine-tuning runs, a share in each process."""
        for stage in log.schedule.primings:
            if stage in log.schedule.left:
                log.started([stage])
                own = self._executor.perform(stage)  # not within `all`: where it raises, others wait elsewhere
                outcomes = self._processes.all(lambda own=own: own)  # type: ignore[misc]
                log.ended(next((outcome for outcome in outcomes if outcome.error is not None), outcomes[0]))
        left = log.schedule.left
        log.started(left)
        for outcome in chain(*self._processes.all(lambda: self._own_share(self._processes.block(left)))):
            log.note(outcome)

    def _own_share(self, stages: Sequence[Stage]) -> list[Outcome]:
        """Do some fine-tuning runs as one of several processes; none after one that could not be written."""
        outcomes: list[Outcome] = []
        for stage in stages:
            outcome = self._executor.perform(stage)
            outcomes.append(outcome)
            what = f"process {self._processes.rank}: {stage.describe(self.config)}"
            if outcome.error:
                self._options.warn_own(f"{what}: failed: {outcome.error}")
            else:
                self._options.say_own(f"{what}: {outcome.result} ({format_duration(outcome.seconds)})")
            if outcome.fatal:
                break
        return outcomes

    def _run_in_workers(self, log: GridLog) -> None:
        """Do several stages at a time, each in a worker process."""
        options = self._options
        workers = Workers(self.config, options.jobs, options.devices, options.home, options.log)
        with deferred_interrupt() as interrupted, workers:
            asked = False
            while log.schedule.left or workers.running:
                if interrupted() and not asked:
                    workers.interrupt()
                    asked = True
                if asked and not workers.running:
                    raise KeyboardInterrupt("stopped")
                if not asked and _assign(log.schedule, workers):
                    log.started(workers.running)
                for message in workers.receive(timeout=0.5):
                    if isinstance(message, str):
                        options.say(message)
                    elif not (asked and message.error):  # it was asked to stop
                        log.ended(message)


def _assign(schedule: Schedule, workers: Workers) -> bool:
    """Give each idle worker a stage that can start; whether there was any."""
    assigned = False
    for number, last in workers.idle:
        stage = schedule.next(workers.running, last)
        if stage is not None:
            workers.assign(number, stage)
            assigned = True
    return assigned


def _check_success(schedule: Schedule, omitted: Sequence[str]) -> None:
    """Raise FailedRunsError if stages failed, or settings were omitted."""
    failures = []
    if omitted:
        failures.append(f"{', '.join(omitted)} could not be run, because runs of their search failed")
    if schedule.failed:
        failures.append(_failures(schedule))
    if failures:
        raise FailedRunsError(
            f"{'; '.join(failures)}; finished runs are saved, and the same command tries the others again"
        )


def _first_of(stages: Sequence[str]) -> str:
    return stages[0] if len(stages) == 1 else f"{stages[0]}, and {len(stages) - 1} more"


def _failures(schedule: Schedule) -> str:
    """The reasons of failures, the first few by name."""
    lost = sum(stage.target is not None for stage in {*schedule.failed, *schedule.given_up})
    by_reason: dict[str, list[str]] = {}
    for stage, why in schedule.failed.items():
        by_reason.setdefault(why, []).append(stage.describe(schedule.config))
    named = [f"{why} ({_first_of(stages)})" for why, stages in by_reason.items()]
    more = f"; and {counted(len(named) - MAX_NAMED, 'other reason')}" if len(named) > MAX_NAMED else ""
    return f"{'; '.join(named[:MAX_NAMED])}{more}: {lost} of {counted(len(schedule.finetunings), 'run')} failed"
