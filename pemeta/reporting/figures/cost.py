"""The cost of settings against their scores."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pemeta.reporting.figures.base import (
    ERROR_BARS,
    Chart,
    Records,
    SettingsFigure,
    comparable,
    label_of,
    mean_score,
    shared_targets,
    shown_as,
)
from pemeta.reporting.figures.style import legend_below, looks
from pemeta.reporting.records import Record
from pemeta.reporting.scale import Scale, capitalised
from pemeta.reporting.tables import Cell, Row, Table, listed, seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as MplFigure


@dataclass(frozen=True)
class Spent:
    """One setting: median seconds, and its mean score."""

    label: str
    priming: float
    finetuning: float
    score: Cell

    @property
    def total(self) -> float:
        """Seconds to prime once and to fine-tune on one target."""
        return self.priming + self.finetuning


@dataclass(frozen=True)
class CostChart(Chart):
    """A point for each setting."""

    settings: tuple[Spent, ...]
    targets: tuple[str, ...]

    @property
    def caption(self) -> str:
        """A textual description of the figure."""
        return (
            f"{self.scale.title}{self.scale.in_percent}, the mean over {listed(self.targets)}, against the seconds "
            "(medians) that it takes to prime once, fine-tune on one target and evaluate; priming serves all targets. "
            f"Filled: with priming; hollow: without. {ERROR_BARS}"
        )

    @property
    def empty(self) -> bool:
        """Whether there are no points."""
        return not self.settings

    @property
    def size(self) -> tuple[float, float]:
        """Width and height, in inches, with room for the legend below."""
        return 7.5, 4.8

    def table(self) -> Table:
        """Seconds and scores."""
        rows = []
        for spent in self.settings:
            times = (spent.priming, spent.finetuning, spent.total)
            rows.append(Row("", spent.label, (*(Cell(seconds([time])) for time in times), spent.score)))
        names = ("Priming, s", "Fine-tuning and evaluation, s", "Both, s", capitalised(self.scale.axis))
        return Table(f"{self.title}: median seconds and mean {self.scale.label}", names, tuple(rows))

    def draw(self, figure: MplFigure) -> None:
        """Draw a point for each setting, with a legend below."""
        axes = figure.subplots()
        for spent, look in zip(self.settings, looks(len(self.settings)), strict=True):
            fill = look["color"] if spent.priming else "white"
            look |= {"linestyle": "none", "markersize": 8, "markerfacecolor": fill, "label": spent.label}
            axes.errorbar(spent.total, spent.score.mean or 0.0, spent.score.error, **look)
        label = "seconds for priming and for one target (logarithmic)"
        axes.set(xscale="log", xlabel=label, ylabel=self.scale.axis)
        axes.margins(x=0.1, y=0.15)
        _plain_ticks(axes)
        axes.grid()
        legend_below(figure, axes)


class Cost(SettingsFigure):
    """Seconds against mean scores, over the targets that all settings have.

    Attributes:
        settings: the points.
        targets: the targets to average over; all that every setting has if empty.
    """

    name: ClassVar[str] = "cost"

    def compute(self, records: Records) -> CostChart:
        """Compute means of scores, and medians of times, which depend less on other work of the machine."""
        there, absent = comparable(records, self.settings)
        targets, lacking = shared_targets(there, tuple(there), self.targets)
        own = {name: [r for r in found if r.target in targets] for name, found in there.items() if targets}
        scale, unit = shown_as(there)
        spent = tuple(_spent(found, targets, scale) for found in own.values())
        machines = {str(sorted(record.hardware.items())) for found in own.values() for record in found}
        differ = ("The runs were on different hardware, so seconds say little.",) if len(machines) > 1 else ()
        return CostChart(self.title, (*absent, *lacking, *differ), scale, unit, spent, targets)


def _spent(records: Sequence[Record], targets: Sequence[str], scale: Scale) -> Spent:
    priming = statistics.median(record.priming_seconds or 0.0 for record in records)
    finetuning = statistics.median(record.seconds for record in records)
    return Spent(label_of(records), priming, finetuning, mean_score(records, targets, scale))


def _plain_ticks(axes: Axes) -> None:
    """Label the axis at 1, 2, 5, 10 ..., and at more numbers if it is short."""
    low, high = axes.get_xlim()
    shown: list[float] = []
    for digits in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9), [digit / 10 for digit in range(10, 100)]):
        every = [digit * 10.0**power for power in range(-3, 8) for digit in digits]
        shown = [value for value in every if low <= value <= high]
        if len(shown) >= 3:
            break
    axes.set_xticks(shown, [f"{value:,.6g}" for value in shown])
    axes.set_xticks([], minor=True)
    axes.set_xlim(low, high)
