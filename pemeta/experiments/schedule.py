"""The stages of a grid in their order, their progress, and an estimate of the remaining time."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from pemeta.experiments.config import GridConfig
from pemeta.experiments.output_folder import OutputFolder
from pemeta.experiments.saved_models import priming_seconds
from pemeta.experiments.stage import Stage
from pemeta.utils.durations import format_duration


@dataclass
class Schedule:
    """All stages of a grid in the order in which they are done, and their progress.

    Attributes:
        config: configuration of the grid.
        stages: all stages; a priming run stands before the fine-tuning runs that need it.
        done: stages with a result on disk.
        failed: stages that ended with an error, and the error.
        given_up: stages that need one that failed.
        diverged: stages whose training failed, and would fail again.
        seconds: durations of finished stages.
    """

    config: GridConfig
    stages: tuple[Stage, ...]
    done: set[Stage] = field(default_factory=set)
    failed: dict[Stage, str] = field(default_factory=dict)
    given_up: set[Stage] = field(default_factory=set)
    diverged: set[Stage] = field(default_factory=set)
    seconds: dict[Stage, float] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: OutputFolder) -> Schedule:
        """The schedule of a grid, with the progress that its output folder shows."""
        schedule = cls(folder.config, tuple(_stages(folder)))
        for stage in schedule.finetunings:
            record = folder.finished(stage.run)
            if record is not None:
                schedule.finish(stage, record.seconds)
        needed = {stage.primed for stage in schedule.finetunings if stage not in schedule.done}
        for stage in schedule.primings:
            if folder.is_primed(stage.setting, stage.seed):
                schedule.finish(stage, priming_seconds(folder.primed_path(stage.setting, stage.seed)))
            elif stage.primed not in needed:
                schedule.done.add(stage)  # it existed when the fine-tuning runs were done
        return schedule

    @property
    def left(self) -> list[Stage]:
        """Stages that are neither done nor given up."""
        ended = {*self.done, *self.failed, *self.given_up}
        return [stage for stage in self.stages if stage not in ended]

    @property
    def finetunings(self) -> list[Stage]:
        """The fine-tuning runs."""
        return [stage for stage in self.stages if stage.target is not None]

    @property
    def primings(self) -> list[Stage]:
        """The priming runs."""
        return [stage for stage in self.stages if stage.target is None]

    def next(self, running: Iterable[Stage] = (), last: Stage | None = None) -> Stage | None:
        """The first stage that can start, preferably from the same model as ``last``; None if all have to wait."""
        primed = {stage.primed for stage in self.primings if stage in self.done}
        ready = (stage for stage in self.left if stage.target is None or stage.primed is None or stage.primed in primed)
        busy = set(running)
        free = [stage for stage in ready if stage not in busy]
        alike = (s for s in free if last is not None and (s.setting, s.seed) == (last.setting, last.seed))
        return next(alike, free[0] if free else None)

    def finish(self, stage: Stage, seconds: float) -> None:
        """Note that a stage is done, and its duration."""
        self.done.add(stage)
        self.seconds[stage] = seconds

    def fail(self, stage: Stage, why: str, diverged: bool = False) -> None:
        """Note that a stage failed, so that those that need it cannot be done."""
        needing = {other for other in self.left if stage.target is None and other.primed == stage.primed} - {stage}
        self.failed[stage] = why
        self.given_up |= needing
        if diverged:
            self.diverged |= {stage, *needing}

    def estimate(self, stage: Stage) -> float | None:
        """Estimated seconds of a stage: the mean of the finished ones most like it; None if none has finished."""
        for alike in _LIKENESS:
            kind = alike(self.config, stage)
            times = [seconds for other, seconds in self.seconds.items() if alike(self.config, other) == kind]
            if times:
                return statistics.fmean(times)
        return None

    def time_left(self, jobs: int = 1) -> str:
        """Estimate of the remaining time, as a short text."""
        guesses = [self.estimate(stage) for stage in self.left]
        known = [guess for guess in guesses if guess is not None]
        if not known:
            return "remaining time unknown"
        return f"{'about' if len(known) == len(guesses) else 'more than'} {format_duration(sum(known) / jobs)} left"

    def table(self, jobs: int = 1) -> list[str]:
        """Progress of each setting, and of the whole grid, as lines of text."""
        rows = [("setting", "priming", "fine-tuning", "left")]
        for name, setting in self.config.settings.items():
            own = [stage for stage in self.stages if stage.setting == name]
            shared = self.config.primer(name) is not None and not any(stage.target is None for stage in own)
            counts = [self._progress(own, finetuning) for finetuning in (False, True)]
            left = self._time_for([stage for stage in own if stage in self.left])
            rows.append((setting.label or name, "shared" if shared else counts[0], counts[1], left))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        runs = self.finetunings
        done = sum(stage in self.done for stage in runs)
        end = self.time_left(jobs) if self.left else "nothing left to do"
        several = f" with {jobs} at a time" if jobs > 1 and self.left else ""
        primings = self._progress(self.primings, finetuning=False)
        return [*lines, f"{done}/{len(runs)} fine-tuning and {primings} priming runs are done; {end}{several}"]

    def _progress(self, stages: list[Stage], finetuning: bool) -> str:
        own = [stage for stage in stages if (stage.target is not None) == finetuning]
        return f"{sum(stage in self.done for stage in own)}/{len(own)}" if own else "–"

    def _time_for(self, stages: list[Stage]) -> str:
        guesses = [self.estimate(stage) for stage in stages]
        known = [guess for guess in guesses if guess is not None]
        if len(known) < len(guesses):
            return "unknown"
        return format_duration(sum(known)) if known else "done"


_LIKENESS: tuple[Callable[[GridConfig, Stage], tuple[object, ...]], ...] = (
    lambda config, stage: (stage.target is None, stage.setting, stage.target),
    lambda config, stage: (stage.target is None, stage.setting),
    lambda config, stage: (stage.target is None, config.settings[stage.setting].method),
    lambda config, stage: (stage.target is None,),
)
"""What stages of about the same duration have in common, from the closest likeness to the loosest."""


def _stages(folder: OutputFolder) -> Iterator[Stage]:
    """Every stage; a priming run before the first fine-tuning run that needs it."""
    seen: set[str] = set()
    for setting, target, seed in folder.config.runs:
        primed = None
        if folder.config.primer(setting) is not None:
            primed = folder.primed_path(setting, seed).name
            if primed not in seen:
                seen.add(primed)
                yield Stage(setting, folder.config.priming_seed(setting, seed), None, primed)
        yield Stage(setting, seed, target, primed)
