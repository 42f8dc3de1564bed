"""Writing a report into a grid's output folder."""

from __future__ import annotations

from pathlib import Path

from pemeta.reporting.content import Report
from pemeta.reporting.figures import Picture, how_to_draw, picture
from pemeta.reporting.markdown import FIGURES, to_markdown
from pemeta.reporting.page import to_html
from pemeta.utils.files import replaced_folder, write_text
from pemeta.utils.signatures import checked


@checked()
def write_report(folder: str | Path, report: Report) -> None:
    """Write ``report.md``, ``report.html`` and the pictures, as PNG and SVG in ``figures/``, which is replaced.

    Without matplotlib there are no pictures, and the report says how to get them.

    Raises:
        OutputError: the folder cannot be written.
    """
    folder, why = Path(folder), how_to_draw()
    pictures = {} if why else {name: picture(chart) for name, chart in report.drawn.items()}
    if pictures:
        _write_pictures(folder / FIGURES, pictures)
    write_text(folder / "report.md", to_markdown(report, why))
    write_text(folder / "report.html", to_html(report, pictures, why))


def _write_pictures(folder: Path, pictures: dict[str, Picture]) -> None:
    with replaced_folder(folder) as temporary:
        for name, drawn in pictures.items():
            (temporary / f"{name}.png").write_bytes(drawn.png)
            (temporary / f"{name}.svg").write_bytes(drawn.svg)
