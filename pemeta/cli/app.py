"""The command ``pemeta``: its verbs, and the options before them."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from pemeta.cli import algorithms, data, export, init, methods, plan, predict, report, run, schema, setup, validate
from pemeta.cli.verbs import Verbs

COMPLETION = "_PEMETA_COMPLETE"
"""Environment variable by which a shell asks for completions."""

app = typer.Typer(
    cls=Verbs,
    help="Prime a pretrained model for parameter-efficient fine-tuning, fine-tune it on many tasks, and compare.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verb in (
    init.init,
    run.run,
    report.report,
    methods.methods,
    algorithms.algorithms,
    validate.validate,
    data.data,
    plan.plan,
    predict.predict,
    export.export,
    schema.schema,
):
    app.command()(verb)
app.command("setup-learn2learn", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
    setup.setup_learn2learn
)


def _show_version(wanted: bool) -> None:
    if wanted:
        import pemeta

        typer.echo(f"pemeta {pemeta.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """The options before a verb."""


def main() -> None:
    """Entry point: exit code 0, 2 on an error, 130 when interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without → or θ is no reason to lose a run
    try:
        app(prog_name="pemeta")
    except Exception:
        if COMPLETION in os.environ:
            sys.exit(1)  # a traceback would appear in the line that is being typed
        raise
