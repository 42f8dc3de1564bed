"""``pemeta init``: a new configuration, from data and a few answers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pemeta.cli.verbs import UsageError
from pemeta.errors import OutputError

if TYPE_CHECKING:
    from pemeta.data.look import Reading  # imports PyTorch, which would slow `pemeta --help` down
    from pemeta.experiments.new_config import Choices


Data = Annotated[
    Path | None,
    typer.Argument(
        help="A file of examples, or a folder of such files; if it is not given, it is asked for on a terminal, and so "
        "is what else is to be known.",
        metavar="[DATA]",
    ),
]
Kind = Annotated[
    str | None,
    typer.Option(
        help="Kind of task: token_classification, sequence_classification, completion, language_model or "
        "masked_language_model; by default what the data looks like.",
        metavar="KIND",
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(help="What a column is, such as text=review; may be repeated.", metavar="ROLE=COLUMN"),
]
Model = Annotated[
    str | None,
    typer.Option(
        help="The backbone, a model of transformers; by default a tiny one, trained on the data, to try things out.",
        metavar="NAME_OR_FOLDER",
    ),
]
Method = Annotated[
    str | None, typer.Option(help="PE method, such as lora or '{name: lora, rank: 4}'.", metavar="METHOD")
]
Sources = Annotated[
    str | None, typer.Option(help="Tasks to prime on, with commas; by default three of four.", metavar="TASKS")
]
Targets = Annotated[
    str | None, typer.Option(help="Tasks to fine-tune on, with commas; by default the others.", metavar="TASKS")
]


def init(
    ctx: typer.Context,
    data: Data = None,
    config: Annotated[Path, typer.Option(help="The file to write.", metavar="FILE")] = Path("grid.yaml"),
    task: Kind = None,
    column: Columns = None,
    model: Model = None,
    method: Method = None,
    sources: Sources = None,
    targets: Targets = None,
    output: Annotated[
        str | None, typer.Option(help="Folder of all that runs write; runs/NAME by default.", metavar="DIR")
    ] = None,
    schema: Annotated[
        bool,
        typer.Option("--schema", help="Also write pemeta.schema.json, by which editors check and complete it."),
    ] = False,
) -> None:
    """Write a commented configuration that runs.

    DATA is looked at as by `pemeta data`: the kind of task, the columns and the splits follow from it. Nothing that is
    there is overwritten.
    """
    from pemeta.experiments.first_look import asked_for, look, new_configuration
    from pemeta.experiments.new_config import Choices

    asks = data is None
    if data is None and not is_terminal():
        raise UsageError("missing argument 'DATA'", ctx)
    check_new(config)
    given = data if data is not None else Path(typer.prompt("File or folder of examples"))
    found = look(given, asked_for(kind=task, columns=column or ()))
    choices = Choices(model, method, _names(sources), _names(targets), output)
    if asks:
        typer.echo("\n".join(found[1]))
        choices = _answers(found[0], choices, config)
    lines = [*new_configuration(found, choices, str(config))]
    write_new(config, lines, schema)
    typer.echo(f"Written to {config}; check it with: pemeta validate {config} --load")


def check_new(config: Path) -> None:
    """Refuse a file that is there.

    Raises:
        OutputError: It is.
    """
    if config.exists():
        raise OutputError(f"{config} is there already, and is not overwritten; give another name: --config FILE")


def write_new(config: Path, lines: list[str], schema: bool) -> None:
    """Write a configuration, and the schema beside it if there is none.

    Raises:
        OutputError: It cannot be written, or is there already.
    """
    from pemeta.experiments.config_schema import NAME, schema_text

    try:
        if schema:
            lines = [f"# yaml-language-server: $schema={NAME}", *lines]
            beside = config.parent / NAME
            if not beside.exists():
                beside.write_text(schema_text(), encoding="utf-8")
        with config.open("x", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))
    except FileExistsError:
        check_new(config)
    except OSError as error:
        raise OutputError(f"cannot write {config}: {error.strerror}; check the path") from None


def is_terminal() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def _names(given: str | None) -> tuple[str, ...] | None:
    return None if given is None else tuple(one.strip() for one in given.split(",") if one.strip())


def _answers(reading: Reading, choices: Choices, config: Path) -> Choices:
    """The choices, with answers to what was not given."""
    from pemeta.experiments.new_config import Choices, usual_method, usual_output, usual_tasks

    tasks, (sources, targets) = list(reading.tasks), usual_tasks(reading, choices)
    if len(tasks) > 1 and choices.targets is None and choices.sources is None:
        typer.echo(f"Tasks: {', '.join(tasks)}")
        targets = _names(_asked("Tasks to fine-tune on", ", ".join(targets))) or ()
        sources = tuple(name for name in tasks if name not in targets)
        sources = _names(_asked("Tasks to prime on", ", ".join(sources) or "none")) or ()
        sources = () if sources == ("none",) else sources
    backbone = choices.backbone or _asked("Model, its name or folder", "tiny")
    return Choices(
        backbone=None if backbone == "tiny" else backbone,
        method=choices.method or _asked("PE method", usual_method(reading)),
        sources=sources,
        targets=targets,
        output=choices.output or _asked("Folder for results", usual_output(str(config))),
    )


def _asked(question: str, usual: str) -> str:
    answer: Any = typer.prompt(question, default=usual)
    return str(answer).strip()
