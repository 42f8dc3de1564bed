"""What a setting costs against how good it is."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pemeta.figures.base import (
    ERROR_BARS,
    Chart,
    Records,
    SettingsFigure,
    comparable,
    label_of,
    mean_score,
    shared_targets,
)
from pemeta.figures.style import COLOURS, SMALL, SOFT
from pemeta.results import Record
from pemeta.tables import Cell, Row, Table, listed, seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as MplFigure
    from matplotlib.text import Annotation

SIDES = ((9, 0), (0, 11), (0, -11), (-9, 0), (8, 9), (8, -9), (-8, 9), (-8, -9))
OFFSETS = [(x * far, y * far) for far in (1, 1.8, 3, 4.5) for x, y in SIDES]
"""Where a label may stand beside its point, in points; the first place that is free is taken."""
OUTSIDE = 3
"""How many covered labels are as bad as one that leaves the frame, where it may be cut off."""


@dataclass(frozen=True)
class Spent:
    """One setting: mean seconds, and mean F1 in percent."""

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
        """What is drawn."""
        return (
            f"F1, in percent, the mean over {listed(self.targets)}, against the seconds that it "
            "takes to prime once, fine-tune on one target and evaluate; priming serves all targets. "
            f"Blue: with priming; grey: without. {ERROR_BARS}"
        )

    @property
    def empty(self) -> bool:
        """Whether there is no point."""
        return not self.settings

    @property
    def size(self) -> tuple[float, float]:
        """Room for labels."""
        return 7.5, 4.6

    def table(self) -> Table:
        """Seconds and scores."""
        rows = []
        for spent in self.settings:
            times = (spent.priming, spent.finetuning, spent.total)
            rows.append(Row("", spent.label, (*(Cell(seconds([time])) for time in times), spent.score)))
        names = ("Priming, s", "Fine-tuning and evaluation, s", "Both, s", "F1, percent")
        return Table(f"{self.title}: mean seconds and mean F1", names, tuple(rows))

    def draw(self, figure: MplFigure) -> None:
        """Points with their names beside them."""
        axes = figure.subplots()
        for spent in self.settings:
            colour = COLOURS[0] if spent.priming else SOFT
            axes.errorbar(spent.total, spent.score.mean or 0.0, spent.score.error, fmt="o", markersize=7, color=colour)
        axes.set(xscale="log", xlabel="seconds for priming and for one target (logarithmic)", ylabel="F1, percent")
        axes.margins(x=0.25, y=0.15)
        _plain_ticks(axes)
        axes.grid()
        figure.draw_without_rendering()  # the axes take their final places
        places = [(spent.total, spent.score.mean or 0.0) for spent in self.settings]
        _label(axes, places, [spent.label for spent in self.settings])


class Cost(SettingsFigure):
    """Seconds against mean F1, over the targets that all settings have.

    Attributes:
        settings: a point for each.
        targets: to take the mean over; all that every setting has where empty.
    """

    name: ClassVar[str] = "cost"

    def compute(self, records: Records) -> CostChart:
        """Means over targets and seeds."""
        there, absent = comparable(records, self.settings)
        targets, lacking = shared_targets(there, tuple(there), self.targets)
        own = {name: [r for r in found if r.target in targets] for name, found in there.items() if targets}
        spent = tuple(_spent(found, targets) for found in own.values())
        machines = {str(sorted(record.hardware.items())) for found in own.values() for record in found}
        differ = ("The runs were on different hardware, so seconds say little.",) if len(machines) > 1 else ()
        return CostChart(self.title, (*absent, *lacking, *differ), spent, targets)


def _spent(records: Sequence[Record], targets: Sequence[str]) -> Spent:
    priming = statistics.fmean(record.priming_seconds or 0.0 for record in records)
    finetuning = statistics.fmean(record.seconds for record in records)
    return Spent(label_of(records), priming, finetuning, mean_score(records, targets))


def _plain_ticks(axes: Axes) -> None:
    """1, 2, 5, 10 ... as numbers, more of them where the axis is short."""
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


def _label(axes: Axes, places: Sequence[tuple[float, float]], labels: Sequence[str]) -> None:
    """Names beside points, so that none covers another, a point, or the frame if that can be."""
    pixels = axes.transData.transform(places)
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in pixels]
    frame = axes.get_window_extent()
    for place, text in zip(places, labels, strict=True):
        best: tuple[int, tuple[float, float, float, float]] | None = None
        offset = OFFSETS[0]
        for candidate in OFFSETS:
            note = _annotate(axes, place, text, candidate)
            box = note.get_window_extent().extents
            extents = (float(box[0]), float(box[1]), float(box[2]), float(box[3]))
            outside = extents[0] < frame.x0 or extents[2] > frame.x1 or extents[1] < frame.y0 or extents[3] > frame.y1
            clashes = sum(_overlap(extents, other) for other in taken) + OUTSIDE * outside
            note.remove()
            if best is None or clashes < best[0]:
                best, offset = (clashes, extents), candidate
        assert best is not None  # there are offsets
        taken.append(best[1])
        _annotate(axes, place, text, offset)


def _annotate(axes: Axes, place: tuple[float, float], text: str, offset: tuple[float, float]) -> Annotation:
    x, y = offset
    return axes.annotate(
        text,
        place,
        offset,
        textcoords="offset points",
        ha="left" if x > 0 else "right" if x < 0 else "center",
        va="bottom" if y > 0 else "top" if y < 0 else "center",
        fontsize=SMALL + 0.5,
        in_layout=False,
    )


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
