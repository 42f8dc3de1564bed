"""``pemeta methods``: the PE methods and their sizes."""

from __future__ import annotations

from typing import Annotated

import typer


def methods(
    chosen: Annotated[
        list[str] | None,
        typer.Argument(
            help="As in a configuration, e.g. lora or '{name: lora, rank: 4}'; all methods by default.",
            metavar="METHOD",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Folder or hub name of a model: also show how many of its parameters a method adapts, and the names "
            "of its layers' parts."
        ),
    ] = None,
) -> None:
    """List the PE methods and their fields.

    With defaults, papers and, for a given model, sizes.
    """
    from pemeta.experiments.method_list import describe_methods

    for line in describe_methods(chosen or (), model):
        typer.echo(line)
