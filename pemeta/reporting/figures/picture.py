"""Drawing charts as pictures: the only file that needs matplotlib to be installed."""

from __future__ import annotations

import importlib.util
import io
import re
import textwrap
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pemeta.reporting.figures.base import Chart
from pemeta.reporting.figures.style import RC

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MplFigure

DPI = 130
LONGEST = 60
"""The number of characters of a title that go into a file's name."""


@dataclass(frozen=True)
class Picture:
    """A chart as files: the same bytes for the same numbers and the same version of matplotlib."""

    png: bytes
    svg: bytes


def how_to_draw() -> str | None:
    """A line that says how to get pictures if matplotlib is not installed, else None."""
    if importlib.util.find_spec("matplotlib") is not None:
        return None
    return "no pictures, since matplotlib is not installed; run `pip install 'pemeta[plots]'` and rebuild the report"


def names(charts: Sequence[tuple[str, Chart]]) -> list[str]:
    """File names without extension, from kinds and titles; a number distinguishes equal ones."""
    found: list[str] = []
    for kind, chart in charts:
        plain = unicodedata.normalize("NFKD", chart.title).encode("ascii", "ignore").decode().lower()
        words = re.sub(r"[^a-z0-9]+", "-", plain)[:LONGEST].strip("-")
        name = f"{kind}-{words}" if words else kind
        several = sum(other == name or re.fullmatch(rf"{name}-\d+", other) is not None for other in found)
        found.append(f"{name}-{several + 1}" if several else name)
    return found


def picture(chart: Chart) -> Picture:
    """Draw a chart and save it, without a window and independent of the user's style."""
    with _style():
        figure = drawing(chart)
        return Picture(_saved(figure, format="png", dpi=DPI, metadata={"Software": None}), _svg(figure))


def drawing(chart: Chart) -> MplFigure:
    """Draw a chart as a matplotlib figure, which can be changed or shown by other means."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as MplFigure

    with _style():
        figure = MplFigure(figsize=chart.size, layout="constrained")
        FigureCanvasAgg(figure)
        title = textwrap.fill(" ".join(chart.title.split()), int(chart.size[0] * 10.5))
        figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold")
        chart.draw(figure)
        return figure


@contextmanager
def _style() -> Iterator[None]:
    """Use pemeta's style instead of the user's, without warnings about letters that the font lacks."""
    import matplotlib as mpl

    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        mpl.rcdefaults()
        mpl.rcParams.update(RC)
        yield


def _svg(figure: Any) -> bytes:
    text = _saved(figure, format="svg", metadata={"Date": None, "Creator": None}).decode()
    # Trailing blanks would be flagged or removed when the file is committed.
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines()).encode()


def _saved(figure: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, **options)
    return stream.getvalue()
