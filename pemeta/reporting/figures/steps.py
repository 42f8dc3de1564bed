"""Learning curves: scores on validation examples against fine-tuning steps."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pemeta.reporting.figures.base import (
    Chart,
    Records,
    SettingsFigure,
    comparable,
    label_of,
    shared_targets,
    validated_as,
)
from pemeta.reporting.figures.style import legend_below, looks
from pemeta.reporting.records import Record
from pemeta.reporting.scale import Scale
from pemeta.reporting.tables import MISSING, Cell, Row, Table, listed, mean_cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as MplFigure

COLUMNS = 4
"""The number of panels in a row."""


@dataclass(frozen=True)
class Curve:
    """Scores after each epoch: a mean over seeds, or over seeds and targets."""

    label: str
    steps: tuple[float, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class StepsChart(Chart):
    """The curves of each panel; the first panel is the mean over targets."""

    panels: dict[str, tuple[Curve, ...]]

    @property
    def caption(self) -> str:
        """A textual description of the figure."""
        return (
            f"{self.scale.title} on validation {self.unit}s{self.scale.parenthesis} after each epoch of fine-tuning, "
            "against the number of steps taken: the mean over seeds, in the first panel also over targets. "
            "Bands: ± one standard error over seeds."
        )

    @property
    def empty(self) -> bool:
        """Whether there is no curve."""
        return not any(self.panels.values())

    @property
    def size(self) -> tuple[float, float]:
        """Width and height, in inches, by the number of panels."""
        wide = min(COLUMNS, len(self.panels))
        return max(6.0, 2.7 * wide), 1.0 + 2.3 * -(-len(self.panels) // COLUMNS)

    def table(self) -> Table:
        """The curves of the mean after 1, 2, 4, 8 ... epochs and after the last."""
        curves = next(iter(self.panels.values()), ())
        longest = max((len(curve.cells) for curve in curves), default=0)
        epochs = [2**power for power in range(longest.bit_length()) if 2**power < longest]
        rows = [
            Row("", curve.label, (*(_at(curve.cells, epoch) for epoch in epochs), curve.cells[-1])) for curve in curves
        ]
        names = (*(f"Epoch {epoch}" for epoch in epochs), "Last")
        return Table(
            f"{self.title}: {self.scale.label} on validation {self.unit}s{self.scale.in_percent}", names, tuple(rows)
        )

    def draw(self, figure: MplFigure) -> None:
        """Draw a panel for the mean and one for each target, on the same scale."""
        wide = min(COLUMNS, len(self.panels))
        grid = figure.subplots(-(-len(self.panels) // wide), wide, sharey=True, squeeze=False)
        flat = list(grid.flat)
        for axes, (title, curves) in zip(flat, self.panels.items(), strict=False):
            self._panel(axes, curves)
            axes.set_title(title, fontweight="bold" if axes is flat[0] else "normal")
        for axes in flat[len(self.panels) :]:
            axes.remove()
        for axes in flat[max(0, len(self.panels) - wide) : len(self.panels)]:
            axes.set_xlabel("fine-tuning steps")  # below the last panel of each column
        percent = ", percent" if self.scale.metric.percent else ""
        figure.supylabel(f"{self.scale.label} on validation{percent}", fontsize=10)
        legend_below(figure, flat[0])

    @staticmethod
    def _panel(axes: Axes, curves: Sequence[Curve]) -> None:
        for look, curve in zip(looks(len(curves)), curves, strict=True):
            means = [cell.mean or 0.0 for cell in curve.cells]
            errors = [cell.error or 0.0 for cell in curve.cells]
            low, high = ([m + sign * e for m, e in zip(means, errors, strict=True)] for sign in (-1, 1))
            axes.fill_between(curve.steps, low, high, color=look["color"], alpha=0.18, linewidth=0)
            axes.plot(curve.steps, means, label=curve.label, markersize=3, linewidth=1.5, **look)
        axes.set_xlim(left=0)
        axes.locator_params(axis="x", nbins=4)
        axes.grid(axis="y")


class Steps(SettingsFigure):
    """Learning curves on validation examples, of each target and of their mean.

    Attributes:
        settings: the curves of each panel.
        targets: the panels; all targets that every setting has if empty.
    """

    name: ClassVar[str] = "steps"

    def compute(self, records: Records) -> StepsChart:
        """Compute means and standard errors after each epoch."""
        known = {name: [r for r in records.get(name, ()) if r.validation_curve] for name in self.settings}
        there, absent = comparable(known, self.settings)
        targets, lacking = shared_targets(there, tuple(there), self.targets)
        panels = {"Mean over targets": targets} | {target: (target,) for target in targets}
        if len(targets) < 2:
            panels = {target: (target,) for target in targets}
        scale, unit = validated_as(there)
        curves = {title: tuple(_curve(found, own, scale) for found in there.values()) for title, own in panels.items()}
        return StepsChart(self.title, (*absent, *lacking, *_cut(there, targets)), scale, unit, curves)


def _cut(records: Records, targets: Sequence[str]) -> list[str]:
    """A note on the settings with runs of different lengths, which early stopping leaves."""
    lengths = {
        label_of(found): {len(record.validation_curve) for record in found if record.target in targets}
        for found in records.values()
    }
    if uneven := [label for label, found in lengths.items() if len(found) > 1]:
        return [f"Curves end with the last epoch that all of their runs have; some stopped early: {listed(uneven)}."]
    return []


def _curve(records: Sequence[Record], targets: Sequence[str], scale: Scale) -> Curve:
    """The mean curve over some targets, cut to the shortest of their runs, with the mean of their steps per epoch."""
    runs = [record for record in records if record.target in targets]
    epochs = min(len(record.validation_curve) for record in runs)
    a_step = statistics.fmean(record.steps_per_epoch for record in runs)
    cells = [
        mean_cell({(record.target, record.seed): record.validation_curve[epoch] for record in runs}, targets, scale)
        for epoch in range(epochs)
    ]
    return Curve(label_of(records), tuple(a_step * epoch for epoch in range(1, epochs + 1)), tuple(cells))


def _at(cells: Sequence[Cell], epoch: int) -> Cell:
    return cells[epoch - 1] if epoch <= len(cells) else Cell(MISSING)
