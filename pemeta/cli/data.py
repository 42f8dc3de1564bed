"""``pemeta data``: a first look at a file."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Annotated

import typer


def data(
    file: Annotated[Path, typer.Argument(help="A file of examples, or a folder of such files.", metavar="FILE")],
    word: Annotated[
        str | None, typer.Option(help="The column of the words: its number from 1, or its name.", metavar="COLUMN")
    ] = None,
    tag: Annotated[
        str | None,
        typer.Option(help="That of the tags, if there are several; in CoNLL-U also a key of MISC.", metavar="COLUMN"),
    ] = None,
    scheme: Annotated[
        str | None, typer.Option(help="Scheme of the tags, such as IOB1, if it cannot be told.", metavar="SCHEME")
    ] = None,
    names: Annotated[
        str | None,
        typer.Option(help="The tags that integers mean, in order, with commas: O,B-PER,I-PER.", metavar="TAGS"),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="Kind of task, if it cannot be told: token_classification, sequence_classification, completion ...",
            metavar="KIND",
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="What a column of a table is, such as text=review; may be repeated.", metavar="ROLE=COLUMN"),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="The backbone of the configuration, a model of transformers; by default a tiny one to try things out.",
            metavar="NAME_OR_FOLDER",
        ),
    ] = None,
) -> None:
    """Look at FILE, and print a configuration.

    Format, kind of task, columns, labels, lengths, duplicates and oddities are comments in it: it can be written to a
    file as it is. `pemeta init` writes a longer one.
    """
    from pemeta.experiments.first_look import asked_for, describe_data

    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
        sys.stdout.reconfigure(encoding="utf-8")  # as configurations are, whatever the system's encoding
    for line in describe_data(file, asked_for(word, tag, scheme, names, task, column or ()), backbone):
        typer.echo(line)
