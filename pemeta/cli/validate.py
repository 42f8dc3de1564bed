"""``pemeta validate``: a check of a configuration."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

from pemeta.cli.arguments import ConfigFile, Overrides
from pemeta.errors import counted

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
    if load:
        _load(checked)
    search = checked.to_search
    before = "" if search is None else f"a search of {counted(len(search.runs), 'run')}, then "
    typer.echo(f"{config} is valid: {before}{_runs(checked)} into {checked.output}")  # last, when nothing can refuse it


def _runs(config: GridConfig) -> str:
    """The runs of a grid in words."""
    primed = {config.primed_name(run.setting, run.seed) for run in config.runs if config.primer(run.setting)}
    sizes = {"setting": len(config.settings), "target": len(config.targets), "seed": len(config.seeds)}
    of = " x " if len(config.runs) == math.prod(sizes.values()) else ", "
    grid = of.join(counted(size, what) for what, size in sizes.items())
    return f"{counted(len(primed), 'priming run')} and {counted(len(config.runs), 'fine-tuning run')} ({grid})"


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
