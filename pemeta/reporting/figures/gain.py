"""The gain of priming for each PE method, with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from pemeta.reporting.bootstrap import Difference, paired_difference
from pemeta.reporting.figures.base import Chart, Figure, Records, mean_score, shown_as
from pemeta.reporting.figures.style import COLOURS, LINE, SMALL, SOFT
from pemeta.reporting.tables import Cell, Row, Table, listed
from pemeta.utils.registry import Distinct

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MplFigure


@dataclass(frozen=True)
class Gain:
    """The scores of one method without and with priming, and by how much it is better with it."""

    label: str
    primed: Cell
    unprimed: Cell
    difference: Difference


@dataclass(frozen=True)
class GainChart(Chart):
    """A gain for each method."""

    gains: tuple[Gain, ...]

    @property
    def caption(self) -> str:
        """A textual description of the figure."""
        sides = ("with priming", "without it") if self.scale.metric.higher_is_better else ("without priming", "with it")
        first, second = (f"{self.scale.label} {side}" for side in sides)
        return (
            f"Large dots: {first} less {second}{self.scale.in_points}, the mean over targets and seeds that both "
            f"have; lines: 95 % intervals over seeds and test {self.unit}s; small dots: single targets."
        )

    @property
    def empty(self) -> bool:
        """Whether no pair has a run in common yet."""
        return not self.gains

    @property
    def size(self) -> tuple[float, float]:
        """Width and height, in inches: a line for each method."""
        return 7.5, 1.3 + 0.5 * len(self.gains)

    def table(self) -> Table:
        """Both means, the gain, its targets and the number of seeds, by method."""
        rows = []
        for gain in self.gains:
            whole = gain.difference.whole
            texts = [
                self.scale.signed(whole.mean),
                self.scale.interval(whole.low, whole.high),
                listed(gain.difference.by_target),
            ]
            cells = (gain.unprimed, gain.primed, *map(Cell, texts), Cell(str(len(gain.difference.seeds))))
            rows.append(Row("", gain.label, cells))
        names = ("Unprimed", "Primed", self.scale.gain_word, "95 % interval", "Targets", "Seeds")
        return Table(f"{self.title}: {self.scale.with_gains}", names, tuple(rows), head="Method")

    def draw(self, figure: MplFigure) -> None:
        """Draw a line for each method, with its numbers on the right."""
        axes, factor = figure.subplots(), self.scale.factor
        axes.axvline(0, color=SOFT, linewidth=1)
        for y, gain in enumerate(self.gains):
            whole = gain.difference.whole
            single = [factor * target.mean for target in gain.difference.by_target.values()]
            axes.plot(single, [y + 0.22] * len(single), "o", color=SOFT, markersize=3.5, alpha=0.6)
            axes.plot([factor * whole.low, factor * whole.high], [y, y], color=COLOURS[0], linewidth=2.5)
            axes.plot(factor * whole.mean, y, "o", color=COLOURS[0], markersize=8)
            text = f"{self.scale.signed(whole.mean)}  [{self.scale.interval(whole.low, whole.high)}]"
            place = axes.get_yaxis_transform()
            axes.text(1.03, y, text, transform=place, va="center", fontsize=SMALL + 0.5)
        axes.set_yticks(range(len(self.gains)), [gain.label for gain in self.gains])
        axes.set(ylim=(len(self.gains) - 0.5, -0.5), xlabel=self.scale.gain)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color=LINE)


class Gains(Figure):
    """The gain of priming for each method: paired differences and their intervals.

    Attributes:
        pairs: the two settings by method label, the primed one first.
        targets: the targets to compare on; all that both settings have if empty.
    """

    name: ClassVar[str] = "gain"

    pairs: dict[str, tuple[str, str]] = Field(min_length=1)
    targets: Distinct = ()

    def settings_named(self) -> set[str]:
        """The settings of all pairs."""
        return {name for pair in self.pairs.values() for name in pair}

    def targets_named(self) -> set[str]:
        """The targets."""
        return set(self.targets)

    def compute(self, records: Records) -> GainChart:
        """Compute the difference of each pair; a pair without a common run is omitted."""
        gains: list[Gain] = []
        lacking: list[str] = []
        named = self.settings_named()
        scale, unit = shown_as({name: found for name, found in records.items() if name in named})
        for label, (primed, unprimed) in self.pairs.items():
            one, other = records.get(primed, ()), records.get(unprimed, ())
            difference = paired_difference(one, other, self.targets)
            if difference is None:
                lacking.append(label)
                continue
            runs = {(r.target, r.seed) for r in one} & {(r.target, r.seed) for r in other}
            with_priming, without = (
                mean_score([r for r in side if (r.target, r.seed) in runs], tuple(difference.by_target), scale)
                for side in (one, other)
            )
            gains.append(Gain(label, with_priming, without, difference.gain))
        notes = [f"Omitted because their settings have no run in common yet: {listed(lacking)}."] if lacking else []
        if single := [gain.label for gain in gains if len(gain.difference.seeds) == 1]:
            notes.append(f"One seed, so the interval covers {unit}s only: {listed(single)}.")
        return GainChart(self.title, tuple(notes), scale, unit, tuple(gains))
