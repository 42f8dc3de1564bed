"""``pemeta report``: the report of an output folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    folder: Annotated[Path, typer.Argument(help="Output folder of a grid.", metavar="DIR")],
    csv: Annotated[bool, typer.Option("--csv", help="Also write all records as a table to DIR/records.csv.")] = False,
) -> None:
    """Recreate the report of a grid.

    It is shown on screen, and written to DIR/report.md and DIR/report.html, with pictures in DIR/figures.
    """
    from pemeta.reporting import write_csv

    make_report(folder)
    if csv:
        typer.echo(f"Records written to {write_csv(folder)}")


def make_report(folder: Path, quiet: bool = False) -> None:
    """Show and write a report: on screen first, so that it can be read where it cannot be written.

    Args:
        folder: output folder of a grid.
        quiet: do not show it.
    """
    from pemeta.experiments.report_files import read_report
    from pemeta.reporting import to_terminal, write_report

    found = read_report(folder)
    if not quiet:
        typer.echo(f"\n{to_terminal(found)}\n")
    write_report(folder, found)
    typer.echo(f"Written to {folder / 'report.md'} and {folder / 'report.html'}")
