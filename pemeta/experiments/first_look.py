"""A first look at data as a YAML file: what was found are comments, and then comes the configuration that reads it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pemeta.data.look import (
    Asked,
    DataSet,
    Folder,
    Look,
    Reading,
    RowLook,
    SentenceLook,
    data_set_of,
    look_into,
    reading_of,
    table_format,
)
from pemeta.data.look.guess import ROLES
from pemeta.data.look.oddities import Oddity
from pemeta.data.schemes import SCHEMES
from pemeta.data.sentences import SPLITS
from pemeta.data.sources import DataSource
from pemeta.data.token_files.lines import shown
from pemeta.errors import ConfigError, DataError, counted, shortened, unknown_name
from pemeta.experiments.look_facts import facts, number, purpose, unit
from pemeta.experiments.new_config import (
    MODELS,
    Choices,
    comment,
    small_configuration,
    task_setting,
    whole_configuration,
)
from pemeta.tasks.kinds import TaskKind

CHECK = "pemeta validate CONFIG --load"
"""The command that checks a configuration."""
MOST = 12
"""Most entity types, and kinds of oddities, that are shown."""


def asked_for(
    word: str | None = None,
    tag: str | None = None,
    scheme: str | None = None,
    names: str | None = None,
    kind: str | None = None,
    columns: Sequence[str] = (),
) -> Asked:
    """What the user knows about a file, as the command line has it.

    Raises:
        ConfigError: There is no such scheme, kind of task or role of a column.
    """
    kinds = ["token_classification", *ROLES]
    if kind is not None and kind not in kinds:
        raise ConfigError(f"--task: {unknown_name('kind of task', kind, kinds)}")
    roles = dict(_role(one, kind) for one in columns)
    for known in SCHEMES:
        if scheme is not None and scheme.lower() == known.lower():
            scheme = known
    if scheme is not None and scheme not in SCHEMES:
        raise ConfigError(unknown_name("scheme", scheme, SCHEMES))
    tags = None if names is None else tuple(one.strip() for one in names.split(","))
    return Asked(word, tag, scheme, tags, kind, roles)


def _role(given: str, kind: str | None) -> tuple[str, str]:
    role, mark, column = given.partition("=")
    known = dict.fromkeys(role for one in ([kind] if kind in ROLES else ROLES) for role in ROLES[str(one)])
    if not mark or not column:
        raise ConfigError(f"--column: expected ROLE=COLUMN, such as text=review; found {given!r}")
    if role not in known:
        raise ConfigError(f"--column: {unknown_name('role', role, known)}")
    return role, column


def describe_data(path: Path, asked: Asked, backbone: str | None = None) -> Iterator[str]:
    """Lines of YAML: comments that say what a file or folder holds, and a configuration that reads it.

    Args:
        path: The file or folder.
        asked: What the user knows about it already.
        backbone: The name or folder of the configuration's backbone; one that is pretrained on the data if None.

    Raises:
        ConfigError: The backbone's name is empty.
        DataError: The data cannot be read, or not as it is; what can be told is yielded before.
    """
    _check_backbone(backbone)
    reading, lines = look(path, asked)
    yield from lines
    yield "#"
    if reading.problem is not None:
        yield "# The configuration for it, which is refused as things are:"
    else:
        yield "# The configuration that reads it; choose backbone and settings, and check it:"
        yield f"#   {CHECK}"
    yield from _stand_in(reading)
    yield from small_configuration(reading, backbone)
    if reading.problem is not None:
        raise DataError(reading.problem)


def new_configuration(found: tuple[Reading, Sequence[str]], choices: Choices, file: str) -> Iterator[str]:
    """Lines of a whole configuration, with what was found in the data as comments.

    Args:
        found: What :func:`look` has found.
        choices: What the user has chosen.
        file: Name of the configuration's file.

    Raises:
        ConfigError: A choice is wrong.
        DataError: The data cannot be read as it is.
    """
    _check_backbone(choices.backbone, "--model")
    reading, lines = found
    if reading.problem is not None:
        raise DataError(reading.problem)
    yield from lines
    yield "#"
    yield "# Check it, see what it will take, and run it:"
    yield f"#   pemeta validate {file} --load"
    yield f"#   pemeta plan {file}"
    yield f"#   pemeta run {file}"
    yield from _stand_in(reading)
    yield ""
    yield from whole_configuration(reading, choices, file)


def look(path: Path, asked: Asked) -> tuple[Reading, list[str]]:
    """How the data in a file or folder is read, and lines of comments that say what it holds.

    Raises:
        DataError: It cannot be read at all, or what it holds may be more than one thing.
    """
    if path.is_dir() and table_format(path) is None:
        found = look_into(path, asked)
        reading = _reading(found.groups[0])
        return reading, list(_folder(path, found, reading))
    own, whole = data_set_of(path, asked)
    reading = _reading([whole])
    return reading, list(_file(path, own, whole, reading))


def _reading(sets: Sequence[DataSet]) -> Reading:
    """How data sets are read, with each task of them read as a run would."""
    first = next(iter(sets[0].looks.values()))
    if not isinstance(first, RowLook):
        return reading_of(sets)
    reading = reading_of(sets, _reader(first))
    classes = tuple(sorted(first.tally.classes))
    alone = len(sets) == 1 and len(sets[0].tasks) == 1 and first.guess.problem == "single_label"
    if reading.problem is not None and alone and sets[0].held_out and len(classes) > 1:
        again = reading_of(sets, _reader(first, classes))
        return replace(again, classes=classes) if again.problem is None else reading
    return reading


def _reader(look: RowLook, classes: tuple[str, ...] = ()) -> Callable[[DataSource, str], object]:
    """What reads a task as a run would."""
    kind: TaskKind[Any] = TaskKind.parse(task_setting(look, classes))
    return lambda source, task: kind.collection(source, task, dict.fromkeys(SPLITS))


def _check_backbone(backbone: str | None, option: str = "--backbone") -> None:
    if backbone is not None and not backbone.strip():
        example = MODELS["token_classification"]
        raise ConfigError(f"{option}: expected a model's name or folder, such as {example}; found {backbone!r}")


def _stand_in(reading: Reading) -> Iterator[str]:
    if reading.again:
        yield "#"
        yield from comment(
            f"There are too few {unit(reading.look)}s to hold some out. So that it can be tried, those of train stand "
            f"in for {' and '.join(reading.again)}, where scores tell nothing then: give more {unit(reading.look)}s, "
            "or a file for each."
        )


def _file(path: Path, own: Look, whole: DataSet, reading: Reading) -> Iterator[str]:
    yield f"# {shown(path)}"
    yield "#"
    for name, text in (*facts(own), *_others(own, whole, reading)):
        yield from comment(text, name)
    yield from _oddities(list(own.oddities))


def _folder(path: Path, found: Folder, reading: Reading) -> Iterator[str]:
    yield f"# {shown(path)}"
    yield "#"
    yield from _aligned(list(_table(path, found)))
    if isinstance(reading.look, RowLook):
        yield "#"
        for name, text in purpose(reading.look):
            yield from comment(text, name)
    if reading.sets[0].held_out and not reading.again:
        yield "#"
        yield f"# What a task lacks is held out of its training {unit(reading.look)}s, a tenth each, by a seed."
    for one in reading.too_few:
        yield "#"
        yield f"# Too few {unit(reading.look)}s to hold some out, so left out: {one.task}"
    for group in found.groups[1:]:
        first = next(iter(group[0].looks.values()))
        yield "#"
        yield f"# Of another layout, so for a configuration of its own: pemeta data {shown(first.path)}"
    if found.left_out:
        yield "#"
        yield "# Left out:"
        yield from (f"#   {why}" for _, why in found.left_out[:MOST])
        if len(found.left_out) > MOST:
            yield f"#   and {counted(len(found.left_out) - MOST, 'file')} more"


def _table(path: Path, found: Folder) -> Iterator[tuple[str, ...]]:
    """A row for each file: what is counted in it."""
    looks = [(one, split, look) for group in found.groups for one in group for split, look in one.looks.items()]
    sentences = all(isinstance(look, SentenceLook) for _, _, look in looks)
    names = ("sentences", "words", "entities", "scheme") if sentences else ("examples", "words", "kind")
    yield ("task", "split", *names, "odd", "file")
    for one, split, look in looks:
        counts = [look.tally.examples, look.tally.words]
        if sentences and isinstance(look, SentenceLook):
            counts.append(sum(look.tally.entities.values()))
            last = str(look.scheme or "none")
        else:
            last = look.kind
        file = os.path.relpath(look.path, path)
        yield (one.task, split, *(f"{count:,}" for count in counts), last, str(len(look.oddities)), file)


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table of texts and numbers, of which the numbers stand to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = {index for index, cell in enumerate(rows[-1]) if cell.replace(",", "").isdecimal()}
    for row in rows:
        cells = [f"{cell:{'>' if index in right else '<'}{widths[index]}}" for index, cell in enumerate(row)]
        yield f"#   {'  '.join(cells)}".rstrip()


def _others(own: Look, whole: DataSet, reading: Reading) -> Iterator[tuple[str, str]]:
    """The other files of the data set, and which splits have none."""
    train = whole.looks["train"]
    for split, look in whole.looks.items():
        if look is not own:
            where = os.path.relpath(look.path, own.path.parent)
            repeats = f"; {_repeated(look, train)}" if split != "train" else ""
            yield split, f"{where}: {number(look.tally.examples, unit(look))}{repeats}"
        elif split != "train":
            yield split, f"this file; {_repeated(look, train)}"
    for split in whole.held_out:
        if split in reading.again:
            yield split, "no file: train stands in for it, too small to hold some out"
        else:
            yield split, f"no file: a tenth of train is held out for {split}, by a seed"
    for text in whole.left_out:
        yield "left out", text
    for column, values in own.of_tasks.items() if isinstance(own, SentenceLook) else ():
        shown_values = shortened(", ".join(values), 60)
        yield "tasks", f"perhaps the values of {column} ({shown_values}): add task_column: {column} to make each one"


def _repeated(look: Look, train: Look) -> str:
    return f"{look.tally.repeats(train.tally.seen):,} of {len(look.tally.seen):,} distinct {unit(look)}s also in train"


def _oddities(found: Sequence[Oddity]) -> Iterator[str]:
    """What is odd, the most frequent last lines omitted."""
    yield "#"
    if not found:
        yield "# Nothing odd."
        return
    yield "# Odd:"
    for one in found[:MOST]:
        yield f"#   {one.number:,} x {one.what}{f' ({one.hint})' if one.hint else ''}"
        for where, content in one.places:
            yield f"#     {': '.join(filter(None, (where, content)))}"
        if one.number > len(one.places) > 0:
            yield "#     ..."
    if len(found) > MOST:
        yield f"#   and {counted(len(found) - MOST, 'kind')} more"
