"""A run's stages, those that cost the same as one, with what each takes and what all take together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Literal, TypeVar

from pemeta.backbone.tokenizers import max_positions
from pemeta.data.sentences import SPLITS, Split
from pemeta.estimate.cases import FLOAT, Case, PrimingCase, Remedy, TuningCase, remedies
from pemeta.estimate.devices import Device, find_device
from pemeta.estimate.fake import Shape
from pemeta.estimate.findings import Memory, Parameters
from pemeta.experiments.config import GridConfig, Run
from pemeta.methods.base import PEMethod


@dataclass(frozen=True)
class StageEstimate:
    """Stages of a run that cost the same: a priming for several seeds, or the fine-tuning of several cells.

    Attributes:
        kind: of stage.
        settings: labels of the settings that they are of.
        parameters: numbers of the model's.
        memory: of a process's device at the fullest moment, but for what the process holds before any tensor.
        fullest: the phase of that moment.
        phases: bytes of each phase.
        copies: bytes of copies and kept hidden states, in the processor's memory.
        fits: whether the device's memory is enough.
        remedies: what would make a step lighter, where it is not.
        step_flops: of the matrix products of a step, in the busiest process.
        step_seconds: time of a step.
        steps: of a run, on average.
        runs: how many.
        flops: of all runs, in all processes.
        seconds: of all runs, one after the other.
        longest: seconds of the longest run.
    """

    kind: Literal["priming", "fine-tuning"]
    settings: tuple[str, ...]
    parameters: Parameters
    memory: Memory
    fullest: str
    phases: Mapping[str, int]
    copies: int
    fits: bool
    remedies: tuple[Remedy, ...]
    step_flops: int
    step_seconds: float
    steps: float
    runs: int
    flops: float
    seconds: float
    longest: float


@dataclass(frozen=True)
class GridEstimate:
    """What a run takes.

    Attributes:
        device: that it is estimated for.
        world_size: processes, each with a device of its own; on a processor they share its memory.
        length: word pieces of each sentence.
        length_given: whether that was given, and is not the longest that there can be.
        stages: of the run, and of the search before it.
    """

    device: Device
    world_size: int
    length: int
    length_given: bool
    stages: tuple[StageEstimate, ...]

    @property
    def flops(self) -> float:
        """Of all matrix products."""
        return sum(stage.flops for stage in self.stages)

    @property
    def seconds(self) -> float:
        """Wall time: the processes prime together, and then each takes cells of its own."""
        primings = sum(stage.seconds for stage in self.stages if stage.kind == "priming")
        cells = [stage for stage in self.stages if stage.kind == "fine-tuning"]
        shared = sum(stage.seconds for stage in cells) / self.world_size
        return primings + max([shared, *(stage.longest for stage in cells)])


def estimate_grid(
    config: GridConfig, device: str | None = None, world_size: int = 1, length: int | None = None
) -> GridEstimate:
    """What a run, and the search before it, take; neither weights nor sentences are loaded for it.

    Args:
        config: of the run.
        device: a name out of :data:`~pemeta.estimate.devices.DEVICES`, or ``cpu``; by default the configuration's.
        world_size: processes, each with a device of its own.
        length: word pieces of each sentence; by default the longest that there can be.

    Raises:
        ConfigError: the device is unknown.
        DataError: sentences cannot be counted.
        ModelError: there is no configuration of the backbone, or a method does not suit it.
        MissingLearn2LearnError: priming needs learn2learn.
    """
    found = find_device(device, config.device, config.threads)
    backbone = config.backbone.configuration(Path(config.output))
    grids = [grid for grid in (config.to_search, config) if grid is not None]
    prompt = max(method.extra_positions for grid in grids for name in grid.settings for method in _attached(grid, name))
    longest = min(config.max_length or 128, (max_positions(backbone) or 10**9) - prompt)
    shape = Shape(
        backbone,
        length or longest,
        labels=1 + 2 * len(getattr(config.data, "types", ("PER", "ORG", "LOC"))),
        attention=config.backbone.attention,
        precision=config.precision,
        checkpoint_layers=config.checkpoint_layers,
        fused_optimizer=found.type == "cuda",
    )
    stages = _Stages(grids, shape, found, world_size)
    return GridEstimate(found, world_size, shape.length, length is not None, tuple(stages.all()))


AnyCase = TypeVar("AnyCase", bound=Case)


@dataclass
class _Group(Generic[AnyCase]):
    """What costs the same: labels of settings; and of priming the models to be primed, of fine-tuning the cells."""

    case: AnyCase
    labels: dict[str, None] = field(default_factory=dict)
    primed: dict[str, None] = field(default_factory=dict)
    cells: list[tuple[GridConfig, Run]] = field(default_factory=list)


@dataclass
class _Stages:
    """The stages of a run and its search, for one kind of device."""

    grids: Sequence[GridConfig]
    shape: Shape
    device: Device
    world_size: int
    counted: dict[str, dict[Split, int]] = field(default_factory=dict)

    def all(self) -> Iterator[StageEstimate]:
        """One after the other."""
        primings: dict[str, _Group[PrimingCase]] = {}
        tunings: dict[str, _Group[TuningCase]] = {}
        for grid in self.grids:
            for cell in grid.runs:
                label = grid.settings[cell.setting].label or cell.setting
                priming = self._priming_case(grid, cell)
                if priming is not None:
                    group = primings.setdefault(priming.key, _Group(priming))
                    group.labels[label] = None
                    group.primed[grid.primed_name(cell.setting, cell.seed)] = None
                tuning = TuningCase(self.shape, _attached(grid, cell.setting), grid.settings[cell.setting].finetuning)
                cells = tunings.setdefault(tuning.key, _Group(tuning))
                cells.labels[label] = None
                cells.cells.append((grid, cell))
        yield from (self._priming(group) for group in primings.values())
        yield from (self._tuning(group) for group in tunings.values())

    def _priming_case(self, grid: GridConfig, cell: Run) -> PrimingCase | None:
        primer = grid.primer(cell.setting)
        if primer is None or primer.priming is None:
            return None
        tasks = primer.priming.tasks_per_batch or len(grid.sources)
        return PrimingCase(self.shape, primer.method, primer.priming, -(-tasks // self.world_size))

    def _priming(self, group: _Group[PrimingCase]) -> StageEstimate:
        case, step = group.case, group.case.step
        tasks = case.algorithm.tasks_per_batch or len(self.grids[-1].sources)
        exchange = self.device.exchange_seconds(step.parameters.trained * FLOAT, self.world_size)
        each = self.device.seconds(step.work) + exchange
        steps, runs = case.algorithm.outer_steps, len(group.primed)
        flops = step.work.flops * tasks / case.tasks * steps * runs
        return self._estimate("priming", group, each, steps, flops, [each * steps] * runs, copies=0)

    def _tuning(self, group: _Group[TuningCase]) -> StageEstimate:
        case, each = group.case, self.device.seconds(group.case.step.work)
        sizes = [self._sizes(grid, cell) for grid, cell in group.cells]
        steps = sum(map(case.steps, sizes)) / len(sizes)
        flops = sum(case.of_cell(one, lambda work: work.flops) for one in sizes)
        seconds = [case.of_cell(one, self.device.seconds) for one in sizes]
        return self._estimate("fine-tuning", group, each, steps, flops, seconds, max(map(case.copies, sizes)))

    def _estimate(
        self,
        kind: Literal["priming", "fine-tuning"],
        group: _Group[PrimingCase] | _Group[TuningCase],
        each: float,
        steps: float,
        flops: float,
        seconds: Sequence[float],
        copies: int,
    ) -> StageEstimate:
        step = group.case.step
        fits = self.device.needs(step.memory, copies, self.world_size) <= self.device.memory
        return StageEstimate(
            kind=kind,
            settings=tuple(group.labels),
            parameters=step.parameters,
            memory=step.memory,
            fullest=step.fullest,
            phases={phase: memory.total for phase, memory in step.phases.items()},
            copies=copies,
            fits=fits,
            remedies=() if fits else remedies(group.case),
            step_flops=step.work.flops,
            step_seconds=each,
            steps=steps,
            runs=len(seconds),
            flops=flops,
            seconds=sum(seconds),
            longest=max(seconds),
        )

    def _sizes(self, grid: GridConfig, cell: Run) -> dict[Split, int]:
        """Sentences of a cell in each split; ``test`` is the split that is scored."""
        limits = grid.sizes_of(cell.setting).model_dump()
        there = self._counted(grid, cell.target) if None in limits.values() else limits
        found: dict[Split, int] = {split: min(there[split], limits[split] or there[split]) for split in SPLITS}
        return {**found, "test": found[grid.scored_on]}

    def _counted(self, grid: GridConfig, language: str) -> dict[Split, int]:
        if language not in self.counted:
            self.counted[language] = grid.data.sizes(language)
        return self.counted[language]


def _attached(grid: GridConfig, setting: str) -> tuple[PEMethod, ...]:
    """The methods that a setting's model has in fine-tuning: its own, and the inner loop's where that was another."""
    own, primer = grid.settings[setting].method, grid.primer(setting)
    adapted = None if primer is None or primer.priming is None else primer.priming.adapted_method
    if primer is None or adapted is None:
        return (own,)
    saved = dict.fromkeys([primer.method, adapted])
    return (own, *(method for method in saved if method != own)) if own in saved else (own,)
