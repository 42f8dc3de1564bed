"""The style of pictures: colours, fonts and marks that several kinds of figures share."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as MplFigure

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#5f6b76")
"""Distinct for colour-blind readers (Okabe and Ito, 2008), without their yellow, which is too light for lines."""
MARKERS = "osD^vPX"
INK, SOFT, LINE, ACCENT = "#1b1f24", "#59636e", "#d1d9e0", "#d6e8f4"
SMALL = 9.0
"""The smallest font, in points."""

RC: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.labelsize": 10,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "errorbar.capsize": 2.5,
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same picture everywhere
    "font.size": 10,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "pemeta",  # identifiers would differ from picture to picture otherwise
    "text.color": INK,
    "text.parse_math": False,  # a label may hold a $
    "xtick.color": SOFT,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 9.5,
    "ytick.color": SOFT,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 9.5,
}


def looks(number: int) -> list[dict[str, Any]]:
    """The colour, marker and line of each of ``number`` series, in different combinations."""
    kinds = itertools.product(("-", "--", ":"), zip(COLOURS, MARKERS, strict=True))
    cycle = itertools.islice(itertools.cycle(kinds), number)
    return [{"color": colour, "marker": marker, "linestyle": line} for line, (colour, marker) in cycle]


def legend_below(figure: MplFigure, axes: Axes, most: int = 4) -> None:
    """Draw one legend for the whole picture, outside of all axes."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=columns(labels, figure.get_figwidth(), most))


def columns(labels: Sequence[str], width: float, most: int = 4) -> int:
    """The number of legend columns that fit into a width in inches."""
    widest = max(map(len, labels), default=1) * 0.085 + 0.6
    return max(1, min(most, len(labels), int(width / widest)))


def log_ticks(axes: Axes, values: Sequence[float]) -> None:
    """Make the x axis logarithmic, with labels at these values only."""
    axes.set_xscale("log")
    places: list[float] = []
    for value in sorted(values):
        if not places or value > 1.15 * places[-1]:  # their labels would overlap otherwise
            places.append(value)
    axes.set_xticks(places, [f"{value:,.0f}" for value in places])
    axes.set_xticks([], minor=True)
