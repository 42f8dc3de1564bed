"""``pemeta data``: a first look at a file."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Annotated

import typer


def data(
    file: Annotated[
        Path, typer.Argument(help="A file of labelled sentences, or a folder of such files.", metavar="FILE")
    ],
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
    backbone: Annotated[
        str | None,
        typer.Option(
            help="The backbone of the configuration, a model of transformers; by default a tiny one to try things out.",
            metavar="NAME_OR_FOLDER",
        ),
    ] = None,
) -> None:
    """Look at FILE, and print a configuration.

    Format, scheme, entities, lengths, duplicates and oddities are comments in it: it can be written to a file as it is.
    """
    from pemeta.experiments.first_look import asked_for, describe_data

    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
        sys.stdout.reconfigure(encoding="utf-8")  # as configurations are, whatever the system's encoding
    for line in describe_data(file, asked_for(word, tag, scheme, names), backbone):
        typer.echo(line)
