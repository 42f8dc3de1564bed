"""``pemeta algorithms``: the priming algorithms, their settings and their cost."""

from __future__ import annotations

from typing import Annotated

import typer


def algorithms(
    chosen: Annotated[
        list[str] | None,
        typer.Argument(
            help="As in a configuration, e.g. reptile or '{name: meta, inner_steps: 10}'; all algorithms by default.",
            metavar="ALGORITHM",
        ),
    ] = None,
) -> None:
    """List the priming algorithms and presets.

    With settings, defaults, papers and cost in forward passes.
    """
    from pemeta.experiments.algorithm_list import describe_algorithms

    for line in describe_algorithms(chosen or ()):
        typer.echo(line)
