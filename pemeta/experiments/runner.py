"""A whole run: its search, and then its stages, one or several at a time."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from pemeta.errors import ConfigError, FailedRunsError, OutputError
from pemeta.experiments.backbones import Say
from pemeta.experiments.config import GridConfig, Run
from pemeta.experiments.data_check import check_data
from pemeta.experiments.grid_log import LOCK, GridLog, running_elsewhere
from pemeta.experiments.schedule import Schedule
from pemeta.experiments.search import CHOSEN, choose, read_choices, with_choices
from pemeta.experiments.stage import Outcome, Stage
from pemeta.experiments.stages import Stages
from pemeta.experiments.workers import Workers
from pemeta.model.manifest import TASKS
from pemeta.model.task_files import TASK_MANIFEST
from pemeta.reporting.choices import Choice
from pemeta.utils.devices import resolve_device
from pemeta.utils.digests import slug
from pemeta.utils.distributed import Processes, device_of_process
from pemeta.utils.durations import format_duration
from pemeta.utils.files import check_writable, write_json, write_text
from pemeta.utils.signals import deferred_interrupt

MAX_NAMED = 3
"""How many reasons of failed runs an error names before it only counts them."""


class Runner:
    """One run of a configuration, in its output folder.

    The folder holds ``config.yaml`` (the resolved configuration), what :class:`~pemeta.experiments.stages.Stages`
    writes, ``search/`` with a run of its own and ``chosen.json`` if values had to be chosen, and ``errors/`` with what
    went wrong unforeseen. What is there and of the same configuration is not done again.

    Args:
        config: what to run.
        say: takes one line for each thing that is done.
        progress: show progress bars, where only one stage is done at a time.
        jobs: stages that are done at a time, each by a process of its own where there are several. A script that wants
            several needs ``if __name__ == "__main__":`` around what it does.
        devices: that these compute on, in turn; the configuration's where empty.
        home: folder that a backbone made here is kept in; by default the output.

    Where torch.distributed is initialised, its processes prime every model together, and share out the fine-tuning
    runs. The first one speaks for all, and writes what is made together.

    Raises:
        ConfigError: the device cannot be used here.
    """

    def __init__(
        self,
        config: GridConfig,
        say: Say = print,
        progress: bool = True,
        jobs: int = 1,
        devices: Sequence[str] = (),
        home: Path | None = None,
    ) -> None:
        self.given = self.config = config
        self.processes = Processes()
        self.say_own = say
        self.say = say if self.processes.first else _nothing
        self.progress = progress and self.processes.first
        self.jobs = jobs
        self._devices_given = self.devices = tuple(device.strip() for device in devices)
        if self.processes.size > 1:
            self._check_jobs()
            self.devices = (device_of_process(next(iter(self.devices), config.device)),)
        for device in self.devices:
            resolve_device(device)  # now, and not in a process of its own
        self.folder = Path(config.output)
        self.home = home or self.folder
        self.stages = self._stages()
        self.schedule: Schedule | None = None
        self._searching_for: Runner | None = None
        self._data_is_checked = False

    def _stages(self) -> Stages:
        return Stages(self.config, self.say, self.progress, next(iter(self.devices), None), self.home)

    def _check_jobs(self) -> None:
        if self.jobs > 1 or len(self.devices) > 1:
            raise ConfigError(
                f"{self.processes.size} processes were started together and share the work; omit --jobs, and give "
                "at most one --device"
            )

    def run(self) -> None:
        """Search what there is to search, and do every stage that is not done yet.

        Raises:
            FailedRunsError: stages ended with an error; all others are done.
            OutputError: the output folder cannot be written, or a file in it cannot be read.
        """
        self.processes.only_first(lambda: check_writable(self.folder))
        with self._alone():
            self._search()
            self._do()

    def _do(self) -> None:
        self.schedule = schedule = self.processes.all(lambda: Schedule.of(self.stages))[0]
        if done := sum(stage in schedule.done for stage in schedule.finetunings):
            self.say(f"{done} of {len(schedule.finetunings)} runs are done already")
        if schedule.left:
            self.processes.only_first(self.stages.builder.prepare)  # once, and not by several processes
            self.processes.each(
                lambda: self._check_data([stage.cell for stage in schedule.finetunings if stage in schedule.left])
            )
        self.processes.only_first(lambda: self._begin(schedule))
        with GridLog(self.config, schedule, self.folder, self.say, self.jobs) as log:
            if self.processes.size > 1:
                self._shared_out(schedule, log)
            elif self.jobs > 1 and len(schedule.left) > 1:
                self._several_at_a_time(schedule, log)
            else:
                self._one_after_the_other(schedule, log)
        self.processes.only_first(lambda: self.stages.tidy(schedule.done))
        left_out = [name for name in self.given.settings if name not in self.config.settings]
        self.processes.only_first(lambda: _check_all_went_well(schedule, left_out))

    def _begin(self, schedule: Schedule) -> None:
        """Write down what is run. Not before all is checked: the last good configuration stays beside its records."""
        resolved = self.given.model_dump(mode="json")
        write_text(self.folder / "config.yaml", yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
        self.stages.tidy(schedule.done)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Within the block no other run is at work in this folder.

        Raises:
            OutputError: another is.
        """
        lock = FileLock(self.folder / LOCK, timeout=1)  # a dry run holds it for a moment

        def acquire() -> None:
            try:
                lock.acquire()
            except Timeout:
                what = f"{self.folder} is in use by another run"
                raise OutputError(f"{what}; wait until it ends, or give another folder with output=...") from None

        self.processes.only_first(acquire)
        try:
            yield
        finally:
            lock.release()

    def _check_data(self, finetunings: Sequence[Run]) -> None:
        """Check the data of some finetunings, once; a search that may take hours checks what stands after it too."""
        if self._searching_for is not None:
            self._searching_for._check_data(self._searching_for.given.runs)
        elif not self._data_is_checked:
            check_data(self.stages, finetunings)
            self._data_is_checked = True

    def _search(self) -> None:
        """Choose what the configuration leaves open."""
        runner = self._searcher()
        if runner is None:
            return
        runner._searching_for = self
        self.say(f"searching: {len(runner.config.settings)} candidates, {len(runner.config.runs)} runs")
        try:
            runner.run()
        except FailedRunsError as error:
            self.say(f"in the search, {error}")  # other settings' candidates are all there
        choices = self.processes.all(lambda: self._choose(runner))[0]
        self._take(choices)
        for choice in choices.values():
            self.say(f"chosen for {choice.words()}")
        chosen = {name: asdict(choice) for name, choice in choices.items()}
        self.processes.only_first(lambda: write_json(self.folder / CHOSEN, chosen))

    def _searcher(self) -> Runner | None:
        search = self.given.to_search
        if search is None:
            return None
        return Runner(search, self.say_own, self.progress, self.jobs, self._devices_given, self.home)

    def _choose(self, searcher: Runner) -> dict[str, Choice]:
        """The values that the search has found best."""
        records = [record for cell in searcher.config.runs if (record := searcher.stages.finished(cell)) is not None]
        diverged = (
            {stage.cell for stage in searcher.schedule.diverged if stage.target is not None}
            if searcher.schedule
            else ()
        )
        return choose(self.given, records, diverged)

    def _take_choices_of_before(self) -> bool:
        """Take what the last run chose, if it did and it can still be chosen; whether that was so."""
        choices = read_choices(self.folder / CHOSEN, self.given)
        if not all(name in choices for name, setting in self.given.settings.items() if setting.candidates):
            return False
        self._take(choices)
        return True

    def _take(self, choices: Mapping[str, Choice]) -> None:
        self.config = with_choices(self.given, choices)
        self.stages = self._stages()

    def dry_run(self) -> list[str]:
        """Lines that tell what the run would do, and what of it is done, being done and left."""
        lines = []
        searcher = self._searcher()
        if searcher is not None:
            schedule = Schedule.of(searcher.stages)
            lines += ["search", *schedule.table(self.jobs), *running_elsewhere(searcher.folder), ""]
            if schedule.left and not self._take_choices_of_before():
                return [*lines, f"then {len(self.given.runs)} runs with the values that the search finds best"]
            if not schedule.left:
                choices = self._choose(searcher)
                self._take(choices)
                lines += [*(f"chosen for {choice.words()}" for choice in choices.values()), ""]
        return [*lines, *Schedule.of(self.stages).table(self.jobs), *running_elsewhere(self.folder)]

    def _one_after_the_other(self, schedule: Schedule, log: GridLog) -> None:
        last = None
        while (stage := schedule.next(last=last)) is not None:
            log.begun([stage])
            log.ended(self.stages.perform(stage))
            last = stage

    def _shared_out(self, schedule: Schedule, log: GridLog) -> None:
        """Do primings by all processes together, and then the finetunings, of which each process takes its share."""
        for stage in schedule.primings:
            if stage in schedule.left:
                log.begun([stage])
                own = self.stages.perform(stage)  # not within `all`: where it raises, others wait elsewhere
                outcomes = self.processes.all(lambda own=own: own)  # type: ignore[misc]
                log.ended(next((outcome for outcome in outcomes if outcome.error is not None), outcomes[0]))
        left = schedule.left
        log.begun(left)
        for outcome in chain(*self.processes.all(lambda: self._own(self.processes.block(left)))):
            log.take_down(outcome)

    def _own(self, stages: Sequence[Stage]) -> list[Outcome]:
        """Do some finetunings as one of several processes, and tell; none after one that could not be written."""
        outcomes: list[Outcome] = []
        for stage in stages:
            outcome = self.stages.perform(stage)
            ended = (
                f"failed: {outcome.error}"
                if outcome.error
                else f"{outcome.result} ({format_duration(outcome.seconds)})"
            )
            self.say_own(f"process {self.processes.rank}: {stage.words(self.config)}: {ended}")
            outcomes.append(outcome)
            if outcome.fatal:
                break
        return outcomes

    def _several_at_a_time(self, schedule: Schedule, log: GridLog) -> None:
        with deferred_interrupt() as interrupted, Workers(self.config, self.jobs, self.devices, self.home) as workers:
            asked = False
            while schedule.left or workers.running:
                if interrupted() and not asked:
                    workers.interrupt()
                    asked = True
                if asked and not workers.running:
                    raise KeyboardInterrupt("stopped")
                if not asked and self._hand_out(schedule, workers):
                    log.begun(workers.running)
                for heard in workers.hear(timeout=0.5):
                    if isinstance(heard, str):
                        self.say(heard)
                    elif not (asked and heard.error):  # it was asked to stop
                        log.ended(heard)

    def _hand_out(self, schedule: Schedule, workers: Workers) -> bool:
        """Give each process that is free a stage that can be begun; whether there was any."""
        given = False
        for number, last in workers.free:
            stage = schedule.next(workers.running, last)
            if stage is not None:
                workers.give(number, stage)
                given = True
        return given

    def how_to_predict(self) -> str | None:
        """A command that uses what the run has stored; None where that is nothing."""
        for cell in self.config.runs:
            folder = self.stages.model_folder(cell.setting, cell.seed)
            if (folder / TASKS / slug(cell.target) / TASK_MANIFEST).is_file():
                return shlex.join(["pemeta", "predict", str(folder), "--task", cell.target, "some words to label"])
        return None


def _nothing(_: str) -> None:
    """Say it not."""


def _check_all_went_well(schedule: Schedule, left_out: Sequence[str]) -> None:
    """Raises FailedRunsError where not all stages are done, or settings could not be begun."""
    failures = []
    if left_out:
        failures.append(f"{', '.join(left_out)} could not be run, because runs of their search failed")
    if schedule.failed:
        failures.append(_failures(schedule))
    if failures:
        raise FailedRunsError(
            f"{'; '.join(failures)}; what is done is saved, and the same command tries the others again"
        )


def _first_of(stages: Sequence[str]) -> str:
    return stages[0] if len(stages) == 1 else f"{stages[0]}, and {len(stages) - 1} more"


def _failures(schedule: Schedule) -> str:
    """What failed and why, the first few by name."""
    lost = sum(stage.target is not None for stage in {*schedule.failed, *schedule.given_up})
    by_reason: dict[str, list[str]] = {}
    for stage, why in schedule.failed.items():
        by_reason.setdefault(why, []).append(stage.words(schedule.config))
    named = [f"{why} ({_first_of(stages)})" for why, stages in by_reason.items()]
    more = f"; and {len(named) - MAX_NAMED} other reasons" if len(named) > MAX_NAMED else ""
    return f"{'; '.join(named[:MAX_NAMED])}{more}: {lost} of {len(schedule.finetunings)} runs failed"
