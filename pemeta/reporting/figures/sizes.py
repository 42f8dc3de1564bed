"""Scores against the number of training examples, and the gain over the first curve."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator
from typing_extensions import Self

from pemeta.reporting.bootstrap import Difference, paired_difference
from pemeta.reporting.figures.base import (
    ERROR_BARS,
    Chart,
    Figure,
    Records,
    comparable,
    mean_score,
    shared_targets,
    shown_as,
)
from pemeta.reporting.figures.style import SMALL, SOFT, legend_below, log_ticks, looks
from pemeta.reporting.scale import Scale
from pemeta.reporting.tables import MISSING, Cell, Row, Table, listed, span
from pemeta.utils.registry import Distinct

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as MplFigure


@dataclass(frozen=True)
class Point:
    """One setting: its training examples (mean over targets, and as text), mean score, and gain."""

    examples: float
    shown: str
    score: Cell
    gain: Difference | None


@dataclass(frozen=True)
class SizesChart(Chart):
    """The points of each curve; the others are compared with the first."""

    curves: dict[str, tuple[Point, ...]]
    targets: tuple[str, ...]

    @property
    def caption(self) -> str:
        """A textual description of the figure."""
        label, units, first = self.scale.label, f"{self.unit}s", next(iter(self.curves), "")
        gain = f"{label} less that of “{first}” with as many {units}"
        if not self.scale.metric.higher_is_better:
            gain = f"{label} of “{first}” with as many {units} less that of the others"
        return (
            f"Left: {label}{self.scale.parenthesis} against the training {units} of a target (their mean where targets "
            f"differ), the mean over {listed(self.targets)}. {ERROR_BARS} Right: {gain}{self.scale.in_points}, with "
            f"95 % intervals over seeds and test {units}."
        )

    @property
    def empty(self) -> bool:
        """Whether no curve has a point."""
        return not any(self.curves.values())

    @property
    def size(self) -> tuple[float, float]:
        """Width and height, in inches, of two panels."""
        return 9.0, 4.0

    def table(self) -> Table:
        """A row for each point, grouped by curve."""
        rows, scale = [], self.scale
        for label, curve in self.curves.items():
            for point in curve:
                whole = None if point.gain is None else point.gain.whole
                texts = (
                    (MISSING, MISSING)
                    if whole is None
                    else (scale.signed(whole.mean), scale.interval(whole.low, whole.high))
                )
                rows.append(Row(label, point.shown, (point.score, *map(Cell, texts))))
        names = (scale.title, scale.gain_word, "95 % interval")
        return Table(f"{self.title}: {scale.with_gains}", names, tuple(rows), head=f"Training {self.unit}s")

    def draw(self, figure: MplFigure) -> None:
        """Draw the curves, and next to them their distance from the first."""
        left, right = figure.subplots(1, 2)
        for index, (look, (label, curve)) in enumerate(zip(looks(len(self.curves)), self.curves.items(), strict=True)):
            places = [point.examples for point in curve]
            means = [point.score.mean or 0.0 for point in curve]
            left.errorbar(places, means, [point.score.error or 0.0 for point in curve], label=label, **look)
            self._gains(right, curve, index, look)
        every = [point.examples for curve in self.curves.values() for point in curve]
        for axes in (left, right):
            log_ticks(axes, every)
            axes.set(xlabel=f"training {self.unit}s of a target")
            axes.margins(x=0.2)
            axes.grid(axis="y")
        left.set_ylabel(self.scale.axis)
        right.set_ylabel(self.scale.gain)
        legend_below(figure, left)

    def _gains(self, axes: Axes, curve: Sequence[Point], index: int, look: dict[str, Any]) -> None:
        """Draw one curve's gains, shifted a little so that intervals do not hide each other."""
        if index == 0:
            axes.axhline(0, color=SOFT, linewidth=1)
            return
        factor = self.scale.factor
        shift = 1 + 0.06 * (index - len(self.curves) / 2)
        known = [(shift * point.examples, point.gain.whole) for point in curve if point.gain]
        found = [(place, factor * whole.mean, whole) for place, whole in known]
        if not found:
            return
        places, means, wholes = zip(*found, strict=True)
        below = [max(0.0, mean - factor * whole.low) for mean, whole in zip(means, wholes, strict=True)]
        above = [max(0.0, factor * whole.high - mean) for mean, whole in zip(means, wholes, strict=True)]
        axes.errorbar(places, means, [below, above], **look)
        if len(self.curves) > 3:
            return  # numbers would overlap
        left = index == 1 and len(self.curves) == 3
        for place, mean, whole in found:
            axes.annotate(
                self.scale.signed(whole.mean),
                (place, mean),
                (-7, -3) if left else (7, 3),  # gains tend to fall: the lines pass on the other sides
                textcoords="offset points",
                ha="right" if left else "left",
                va="top" if left else "bottom",
                fontsize=SMALL,
            )


class SizeCurves(Figure):
    """Scores against training examples: a curve for each way to start, and the gain over the first.

    Attributes:
        curves: the settings of each curve by its label, from few examples to many; the k-th settings of all curves
            have equally many. The others are compared with the first curve.
        targets: the targets to average over; all that every setting has if empty.
    """

    name: ClassVar[str] = "sizes"

    curves: dict[str, tuple[str, ...]] = Field(min_length=1)
    targets: Distinct = ()

    @model_validator(mode="after")
    def _aligned(self) -> Self:
        lengths = {label: len(settings) for label, settings in self.curves.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(
                f"curves: expected equally many settings in each, since the k-th are compared; found {lengths}"
            )
        return self

    def settings_named(self) -> set[str]:
        """The settings of all curves."""
        return {name for settings in self.curves.values() for name in settings}

    def targets_named(self) -> set[str]:
        """The targets."""
        return set(self.targets)

    def compute(self, records: Records) -> SizesChart:
        """Compute means, and differences from the first curve."""
        there, absent = comparable(records, (name for settings in self.curves.values() for name in settings))
        targets, lacking = shared_targets(there, tuple(there), self.targets)
        first, (scale, unit) = next(iter(self.curves)), shown_as(there)
        curves = {
            label: tuple(
                _point(there, name, base if label != first else None, targets, scale)
                for name, base in zip(settings, self.curves[first], strict=True)
                if name in there and targets
            )
            for label, settings in self.curves.items()
        }
        return SizesChart(self.title, (*absent, *lacking), scale, unit, curves, targets)


def _point(records: Records, name: str, base: str | None, targets: Sequence[str], scale: Scale) -> Point:
    own = [record for record in records[name] if record.target in targets]
    gain = paired_difference(own, records.get(base, ()), targets) if base is not None else None
    sizes = [record.num_train for record in own]
    score = mean_score(own, targets, scale)
    return Point(statistics.fmean(sizes), span(sizes), score, None if gain is None else gain.gain)
