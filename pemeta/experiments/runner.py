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
from pemeta.experiments.config import Cell, RunConfig
from pemeta.experiments.data_check import check_data
from pemeta.experiments.run_log import LOCK, RunLog, being_done
from pemeta.experiments.schedule import Plan
from pemeta.experiments.search import CHOSEN, choose, read_choices, with_choices
from pemeta.experiments.stage import Outcome, Stage
from pemeta.experiments.stages import Stages
from pemeta.experiments.workers import Workers
from pemeta.model.manifest import TASKS
from pemeta.model.task_files import ABOUT_TASK
from pemeta.reporting.choices import Choice
from pemeta.utils.devices import resolve_device
from pemeta.utils.digests import slug
from pemeta.utils.distributed import Ranks, device_of
from pemeta.utils.durations import time_words
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
        config: RunConfig,
        say: Say = print,
        progress: bool = True,
        jobs: int = 1,
        devices: Sequence[str] = (),
        home: Path | None = None,
    ) -> None:
        self.given = self.config = config
        self.ranks = Ranks()
        self.say_own = say
        self.say = say if self.ranks.first else _nothing
        self.progress = progress and self.ranks.first
        self.jobs = jobs
        self._devices_given = self.devices = tuple(device.strip() for device in devices)
        if self.ranks.size > 1:
            self._check_jobs()
            self.devices = (device_of(next(iter(self.devices), config.device)),)
        for device in self.devices:
            resolve_device(device)  # now, and not in a process of its own
        self.folder = Path(config.output)
        self.home = home or self.folder
        self.stages = self._stages()
        self.plan: Plan | None = None
        self._searching_for: Runner | None = None
        self._data_is_checked = False

    def _stages(self) -> Stages:
        return Stages(self.config, self.say, self.progress, next(iter(self.devices), None), self.home)

    def _check_jobs(self) -> None:
        if self.jobs > 1 or len(self.devices) > 1:
            raise ConfigError(
                f"{self.ranks.size} processes were started together, which share out the work; leave out --jobs, and "
                "give one --device at most"
            )

    def run(self) -> None:
        """Search what there is to search, and do every stage that is not done yet.

        Raises:
            FailedRunsError: stages ended with an error; all others are done.
            OutputError: the output folder cannot be written, or a file in it cannot be read.
        """
        self.ranks.only_first(lambda: check_writable(self.folder))
        with self._alone():
            self._search()
            self._do()

    def _do(self) -> None:
        self.plan = plan = self.ranks.all(lambda: Plan.of(self.stages))[0]
        if done := sum(stage in plan.done for stage in plan.cells):
            self.say(f"{done} of {len(plan.cells)} runs are done already")
        if plan.left:
            self.ranks.only_first(self.stages.workshop.prepare)  # once, and not by several processes
            self.ranks.each(lambda: self._check_data([stage.cell for stage in plan.cells if stage in plan.left]))
        self.ranks.only_first(lambda: self._begin(plan))
        with RunLog(self.config, plan, self.folder, self.say, self.jobs) as log:
            if self.ranks.size > 1:
                self._shared_out(plan, log)
            elif self.jobs > 1 and len(plan.left) > 1:
                self._several_at_a_time(plan, log)
            else:
                self._one_after_the_other(plan, log)
        self.ranks.only_first(lambda: self.stages.tidy(plan.done))
        left_out = [name for name in self.given.settings if name not in self.config.settings]
        self.ranks.only_first(lambda: _check_all_went_well(plan, left_out))

    def _begin(self, plan: Plan) -> None:
        """Write down what is run. Not before all is checked: the last good configuration stays beside its records."""
        resolved = self.given.model_dump(mode="json")
        write_text(self.folder / "config.yaml", yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
        self.stages.tidy(plan.done)

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

        self.ranks.only_first(acquire)
        try:
            yield
        finally:
            lock.release()

    def _check_data(self, cells: Sequence[Cell]) -> None:
        """Check the data of some cells, once; a search that may take hours checks what stands after it too."""
        if self._searching_for is not None:
            self._searching_for._check_data(self._searching_for.given.cells)
        elif not self._data_is_checked:
            check_data(self.stages, cells)
            self._data_is_checked = True

    def _search(self) -> None:
        """Choose what the configuration leaves open."""
        runner = self._searcher()
        if runner is None:
            return
        runner._searching_for = self
        self.say(f"searching: {len(runner.config.settings)} candidates, {len(runner.config.cells)} runs")
        try:
            runner.run()
        except FailedRunsError as error:
            self.say(f"in the search, {error}")  # other settings' candidates are all there
        choices = self.ranks.all(lambda: self._choose(runner))[0]
        self._take(choices)
        for choice in choices.values():
            self.say(f"chosen for {choice.words()}")
        chosen = {name: asdict(choice) for name, choice in choices.items()}
        self.ranks.only_first(lambda: write_json(self.folder / CHOSEN, chosen))

    def _searcher(self) -> Runner | None:
        search = self.given.to_search
        if search is None:
            return None
        return Runner(search, self.say_own, self.progress, self.jobs, self._devices_given, self.home)

    def _choose(self, searcher: Runner) -> dict[str, Choice]:
        """The values that the search has found best."""
        records = [record for cell in searcher.config.cells if (record := searcher.stages.finished(cell)) is not None]
        diverged = {stage.cell for stage in searcher.plan.diverged if stage.target is not None} if searcher.plan else ()
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
            plan = Plan.of(searcher.stages)
            lines += ["search", *plan.table(self.jobs), *being_done(searcher.folder), ""]
            if plan.left and not self._take_choices_of_before():
                return [*lines, f"then {len(self.given.cells)} runs with the values that the search finds best"]
            if not plan.left:
                choices = self._choose(searcher)
                self._take(choices)
                lines += [*(f"chosen for {choice.words()}" for choice in choices.values()), ""]
        return [*lines, *Plan.of(self.stages).table(self.jobs), *being_done(self.folder)]

    def _one_after_the_other(self, plan: Plan, log: RunLog) -> None:
        last = None
        while (stage := plan.next(last=last)) is not None:
            log.begun([stage])
            log.ended(self.stages.perform(stage))
            last = stage

    def _shared_out(self, plan: Plan, log: RunLog) -> None:
        """Do primings by all processes together, and then the cells, of which each process takes its share."""
        for stage in plan.primings:
            if stage in plan.left:
                log.begun([stage])
                own = self.stages.perform(stage)  # not within `all`: where it raises, others wait elsewhere
                outcomes = self.ranks.all(lambda own=own: own)  # type: ignore[misc]
                log.ended(next((outcome for outcome in outcomes if outcome.error is not None), outcomes[0]))
        left = plan.left
        log.begun(left)
        for outcome in chain(*self.ranks.all(lambda: self._own(self.ranks.block(left)))):
            log.take_down(outcome)

    def _own(self, stages: Sequence[Stage]) -> list[Outcome]:
        """Do some cells as one of several processes, and tell; none after one that could not be written."""
        outcomes: list[Outcome] = []
        for stage in stages:
            outcome = self.stages.perform(stage)
            ended = f"failed: {outcome.error}" if outcome.error else f"{outcome.result} ({time_words(outcome.seconds)})"
            self.say_own(f"process {self.ranks.rank}: {stage.words(self.config)}: {ended}")
            outcomes.append(outcome)
            if outcome.fatal:
                break
        return outcomes

    def _several_at_a_time(self, plan: Plan, log: RunLog) -> None:
        with deferred_interrupt() as interrupted, Workers(self.config, self.jobs, self.devices, self.home) as workers:
            asked = False
            while plan.left or workers.running:
                if interrupted() and not asked:
                    workers.interrupt()
                    asked = True
                if asked and not workers.running:
                    raise KeyboardInterrupt("stopped")
                if not asked and self._hand_out(plan, workers):
                    log.begun(workers.running)
                for heard in workers.hear(timeout=0.5):
                    if isinstance(heard, str):
                        self.say(heard)
                    elif not (asked and heard.error):  # it was asked to stop
                        log.ended(heard)

    def _hand_out(self, plan: Plan, workers: Workers) -> bool:
        """Give each process that is free a stage that can be begun; whether there was any."""
        given = False
        for number, last in workers.free:
            stage = plan.next(workers.running, last)
            if stage is not None:
                workers.give(number, stage)
                given = True
        return given

    def how_to_predict(self) -> str | None:
        """A command that uses what the run has stored; None where that is nothing."""
        for cell in self.config.cells:
            folder = self.stages.model_folder(cell.setting, cell.seed)
            if (folder / TASKS / slug(cell.target) / ABOUT_TASK).is_file():
                return shlex.join(["pemeta", "predict", str(folder), "--task", cell.target, "some words to label"])
        return None


def _nothing(_: str) -> None:
    """Say it not."""


def _check_all_went_well(plan: Plan, left_out: Sequence[str]) -> None:
    """Raises FailedRunsError where not all stages are done, or settings could not be begun."""
    failures = []
    if left_out:
        failures.append(f"{', '.join(left_out)} could not be run, because runs of their search failed")
    if plan.failed:
        failures.append(_failures(plan))
    if failures:
        raise FailedRunsError(
            f"{'; '.join(failures)}; what is done is saved, and the same command tries the others again"
        )


def _first_of(stages: Sequence[str]) -> str:
    return stages[0] if len(stages) == 1 else f"{stages[0]}, and {len(stages) - 1} more"


def _failures(plan: Plan) -> str:
    """What failed and why, the first few by name."""
    lost = sum(stage.target is not None for stage in {*plan.failed, *plan.given_up})
    by_reason: dict[str, list[str]] = {}
    for stage, why in plan.failed.items():
        by_reason.setdefault(why, []).append(stage.words(plan.config))
    named = [f"{why} ({_first_of(stages)})" for why, stages in by_reason.items()]
    more = f"; and {len(named) - MAX_NAMED} other reasons" if len(named) > MAX_NAMED else ""
    return f"{'; '.join(named[:MAX_NAMED])}{more}: {lost} of {len(plan.cells)} runs failed"
