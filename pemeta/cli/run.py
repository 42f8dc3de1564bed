"""``pemeta run``: everything that a configuration describes, and then the report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pemeta.cli.arguments import ConfigFile, Overrides
from pemeta.cli.report import make_report
from pemeta.errors import FailedRunsError, PemetaError

if TYPE_CHECKING:
    from pemeta.experiments.runner import Runner  # imports PyTorch, which would slow `pemeta --help` down


def run(
    config: ConfigFile,
    overrides: Overrides = None,
    jobs: Annotated[int, typer.Option(min=1, help="Number of runs at a time, each in a process of its own.")] = 1,
    device: Annotated[
        str | None,
        typer.Option(
            help="Device, instead of the configuration's; several, separated by commas, are used in turn.", metavar="D"
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what is done, running and left; run nothing.")
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            help="Show no progress, no line per run and no tables; only errors, and where the report is.",
        ),
    ] = False,
    log_json: Annotated[
        Path | None,
        typer.Option(
            "--log-json", help="Add a JSON object a line to FILE for each step, validation and result.", metavar="FILE"
        ),
    ] = None,
) -> None:
    """Run everything in CONFIG, then report.

    Models are primed, fine-tuned and tested; what has a current result in the output folder is not repeated.
    """
    from pemeta.experiments.config_file import load_config
    from pemeta.experiments.runner import Runner
    from pemeta.utils.distributed import process_group

    devices = device.split(",") if device else ()
    with process_group() as processes:
        runner = processes.each(
            lambda: Runner(
                load_config(config, overrides or ()),
                say=_discard if quiet else typer.echo,
                progress=not quiet,
                jobs=jobs,
                devices=devices,
                warn=_to_stderr if quiet else None,
                log=None if dry_run else log_json,
            )
        )
        if not dry_run:
            _run(runner, processes.first, quiet)
        elif processes.first:
            typer.echo("\n".join(runner.dry_run()))


def _run(runner: Runner, first: bool, quiet: bool) -> None:
    """Run, and report; of several processes the first one reports."""
    from pemeta.utils.signals import termination_interrupts

    try:
        with termination_interrupts():
            runner.run()
    except FailedRunsError:
        if first and any((runner.folder / "records").glob("*.json")):
            try:
                make_report(runner.folder, quiet)
            except PemetaError as error:  # the failures are reported in any case
                typer.echo(f"no report: {error}", err=quiet)
        raise
    except KeyboardInterrupt as interruption:
        what = str(interruption) or "stopped"
        raise KeyboardInterrupt(f"{what}. What is finished is saved: the same command goes on from there") from None
    if not first:
        return
    make_report(runner.folder, quiet)
    if not quiet and (command := runner.how_to_predict()):
        typer.echo(f"Fine-tuned tasks are in {runner.folder / 'models'}; use one with: {command}")


def _discard(_: str) -> None:
    """Discard a message."""


def _to_stderr(line: str) -> None:
    typer.echo(line, err=True)
