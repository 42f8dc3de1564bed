"""A first look at data as a YAML file: what was found are comments, and then comes the configuration that reads it."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pemeta.data.look import Asked, DataSet, Folder, Look, Reading, data_set_of, look_into, reading_of, table_format
from pemeta.data.look.oddities import Oddity
from pemeta.data.schemes import SCHEMES
from pemeta.data.token_files.formats import as_yaml
from pemeta.data.token_files.lines import shown
from pemeta.errors import ConfigError, DataError, counted, shortened, unknown_name

BACKBONE = {"name": "tiny", "transformer": {"steps": 100}}
"""The backbone of the configuration, unless the user names one: it needs no download, and seconds."""
MODEL = "bert-base-multilingual-cased"
"""The model that the configuration mentions, in place of which the user is to choose one."""
LINE = 100
"""Longest line of a configuration, for what can be several."""
CHECK = "pemeta validate CONFIG --load"
"""The command that checks a configuration."""
MOST = 12
"""Most entity types, and kinds of oddities, that are shown."""
NAMES = 12
"""Columns that the names of facts take."""
WIDTH = 80
"""Longest line of a comment, unless it is a single word, or a place in the file with what stands there."""
_WHOLE: Any = {"break_long_words": False, "break_on_hyphens": False}


def asked_for(word: str | None, tag: str | None, scheme: str | None, names: str | None) -> Asked:
    """What the user knows about a file, as the command line has it.

    Raises:
        ConfigError: There is no such scheme.
    """
    for known in SCHEMES:
        if scheme is not None and scheme.lower() == known.lower():
            scheme = known
    if scheme is not None and scheme not in SCHEMES:
        raise ConfigError(unknown_name("scheme", scheme, SCHEMES))
    tags = None if names is None else tuple(one.strip() for one in names.split(","))
    return Asked(word, tag, scheme, tags)


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
    if backbone is not None and not backbone.strip():
        raise ConfigError(f"--backbone: expected a model's name or folder, such as {MODEL}; found {backbone!r}")
    if path.is_dir() and table_format(path) is None:
        found = look_into(path, asked)
        reading = reading_of(found.groups[0])
        yield from _folder(path, found, reading)
    else:
        own, whole = data_set_of(path, asked)
        reading = reading_of([whole])
        yield from _file(path, own, whole, reading)
    yield "#"
    if reading.problem is not None:
        yield "# The configuration for it, which is refused as things are:"
    else:
        yield "# The configuration that reads it; choose backbone and settings, and check it:"
        yield f"#   {CHECK}"
    if reading.again:
        yield "#"
        yield from _comment(
            f"There are too few sentences to hold some out. So that it can be tried, those of train stand in for "
            f"{' and '.join(reading.again)}, where scores tell nothing then: give more sentences, or a file for each."
        )
    yield from configuration(reading.settings, [one.task for one in reading.sets], backbone)
    if reading.problem is not None:
        raise DataError(reading.problem)


def configuration(data: Mapping[str, Any], targets: Sequence[str], backbone: str | None = None) -> Iterator[str]:
    """Lines of a small configuration of some data.

    Args:
        data: The configuration of the data.
        targets: Its tasks.
        backbone: The name or folder of a model; None for a tiny one, and a comment on how to choose another.
    """
    yield "data:"
    for key, value in data.items():
        line = f"  {_yaml(key)}: {_yaml(value)}"
        if isinstance(value, Mapping) and len(line) > LINE:
            yield f"  {_yaml(key)}:"
            yield from (f"    {_yaml(name)}: {_yaml(item)}" for name, item in value.items())
        else:
            yield line
    yield ""
    yield f"output: {_yaml(f'runs/{Path(targets[0]).name}')}"
    if backbone is None:
        yield from _comment("A tiny model, trained here on these sentences, to try things out; for results:")
        yield f"#   backbone: {_pretrained(MODEL)}"
        yield f"backbone: {_yaml(BACKBONE)}"
    else:
        yield f"backbone: {_pretrained(backbone)}"
    yield f"targets: {_yaml(list(targets))}"
    yield "settings:"
    yield "  adapter: {method: adapter}"


def _pretrained(path: str) -> str:
    return _yaml({"name": "pretrained", "path": path})


def _comment(text: str, name: str = "") -> Iterator[str]:
    """A text as lines of comments; what has a name stands in a column beside it."""
    start = f"#   {name:<{NAMES}}" if name else "# "
    rest = "#".ljust(len(start))
    yield from textwrap.wrap(text, WIDTH, initial_indent=start, subsequent_indent=rest, **_WHOLE)


def _file(path: Path, own: Look, whole: DataSet, reading: Reading) -> Iterator[str]:
    yield f"# {shown(path)}"
    yield "#"
    for name, text in (*_facts(own), *_others(own, whole, reading)):
        yield from _comment(text, name)
    yield from _oddities(list(own.oddities))


def _folder(path: Path, found: Folder, reading: Reading) -> Iterator[str]:
    yield f"# {shown(path)}"
    yield "#"
    rows: list[tuple[str, ...]] = [("task", "split", "sentences", "words", "entities", "scheme", "odd", "file")]
    for group in found.groups:
        for one in group:
            for split, look in one.looks.items():
                tally = look.tally
                numbers = (tally.sentences, tally.words, sum(tally.entities.values()))
                odd = len(look.oddities)
                file = os.path.relpath(look.path, path)
                rows.append((one.task, split, *(f"{n:,}" for n in numbers), str(look.scheme or "none"), str(odd), file))
    yield from _aligned(rows)
    if reading.sets[0].held_out and not reading.again:
        yield "#"
        yield "# What a task lacks is held out of its training sentences, a tenth each, by a seed."
    for one in reading.too_few:
        yield "#"
        yield f"# Too few sentences to hold some out, so left out: {one.task}"
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


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table of texts and numbers, of which the numbers stand to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = {index for index, cell in enumerate(rows[-1]) if cell.replace(",", "").isdecimal()}
    for row in rows:
        cells = [f"{cell:{'>' if index in right else '<'}{widths[index]}}" for index, cell in enumerate(row)]
        yield f"#   {'  '.join(cells)}".rstrip()


def _facts(look: Look) -> Iterator[tuple[str, str]]:
    """What a file holds, as names and texts."""
    tally = look.tally
    yield "format", look.likeness
    if look.encoding:
        yield "encoding", look.encoding
    yield "scheme", _scheme(look)
    documents = len(tally.documents - {None})
    within = f" in {counted(documents, 'document')}" if documents else ""
    share = f"{100 * tally.with_entity / tally.sentences:.0f} %"
    yield "sentences", f"{_number(tally.sentences, 'sentence')}{within}; {share} with an entity"
    median, most, longest = tally.quantile(0.5), tally.quantile(0.95), max(tally.lengths)
    lengths = f"{median} (median), {most} (95 %), {longest} (longest: {tally.longest})"
    yield "lengths", f"{_number(tally.words, 'word')}; by sentence: {lengths}"
    yield "labels", _entities(look)
    if tally.first_repeated is None:
        yield "duplicates", "none"
    else:
        where, first = tally.first_repeated
        verb = "repeats" if tally.repeated == 1 else "repeat"
        share = f"{100 * tally.repeated / tally.sentences:.2g} %"
        repeated = f"{_number(tally.repeated, 'sentence')} ({share}) {verb} an earlier one"
        yield "duplicates", f"{repeated}, first in {where}, which repeats {first}"


def _scheme(look: Look) -> str:
    if look.scheme is None:
        return f"none that fits all tags; {look.closest} comes closest"
    if not look.tally.entities:
        return "no tag but O"
    if look.scheme == "conlleval" != look.closest:
        return (
            f"nearly {look.closest}; read as conlleval does, for which an I- that goes on with nothing begins an entity"
        )
    return str(look.scheme)


def _entities(look: Look) -> str:
    found = look.tally.entities
    if not found:
        return "none"
    shown_types = [f"{kind} {number:,}" for kind, number in found.most_common(MOST)]
    more = f", and {len(found) - MOST} types more" if len(found) > MOST else ""
    return f"{_number(sum(found.values()), 'entity', 'entities')}: {', '.join(shown_types)}{more}"


def _others(own: Look, whole: DataSet, reading: Reading) -> Iterator[tuple[str, str]]:
    """The other files of the data set, and which splits have none."""
    train = whole.looks["train"]
    for split, look in whole.looks.items():
        if look is not own:
            where = os.path.relpath(look.path, own.path.parent)
            repeats = f"; {_repeated(look, train)}" if split != "train" else ""
            yield split, f"{where}: {_number(look.tally.sentences, 'sentence')}{repeats}"
        elif split != "train":
            yield split, f"this file; {_repeated(look, train)}"
    for split in whole.held_out:
        if split in reading.again:
            yield split, "no file: train stands in for it, too small to hold some out"
        else:
            yield split, f"no file: a tenth of train is held out for {split}, by a seed"
    for text in whole.left_out:
        yield "left out", text
    for column, values in own.of_tasks.items():
        shown_values = shortened(", ".join(values), 60)
        yield "tasks", f"perhaps the values of {column} ({shown_values}): add task_column: {column} to make each one"


def _repeated(look: Look, train: Look) -> str:
    return f"{look.tally.repeats(train.tally.seen):,} of {len(look.tally.seen):,} distinct sentences also in train"


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


def _yaml(value: Any) -> str:
    """A value in YAML, on one line, whatever characters a path has."""
    text = as_yaml(value)
    return text if text.isprintable() else json.dumps(value)


def _number(number: int, noun: str, plural: str | None = None) -> str:
    return counted(number, noun, plural).replace(str(number), f"{number:,}", 1)
