"""Grouped bars: scores of a few settings on each target, like Figure 3 of (Gheini et al., 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pemeta.errors import counted
from pemeta.reporting.figures.base import (
    ERROR_BARS,
    Chart,
    Records,
    SettingsFigure,
    all_targets,
    comparable,
    label_of,
    mean_score,
    shown_as,
)
from pemeta.reporting.figures.style import COLOURS, INK, SMALL, legend_below
from pemeta.reporting.records import Record
from pemeta.reporting.scale import Scale
from pemeta.reporting.tables import Cell, Row, Table, seeds_cell, with_best

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as MplFigure

GROUP, GAP = 0.82, 0.35
"""The width of a group of bars, in units of the distance of groups, and the extra distance of the means."""


@dataclass(frozen=True)
class BarChart(Chart):
    """Scores, ``cells[setting][column]``; the last column is the mean."""

    labels: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]

    @property
    def caption(self) -> str:
        """A textual description of the figure."""
        return (
            f"Bars: {self.scale.label}{self.scale.parenthesis} of {counted(len(self.labels), 'setting')} on "
            f"{counted(len(self.columns) - 1, 'target')}, and the mean over targets where a setting has all of them. "
            f"{ERROR_BARS}"
        )

    @property
    def empty(self) -> bool:
        """Whether no setting has a record."""
        return not self.labels

    @property
    def size(self) -> tuple[float, float]:
        """Width and height, in inches: as wide as the bars need."""
        return min(14.0, max(6.5, 1.2 + 0.24 * (len(self.labels) + 1) * len(self.columns))), 4.2

    def table(self) -> Table:
        """Settings × targets and their mean."""
        rows = [Row("", label, cells) for label, cells in zip(self.labels, self.cells, strict=True)]
        return Table(f"{self.title}: {self.scale.label_in_percent}", self.columns, with_best(rows, self.scale))

    def draw(self, figure: MplFigure) -> None:
        """Draw a group of bars for each target, from zero, with their values above them."""
        axes = figure.subplots()
        width = GROUP / len(self.labels)
        places = [*map(float, range(len(self.columns) - 1)), len(self.columns) - 1 + GAP]
        inches = self.size[0] * 0.9 * width / (places[-1] + 1)
        upright = inches > 0.09 * max(4, *(len(_number(cell)) for cells in self.cells for cell in cells))
        for index, (label, cells) in enumerate(zip(self.labels, self.cells, strict=True)):
            shift = (index - (len(self.labels) - 1) / 2) * width
            shown = [(x + shift, cell) for x, cell in zip(places, cells, strict=True) if cell.mean is not None]
            self._bars(axes, label, shown, width, COLOURS[index % len(COLOURS)], upright)
        axes.set_xticks(places, self.columns)
        axes.tick_params(axis="x", length=0)
        axes.set(ylabel=self.scale.axis, xlim=(-0.6, places[-1] + 0.6))
        low, high = axes.get_ylim()
        axes.set_ylim(min(0, low), high * (1.06 if upright else 1.14))
        axes.grid(axis="y")
        legend_below(figure, axes)

    @staticmethod
    def _bars(
        axes: Axes, label: str, shown: Sequence[tuple[float, Cell]], width: float, colour: str, upright: bool
    ) -> None:
        heights = [cell.mean or 0.0 for _, cell in shown]
        axes.bar([x for x, _ in shown], heights, 0.92 * width, color=colour, label=label)
        for (x, cell), height in zip(shown, heights, strict=True):
            if cell.error is not None:
                axes.errorbar(x, height, cell.error, color=INK, linewidth=1)
            axes.annotate(
                _number(cell),
                (x, max(0.0, height) + (cell.error or 0)),
                (0, 3),
                textcoords="offset points",
                ha="center",
                va="bottom",
                rotation=0 if upright else 90,
                fontsize=SMALL,
            )


class Bars(SettingsFigure):
    """Grouped bars: the score of each setting on each target, and the mean over targets.

    Attributes:
        settings: the bars of each group, in this order.
        targets: the groups; all targets that any of the settings has if empty.
    """

    name: ClassVar[str] = "bars"

    def compute(self, records: Records) -> BarChart:
        """Compute means and standard errors over seeds."""
        there, notes = comparable(records, self.settings)
        targets = self.targets or all_targets(there, there)
        scale, unit = shown_as(there)
        cells = tuple(
            (*_by_target(found, targets, scale), mean_score(found, targets, scale)) for found in there.values()
        )
        labels = tuple(map(label_of, there.values()))
        return BarChart(self.title, notes, scale, unit, labels, (*targets, "Mean"), cells)


def _by_target(records: Sequence[Record], targets: Sequence[str], scale: Scale) -> list[Cell]:
    of_target = [[record.score for record in records if record.target == target] for target in targets]
    return [seeds_cell(scores, scale) for scores in of_target]


def _number(cell: Cell) -> str:
    """A score as it is displayed, without its error."""
    return cell.text.partition(" ")[0]
