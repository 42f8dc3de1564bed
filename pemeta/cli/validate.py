"""``pemeta validate``: a check of a configuration."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

from pemeta.cli.arguments import ConfigFile, Overrides

if TYPE_CHECKING:
    from pemeta.experiments.config import GridConfig  # imports PyTorch, which would slow `pemeta --help` down


def validate(
    config: ConfigFile,
    overrides: Overrides = None,
    load: Annotated[bool, typer.Option("--load", help="Also read all data and build each setting's model.")] = False,
) -> None:
    """Check CONFIG without running it.

    The number of its runs is shown.
    """
    from pemeta.experiments.config_file import load_config

    checked = load_config(config, overrides or ())
    primed = {checked.primed_name(run.setting, run.seed) for run in checked.runs if checked.primer(run.setting)}
    sizes = [len(checked.settings), len(checked.targets), len(checked.seeds)]
    of = " x " if len(checked.runs) == math.prod(sizes) else ", "
    grid = of.join(f"{size} {what}" for size, what in zip(sizes, ("settings", "targets", "seeds"), strict=True))
    typer.echo(
        f"{config} is valid: {len(primed)} priming runs and {len(checked.runs)} fine-tuning runs ({grid}) "
        f"into {checked.output}"
    )
    if checked.to_search is not None:
        typer.echo(f"before them a search of {len(checked.to_search.runs)} runs")
    if load:
        _load(checked)


def _load(config: GridConfig) -> None:
    from pemeta.experiments.build import Builder
    from pemeta.experiments.data_check import check_data

    builder = Builder(config, config.output, say=typer.echo)
    check_data(builder, config.runs)
    for name, setting in config.settings.items():
        model = builder.model(name, config.seeds[0])
        if setting.priming is not None:
            setting.priming.prepare(model, config.seeds[0])
    typer.echo("the backbone loads and all data can be read")
