"""``pemeta predict``: labels for text, or completions of prompts, by a fine-tuned task."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pemeta.cli.verbs import UsageError
from pemeta.errors import DataError, excerpt

if TYPE_CHECKING:
    from pemeta.deploy.serving import Server


def predict(
    ctx: typer.Context,
    folder: Annotated[
        Path, typer.Argument(help="A saved model, e.g. OUTPUT/models/SETTING-seed0.", metavar="MODEL_DIR")
    ],
    texts: Annotated[
        list[str] | None,
        typer.Argument(help="One or more texts; `-` reads one from each line of standard input.", metavar="TEXT"),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help="A UTF-8 file with a text on each line, in place of TEXT; in one whose name ends in .jsonl, an object "
            "with text (and text_pair), prompt or messages.",
            metavar="FILE",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="A task in MODEL_DIR/tasks, or a task's folder; may be omitted if there is only one."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object for each text, on a line of its own.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")] = "auto",
    padding: Annotated[
        str,
        typer.Option(
            help="How texts of different lengths run, with equal labels: packed in rows without padding, padded to the "
            "longest, or auto, packed where that is less work."
        ),
    ] = "auto",
    max_new_tokens: Annotated[
        int | None,
        typer.Option(help="Most tokens of a completion; by default what the task says, or else 128.", min=1),
    ] = None,
    temperature: Annotated[
        float, typer.Option(help="Of a completion's tokens; 0 chooses the most probable one each time.", min=0)
    ] = 0.0,
) -> None:
    """Label or complete TEXTs with a fine-tuned task.

    Words are separated by whitespace: put spaces around punctuation where the task's training data had them. A task
    of text pairs takes both texts of a pair with a tab between them. A single prompt's completion appears while it is
    made.
    """
    from pemeta.deploy.folders import only_task
    from pemeta.deploy.serving import Server

    if not texts and file is None:
        raise UsageError("missing argument 'TEXT...', or --file FILE", ctx)
    if texts and file is not None:
        raise UsageError("give TEXT or --file, not both", ctx)
    given = _lines_of(file) if file is not None else _typed(texts or [])
    server = Server.load(folder, [task or only_task(folder)], device, padding=padding)  # type: ignore[arg-type]
    options: dict[str, Any] = {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens}
    if temperature:
        options |= {"do_sample": True, "temperature": temperature}
    _answer(server, _rows(given, file) if _is_jsonl(file) else given, options, as_json)


def _answer(server: Server, given: list[Any], options: dict[str, Any], as_json: bool) -> None:
    """Print what the server's only task makes of each text, of a single prompt while it is made."""
    (name,) = server.tasks
    if server.labels_pairs(name) and all(isinstance(one, str) for one in given):
        given = _pairs(given, name)
    if server.completes(name) and len(given) == 1 and not as_json:
        for piece in server.stream(name, given[0], **options):
            typer.echo(piece, nl=False)
        typer.echo()
        return
    for prediction in server.predict(name, given, **options):
        typer.echo(json.dumps(prediction.to_json(), ensure_ascii=False) if as_json else str(prediction))


def _is_jsonl(file: Path | None) -> bool:
    return file is not None and file.suffix == ".jsonl"


def _typed(texts: list[str]) -> list[str]:
    """The texts of the command line, or the lines of standard input."""
    if texts == ["-"]:
        try:
            return _texts(sys.stdin)
        except UnicodeDecodeError as error:
            raise DataError(f"standard input is not UTF-8 at byte {error.start}; convert it to UTF-8") from None
    for text in texts:
        if _is_file(text):
            raise DataError(
                f"{excerpt(text)} is the name of a file; label its lines with --file, or give the text itself on "
                "standard input, with `-`"
            )
    return texts


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long for the name of a file
        return False


def _lines_of(file: Path) -> list[str]:
    """The lines of a file."""
    try:
        text = file.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 at byte {error.start}; convert the file to UTF-8") from None
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}; check the path") from None
    # Not splitlines(), which splits at characters that texts contain (U+0085, U+2028).
    lines = _texts(text.removesuffix("\n").split("\n"))
    if not any(map(str.strip, lines)):
        raise DataError(f"{file} has no text; expected one on each line")
    return lines


def _texts(lines: Iterable[str]) -> list[str]:
    """Lines without their ends, and without the mark that a file begins with, alone or joined to others."""
    from pemeta.data.token_files.lines import BYTE_ORDER_MARK  # here, because it takes long

    return [line.rstrip("\r\n").lstrip(BYTE_ORDER_MARK) for line in lines]


def _rows(lines: list[str], file: Path | None) -> list[Any]:
    """What lines of JSON ask for: texts, pairs of texts, prompts or conversations."""
    return [_asked(line, f"{file}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def _asked(line: str, where: str) -> Any:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({error}); put one object on each line") from None
    if isinstance(row, dict):
        if "text_pair" in row and "text" in row:
            return row["text"], row["text_pair"]
        found = next((row[key] for key in ("prompt", "messages", "text") if key in row), None)
        if found is not None:
            return found
    raise DataError(f"{where}: expected an object with text, prompt or messages; found {excerpt(row)}")


def _pairs(texts: list[str], task: str) -> list[tuple[str, ...]]:
    """Both texts of each pair."""
    pairs = [tuple(text.split("\t")) for text in texts]
    for number, pair in enumerate(pairs, 1):
        if len(pair) != 2:
            raise DataError(
                f"task {task!r} labels pairs of texts, but text {number} of {len(texts)} is "
                f"{excerpt(texts[number - 1])}; put one tab between its two texts"
            )
    return pairs
