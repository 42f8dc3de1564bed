"""``pemeta predict``: labels for text by a fine-tuned task."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def predict(
    folder: Annotated[
        Path, typer.Argument(help="A saved model, e.g. OUTPUT/models/SETTING-seed0.", metavar="MODEL_DIR")
    ],
    texts: Annotated[
        list[str],
        typer.Argument(help="One or more texts; `-` reads one from each line of standard input.", metavar="TEXT"),
    ],
    task: Annotated[
        str | None,
        typer.Option(help="A task in MODEL_DIR/tasks, or a task's folder; may be omitted if there is only one."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object for each text, on a line of its own.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")] = "auto",
) -> None:
    """Label TEXTs with a fine-tuned task.

    Words are separated by whitespace: put spaces around punctuation where the task's training data had them.
    """
    from pemeta.deploy.serving import Server, only_task

    given = [line.rstrip("\r\n") for line in sys.stdin] if texts == ["-"] else texts
    server = Server.load(folder, [task or only_task(folder)], device)
    for prediction in server.predict(server.tasks[0], given):
        typer.echo(json.dumps(prediction.to_json(), ensure_ascii=False) if as_json else str(prediction))
