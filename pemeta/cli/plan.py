"""``pemeta plan``: an estimate of what a configuration takes."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pemeta.cli.arguments import ConfigFile, Overrides


def plan(
    config: ConfigFile,
    overrides: Overrides = None,
    device: Annotated[
        str | None,
        typer.Option(help="h100, a100, l4, t4, cpu ...; by default the configuration's, on this machine."),
    ] = None,
    world_size: Annotated[int, typer.Option(min=1, help="Number of processes, each with a device of its own.")] = 1,
    length: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a sentence; by default the most that are possible.")
    ] = None,
    share: Annotated[
        float | None,
        typer.Option(help="Share of a padded batch's positions that are tokens; by default the data's, or WikiAnn's."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object: bytes, seconds, operations.")] = False,
) -> None:
    """Estimate what CONFIG takes.

    Nothing is run; parameters, memory, operations and time of each stage are shown.
    """
    from pemeta.estimate import estimate_grid, to_json, to_text
    from pemeta.experiments.config_file import load_config

    found = estimate_grid(load_config(config, overrides or ()), device, world_size, length, share)
    if as_json:
        typer.echo(json.dumps(to_json(found), ensure_ascii=False, indent=2))
        return
    for line in to_text(found):
        typer.echo(line)
