"""A matrix of mean scores, such as inner loop × fine-tuning in Figure 4 of (Gheini et al., 2023)."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from pydantic import Field, model_validator
from typing_extensions import Self

from pemeta.errors import counted
from pemeta.reporting.figures.base import Chart, Figure, Records, comparable, mean_score, shared_targets, shown_as
from pemeta.reporting.figures.style import ACCENT, INK, LINE, SMALL, SOFT
from pemeta.reporting.scale import Scale
from pemeta.reporting.tables import MISSING, Cell, Row, Table, decimals, listed, number_shown
from pemeta.utils.registry import Distinct

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as MplFigure

Cells: TypeAlias = tuple[tuple[Cell, ...], ...]

WIDE = 18
"""The number of characters of a title that fit over a column."""


@dataclass(frozen=True)
class MatrixChart(Chart):
    """Mean scores, ``cells[row][column]``, and published numbers in the same layout."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    row_axis: str
    column_axis: str
    targets: tuple[str, ...]
    cells: Cells
    reference: Cells
    reference_title: str

    @property
    def caption(self) -> str:
        """A textual description of the figure."""
        beside = f" Beside it: {self.reference_title}." if self.reference else ""
        return (
            f"{self.scale.title}{self.scale.percent_words}, the mean over {listed(self.targets)}, ± one standard error "
            f"over seeds; the {self.scale.best} of each column is marked.{beside}"
        )

    @property
    def empty(self) -> bool:
        """Whether no cell has a score."""
        return all(cell.mean is None for row in self.cells for cell in row)

    @property
    def size(self) -> tuple[float, float]:
        """Width and height, in inches, by the numbers of rows and columns."""
        panels = 2 if self.reference else 1
        return panels * (1.7 + 1.35 * len(self.columns)), 1.5 + 0.75 * len(self.rows) + (0.15 if self.reference else 0)

    def table(self) -> Table:
        """The numbers of this run, followed by the reference."""
        groups = [("This run", self.cells), (self.reference_title, self.reference)]
        rows = [
            Row(group, label, cells)
            for group, matrix in groups
            for label, cells in zip(self.rows, matrix, strict=False)  # there may be no reference
        ]
        head = self.row_axis or "Row"
        return Table(f"{self.title}: mean {self.scale.label_in_percent}", self.columns, tuple(rows), head=head)

    def draw(self, figure: MplFigure) -> None:
        """Draw the numbers in a grid, with the reference on its right."""
        panels = [("This run", self.cells)] + ([(self.reference_title, self.reference)] if self.reference else [])
        for axes, (title, cells) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            self._panel(axes, cells)
            room = WIDE * len(self.columns)
            axes.set_title(textwrap.fill(title, room) if len(panels) > 1 else "", color=SOFT, fontsize=9.5)

    def _panel(self, axes: Axes, cells: Cells) -> None:
        for y, x in itertools.product(range(len(self.rows)), range(len(self.columns))):
            cell = cells[y][x]
            axes.fill([x, x + 1, x + 1, x], [y, y, y + 1, y + 1], facecolor=ACCENT if cell.best else "white")
            axes.fill([x, x + 1, x + 1, x], [y, y, y + 1, y + 1], fill=False, edgecolor=LINE)
            number, _, error = cell.text.partition(" ± ")
            weight = "bold" if cell.best else "normal"
            middle = y + (0.44 if error else 0.5)
            axes.text(x + 0.5, middle, number, ha="center", va="center", fontsize=14, weight=weight)
            if error:
                axes.text(x + 0.5, y + 0.76, f"± {error}", ha="center", va="center", fontsize=SMALL, color=SOFT)
        axes.set(xlim=(0, len(self.columns)), ylim=(len(self.rows), 0), xlabel=self.column_axis, ylabel=self.row_axis)
        axes.set_xticks([x + 0.5 for x in range(len(self.columns))], self.columns, color=INK)
        axes.set_yticks([y + 0.5 for y in range(len(self.rows))], self.rows, color=INK)
        axes.xaxis.set_label_position("top")
        axes.tick_params(length=0, labeltop=True, labelbottom=False)
        axes.spines[["left", "bottom"]].set_visible(False)


class Matrix(Figure):
    """Mean scores of settings in rows and columns, over the targets that all of them have.

    Attributes:
        rows: labels of the rows.
        columns: labels of the columns.
        settings: the settings of each row.
        row_axis: the name of the rows' axis, such as ``inner loop of priming``; null for none.
        column_axis: the name of the columns' axis; null for none.
        targets: the targets to average over; all that every setting has if empty.
        reference: published numbers in the same rows and columns, in the unit of the scores; null where one is unknown.
        reference_title: the source of the published numbers, and how they differ from this run.
    """

    name: ClassVar[str] = "matrix"

    rows: tuple[str, ...] = Field(min_length=1)
    columns: tuple[str, ...] = Field(min_length=1)
    settings: tuple[tuple[str, ...], ...]
    row_axis: str | None = None
    column_axis: str | None = None
    targets: Distinct = ()
    reference: tuple[tuple[float | None, ...], ...] = ()
    reference_title: str = "other model, other data"

    @model_validator(mode="after")
    def _shapes(self) -> Self:
        shape = [len(self.columns)] * len(self.rows)
        for what, found in (("settings", self.settings), ("reference", self.reference)):
            if list(map(len, found)) != shape and (found or what == "settings"):
                raise ValueError(
                    f"{what}: expected {counted(len(shape), 'list')} of {len(self.columns)}, one for each of rows and "
                    f"columns; found lists of {list(map(len, found))}"
                )
        return self

    def settings_named(self) -> set[str]:
        """The settings of all rows."""
        return {name for row in self.settings for name in row}

    def targets_named(self) -> set[str]:
        """The targets."""
        return set(self.targets)

    def compute(self, records: Records) -> MatrixChart:
        """Compute means over targets of means over seeds."""
        there, absent = comparable(records, (name for row in self.settings for name in row))
        targets, lacking = shared_targets(there, tuple(there), self.targets)
        scale, unit = shown_as(there)
        cells = [
            [mean_score(there[name], targets, scale) if name in there else Cell(MISSING) for name in row]
            for row in self.settings
        ]
        digits = decimals(score for row in self.reference for score in row)
        published = [
            [Cell(MISSING if score is None else f"{score:.{digits}f}", score) for score in row]
            for row in self.reference
        ]
        return MatrixChart(
            self.title,
            (*absent, *lacking),
            scale,
            unit,
            self.rows,
            self.columns,
            self.row_axis or "",
            self.column_axis or "",
            targets,
            _with_best(cells, scale),
            _with_best(published, scale),
            self.reference_title,
        )


def _with_best(cells: Sequence[Sequence[Cell]], scale: Scale) -> Cells:
    """Mark the best cell of each column; cells that are displayed as equal tie, and a row alone has no best."""
    known = [[number_shown(cell) for cell in column if cell.mean is not None] for column in zip(*cells, strict=True)]
    tops = [scale.best_of(column) if column and len(cells) > 1 else None for column in known]
    return tuple(
        tuple(
            replace(cell, best=cell.mean is not None and top is not None and number_shown(cell) == top)
            for cell, top in zip(row, tops, strict=True)
        )
        for row in cells
    )
