"""Estimates for the stages of a grid, with stages of equal cost as one, and their total."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pemeta.backbone.packed_passes import Padding
from pemeta.backbone.tokenizers import max_positions
from pemeta.data.sentences import SPLITS, Split
from pemeta.errors import ConfigError
from pemeta.estimate.cases import FLOAT, Case, PrimingCase, Remedy, TuningCase, remedies
from pemeta.estimate.counter import Work
from pemeta.estimate.devices import Device, find_device
from pemeta.estimate.fake import Shape
from pemeta.estimate.findings import Memory, Parameters
from pemeta.estimate.tokens import ASSUMED, share_of
from pemeta.experiments.config import GridConfig, Run
from pemeta.experiments.setting import Sizes
from pemeta.methods.base import PEMethod
from pemeta.utils.numerics import numerics


@dataclass(frozen=True)
class StageEstimate:
    """An estimate for runs of equal cost: priming runs of several seeds, or several fine-tuning runs.

    Attributes:
        kind: kind of run.
        settings: labels of the settings that the runs belong to.
        parameters: the model's numbers of parameters.
        memory: tensors on a process's device at the fullest moment.
        fullest: the phase of that moment.
        phases: bytes of each phase.
        padding: how its batches run.
        positions: number of positions of a step's largest batch: of its rows where it is packed.
        tokens: share of these positions that are tokens.
        copies: bytes of copies and cached hidden states, in the CPU's memory.
        fits: whether the device's memory suffices.
        remedies: changes that make a step lighter, if it does not fit.
        step_flops: operations of a step's matrix products, in the busiest process.
        step_seconds: time of a step.
        steps: average number of steps of a run, were none to stop early.
        runs: number of runs.
        flops: operations of all runs, in all processes.
        seconds: time of all runs, one after the other.
        longest: seconds of the longest run.
    """

    kind: Literal["priming", "fine-tuning"]
    settings: tuple[str, ...]
    parameters: Parameters
    memory: Memory
    fullest: str
    phases: Mapping[str, int]
    padding: Padding
    positions: int
    tokens: float
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
    """An estimate for a grid.

    Attributes:
        device: the device that the grid would run on.
        world_size: number of processes, each with a device of its own; on a CPU they share its memory.
        length: number of tokens in each sentence.
        length_given: whether the length was given; otherwise it is the longest possible.
        share: share of a padded batch's positions that are tokens.
        share_from: where that is from: ``given``, ``data`` (of the sources' sentences, in words) or ``assumed``.
        stages: the stages of the grid, and of the search before it.
    """

    device: Device
    world_size: int
    length: int
    length_given: bool
    share: float
    share_from: Literal["given", "data", "assumed"]
    stages: tuple[StageEstimate, ...]

    @property
    def flops(self) -> float:
        """Operations of all matrix products."""
        return sum(stage.flops for stage in self.stages)

    @property
    def seconds(self) -> float:
        """Wall time: all processes share each priming run, and then each takes fine-tuning runs of its own."""
        primings = sum(stage.seconds for stage in self.stages if stage.kind == "priming")
        tunings = [stage for stage in self.stages if stage.kind == "fine-tuning"]
        shared = sum(stage.seconds for stage in tunings) / self.world_size
        return primings + max([shared, *(stage.longest for stage in tunings)])


def estimate_grid(
    config: GridConfig,
    device: str | None = None,
    world_size: int = 1,
    length: int | None = None,
    share: float | None = None,
) -> GridEstimate:
    """Estimate what a grid, and the search before it, take, without loading weights or sentences.

    Args:
        config: the grid's configuration.
        device: a name in :data:`~pemeta.estimate.devices.DEVICES`, or ``cpu``; by default the configuration's device.
        world_size: number of processes, each with a device of its own.
        length: number of tokens in the longest sentence of each batch; by default the longest possible.
        share: share of a padded batch's positions that are tokens; by default that of the data, if its sentences are at
            hand, or else that of WikiAnn's English. It matters where batches are packed, or made by tokens.

    Raises:
        ConfigError: the device is unknown, the backbone has fewer positions than ``length``, or ``share`` is no share.
        DataError: sentences cannot be counted.
        ModelError: the backbone has no configuration, or a method does not suit it.
        MissingLearn2LearnError: priming needs learn2learn, which is not installed.
    """
    found = find_device(device, config.device, config.threads)
    backbone = config.backbone.configuration(Path(config.output))
    grids = [grid for grid in (config.to_search, config) if grid is not None]
    prompt = max(method.extra_positions for grid in grids for name in grid.settings for method in _attached(grid, name))
    most = (max_positions(backbone) or 10**9) - prompt
    longest = min(config.max_length or 128, most)
    if length is not None and not 1 <= length <= most:
        raise ConfigError(f"length must be from 1 to {most}, the positions that the backbone has; found {length}")
    if share is not None and not 0 < share <= 1:
        raise ConfigError(f"share must be above 0 and at most 1, the share of positions that are tokens; found {share}")
    of_data = share_of(config) if share is None else None
    vocabulary = getattr(backbone.get_text_config(), "vocab_size", None) or 2
    shape = Shape(
        backbone,
        length or longest,
        head=config.task.planned_head(config.data, vocabulary),
        attention=config.backbone.attention,
        precision=config.precision,
        checkpoint_layers=config.checkpoint_layers,
        gpu=found.type == "cuda",
        dtype=config.backbone.torch_dtype,
        share=share or of_data or ASSUMED,
        output=config.language_model,
    )
    source = replace(shape, head=config.kind_of_sources.planned_head(config.data_of_sources, vocabulary))
    origin: Literal["given", "data", "assumed"] = "given" if share else "data" if of_data else "assumed"
    estimator = _Estimator(grids, shape, source, found, world_size)
    with numerics(config.precision == "tf32"):
        stages = tuple(estimator.stages())
    return GridEstimate(found, world_size, shape.length, length is not None, shape.share, origin, stages)


AnyCase = TypeVar("AnyCase", bound=Case)


@dataclass
class _Group(Generic[AnyCase]):
    """Runs of equal cost: the labels of their settings, and the primed models' names or the fine-tuning runs."""

    case: AnyCase
    labels: dict[str, None] = field(default_factory=dict)
    primed: dict[str, None] = field(default_factory=dict)
    runs: list[tuple[GridConfig, Run]] = field(default_factory=list)


@dataclass
class _Estimator:
    """Estimates the stages of a grid and of its search, for one kind of device."""

    grids: Sequence[GridConfig]
    shape: Shape
    source: Shape
    device: Device
    world_size: int
    counted: dict[str, dict[Split, int]] = field(default_factory=dict)

    def stages(self) -> Iterator[StageEstimate]:
        """Priming first, then fine-tuning."""
        primings: dict[str, _Group[PrimingCase]] = {}
        tunings: dict[str, _Group[TuningCase]] = {}
        for grid in self.grids:
            for run in grid.runs:
                label = grid.settings[run.setting].label or run.setting
                priming = self._priming_case(grid, run)
                if priming is not None:
                    group = primings.setdefault(priming.key, _Group(priming))
                    group.labels[label] = None
                    group.primed[grid.primed_name(run.setting, run.seed)] = None
                tuning = TuningCase(self.shape, _attached(grid, run.setting), grid.settings[run.setting].finetuning)
                tuned = tunings.setdefault(tuning.key, _Group(tuning))
                tuned.labels[label] = None
                tuned.runs.append((grid, run))
        yield from (self._priming(group) for group in primings.values())
        yield from (self._tuning(group) for group in tunings.values())

    def _priming_case(self, grid: GridConfig, run: Run) -> PrimingCase | None:
        primer = grid.primer(run.setting)
        if primer is None or primer.priming is None:
            return None
        sources = len(grid.sources)
        tasks = primer.priming.tasks_per_batch or sources
        return PrimingCase(self.source, primer.method, primer.priming, -(-tasks // self.world_size), sources)

    def _priming(self, group: _Group[PrimingCase]) -> StageEstimate:
        case, step = group.case, group.case.step
        tasks = case.algorithm.tasks_per_batch or len(self.grids[-1].sources)
        exchange = self.device.exchange_seconds(step.parameters.trained * FLOAT, self.world_size)
        each = self.device.seconds(step.work) + exchange
        steps, runs = case.algorithm.outer_steps, len(group.primed)
        validation = self._validation(case, lambda work: work.flops)
        flops = (step.work.flops * tasks / case.tasks * steps + sum(validation)) * runs
        seconds = self._validation(case, self.device.seconds)
        busiest = max(sum(seconds[rank :: self.world_size]) for rank in range(self.world_size))
        copies = FLOAT * step.parameters.whole if validation else 0  # the best values so far
        copies += FLOAT * step.parameters.theta_p if case.algorithm.interpolate < 1 else 0  # those before priming
        return self._estimate("priming", group, each, steps, flops, [each * steps + busiest] * runs, copies)

    def _validation(self, case: PrimingCase, cost: Callable[[Work], float]) -> list[float]:
        """The cost of all validations of a priming run on each validation task; processes share the tasks."""
        grid, every, tuning = self.grids[-1], case.algorithm.validate_every, case.validation
        if every is None or tuning is None:
            return []
        times = -(-case.algorithm.outer_steps // every)
        sizes = [{**self._limited(grid, one, grid.source_sizes), "test": 0} for one in grid.validation_tasks]
        return [times * tuning.of_run(one, cost) for one in sizes]

    def _tuning(self, group: _Group[TuningCase]) -> StageEstimate:
        case, each = group.case, self.device.seconds(group.case.step.work)
        sizes = [self._sizes(grid, run) for grid, run in group.runs]
        steps = sum(map(case.steps, sizes)) / len(sizes)
        flops = sum(case.of_run(one, lambda work: work.flops) for one in sizes)
        seconds = [case.of_run(one, self.device.seconds) for one in sizes]
        copies = [case.copies(one, grid.streaming) for one, (grid, _) in zip(sizes, group.runs, strict=True)]
        return self._estimate("fine-tuning", group, each, steps, flops, seconds, max(copies))

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
        step, layout, examples = group.case.step, group.case.layout, group.case.examples
        fits = self.device.needs(step.memory, copies, self.world_size) <= self.device.memory
        return StageEstimate(
            kind=kind,
            settings=tuple(group.labels),
            parameters=step.parameters,
            memory=step.memory,
            fullest=step.fullest,
            phases={phase: memory.total for phase, memory in step.phases.items()},
            padding=layout.padding,
            positions=layout.positions(examples),
            tokens=layout.tokens(examples) / layout.positions(examples),
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

    def _sizes(self, grid: GridConfig, run: Run) -> dict[Split, int]:
        """Number of a run's sentences in each split; ``test`` is the split that is scored."""
        found = self._limited(grid, run.target, grid.sizes_of(run.setting))
        return {**found, "test": found[grid.scored_on]}

    def _limited(self, grid: GridConfig, language: str, sizes: Sizes) -> dict[Split, int]:
        """Number of a language's sentences in each split, within limits."""
        limits = sizes.of_splits
        available: Mapping[Any, Any] = self._counted(grid, language) if None in limits.values() else limits
        return {split: min(available[split], limits[split] or available[split]) for split in SPLITS}

    def _counted(self, grid: GridConfig, language: str) -> dict[Split, int]:
        if language not in self.counted:
            of_source = language not in grid.targets
            kind, data = (grid.kind_of_sources, grid.data_of_sources) if of_source else (grid.task, grid.data)
            self.counted[language] = dict(kind.sizes(data, language))
        return self.counted[language]


def _attached(grid: GridConfig, setting: str) -> tuple[PEMethod, ...]:
    """The methods of a setting's model in fine-tuning: its own, and the inner loop's if that was another."""
    own, primer = grid.settings[setting].method, grid.primer(setting)
    adapted = None if primer is None or primer.priming is None else primer.priming.adapted_method
    if primer is None or adapted is None:
        return (own,)
    saved = dict.fromkeys([primer.method, adapted])
    return (own, *(method for method in saved if method != own)) if own in saved else (own,)
