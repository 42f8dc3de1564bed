"""What a run has to do, in which order, what of it is done, and how long the rest will take."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pemeta.errors import OutputError
from pemeta.experiments.config import GridConfig
from pemeta.experiments.stage import Stage
from pemeta.experiments.stages import Stages
from pemeta.utils.durations import format_duration
from pemeta.utils.files import read_json


@dataclass
class Schedule:
    """All stages in the order in which they are to be done, and how far they are.

    Attributes:
        config: of the run.
        stages: a priming run stands before the finetunings that need it.
        done: those with a result on disk.
        failed: those that ended with an error, and the error.
        given_up: those that need what failed.
        diverged: those whose training failed, and would again.
        seconds: what finished stages took.
    """

    config: GridConfig
    stages: tuple[Stage, ...]
    done: set[Stage] = field(default_factory=set)
    failed: dict[Stage, str] = field(default_factory=dict)
    given_up: set[Stage] = field(default_factory=set)
    diverged: set[Stage] = field(default_factory=set)
    seconds: dict[Stage, float] = field(default_factory=dict)

    @classmethod
    def of(cls, stages: Stages) -> Schedule:
        """The plan of a run, with what its folder holds already."""
        schedule = cls(stages.config, tuple(_stages(stages)))
        for stage in schedule.finetunings:
            record = stages.finished(stage.cell)
            if record is not None:
                schedule.finish(stage, record.seconds)
        needed = {stage.primed for stage in schedule.finetunings if stage not in schedule.done}
        for stage in schedule.primings:
            if stages.is_primed(stage.setting, stage.seed):
                schedule.finish(stage, _priming_seconds(stages.primed_folder(stage.setting, stage.seed)))
            elif stage.primed not in needed:
                schedule.done.add(stage)  # it was there when the finetunings were done
        return schedule

    @property
    def left(self) -> list[Stage]:
        """Stages that are neither done nor given up."""
        ended = {*self.done, *self.failed, *self.given_up}
        return [stage for stage in self.stages if stage not in ended]

    @property
    def finetunings(self) -> list[Stage]:
        """The stages that are finetunings."""
        return [stage for stage in self.stages if stage.target is not None]

    @property
    def primings(self) -> list[Stage]:
        """The stages that are priming runs."""
        return [stage for stage in self.stages if stage.target is None]

    def next(self, running: Iterable[Stage] = (), last: Stage | None = None) -> Stage | None:
        """The first stage that can be begun, rather one that starts like ``last``; None where all have to wait."""
        primed = {stage.primed for stage in self.primings if stage in self.done}
        ready = (stage for stage in self.left if stage.target is None or stage.primed is None or stage.primed in primed)
        busy = set(running)
        free = [stage for stage in ready if stage not in busy]
        alike = (s for s in free if last is not None and (s.setting, s.seed) == (last.setting, last.seed))
        return next(alike, free[0] if free else None)

    def finish(self, stage: Stage, seconds: float) -> None:
        """Note that a stage is done, and how long it took."""
        self.done.add(stage)
        self.seconds[stage] = seconds

    def fail(self, stage: Stage, why: str, diverged: bool = False) -> None:
        """Note that a stage, and what needs it, cannot be done."""
        needing = {other for other in self.left if stage.target is None and other.primed == stage.primed} - {stage}
        self.failed[stage] = why
        self.given_up |= needing
        if diverged:
            self.diverged |= {stage, *needing}

    def estimate(self, stage: Stage) -> float | None:
        """Seconds that a stage will take: the mean of the finished ones that are most like it; None without any."""
        for alike in _LIKENESS:
            kind = alike(self.config, stage)
            times = [seconds for other, seconds in self.seconds.items() if alike(self.config, other) == kind]
            if times:
                return statistics.fmean(times)
        return None

    def time_left(self, jobs: int = 1) -> str:
        """How long the rest will take, as far as it can be guessed."""
        guesses = [self.estimate(stage) for stage in self.left]
        known = [guess for guess in guesses if guess is not None]
        if not known:
            return "time left not known yet"
        return f"{'about' if len(known) == len(guesses) else 'more than'} {format_duration(sum(known) / jobs)} left"

    def table(self, jobs: int = 1) -> list[str]:
        """Lines that tell how far each setting is, and the whole."""
        rows = [("setting", "priming", "fine-tuning", "left")]
        for name, setting in self.config.settings.items():
            own = [stage for stage in self.stages if stage.setting == name]
            shared = self.config.primer(name) is not None and not any(stage.target is None for stage in own)
            counts = [self._progress(own, of_cells) for of_cells in (False, True)]
            left = self._time_for([stage for stage in own if stage in self.left])
            rows.append((setting.label or name, "shared" if shared else counts[0], counts[1], left))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        runs = self.finetunings
        done = sum(stage in self.done for stage in runs)
        end = self.time_left(jobs) if self.left else "nothing left to do"
        several = f" with {jobs} at a time" if jobs > 1 and self.left else ""
        primings = self._progress(self.primings, of_cells=False)
        return [
            *lines,
            f"{done} of {len(runs)} fine-tuning and {primings} priming runs are done; {end}{several}",
        ]

    def _progress(self, stages: list[Stage], of_cells: bool) -> str:
        own = [stage for stage in stages if (stage.target is not None) == of_cells]
        return f"{sum(stage in self.done for stage in own)}/{len(own)}" if own else "–"

    def _time_for(self, stages: list[Stage]) -> str:
        guesses = [self.estimate(stage) for stage in stages]
        known = [guess for guess in guesses if guess is not None]
        if len(known) < len(guesses):
            return "not known yet"
        return format_duration(sum(known)) if known else "done"


_LIKENESS: tuple[Callable[[GridConfig, Stage], tuple[object, ...]], ...] = (
    lambda config, stage: (stage.target is None, stage.setting, stage.target),
    lambda config, stage: (stage.target is None, stage.setting),
    lambda config, stage: (stage.target is None, config.settings[stage.setting].method),
    lambda config, stage: (stage.target is None,),
)
"""What stages of about the same length have in common, from the closest likeness to the loosest."""


def _stages(stages: Stages) -> Iterator[Stage]:
    """Every stage, a priming run before the first cell that needs it."""
    begun: set[str] = set()
    for setting, target, seed in stages.config.runs:
        primed = None
        if stages.config.primer(setting) is not None:
            primed = stages.primed_folder(setting, seed).name
            if primed not in begun:
                begun.add(primed)
                yield Stage(setting, seed, None, primed)
        yield Stage(setting, seed, target, primed)


def _priming_seconds(folder: Path) -> float:
    try:
        return float(read_json(folder / "priming.json")["history"]["seconds"])
    except (KeyError, TypeError, ValueError):
        raise OutputError(f"{folder} is not a primed model of this version; remove that folder") from None
