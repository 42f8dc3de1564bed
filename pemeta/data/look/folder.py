"""The data sets in a folder: those of the same layout are tasks of one configuration."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pemeta.data.look.base import Asked
from pemeta.data.look.data_set import DataSet, data_set_of
from pemeta.data.look.row_look import RowLook
from pemeta.data.token_files.lines import shown
from pemeta.errors import DataError

MOST_FILES = 2000
"""Most files in a folder that is looked at."""
OTHERS = frozenset((".md", ".py", ".yaml", ".yml", ".toml", ".cff", ".pdf", ".html", ".png", ".svg", ".ipynb", ".sh"))
"""Endings of files that are no data."""
SAVED = frozenset(("dataset_dict.json", "dataset_info.json", "state.json"))
"""Files of ``save_to_disk`` beside its data."""


@dataclass(frozen=True)
class Folder:
    """What a folder holds.

    Attributes:
        groups: Data sets that one configuration reads, each with another name; the largest group first.
        left_out: Files that hold no sentences, each with why.
    """

    groups: tuple[tuple[DataSet, ...], ...]
    left_out: tuple[tuple[Path, str], ...]


def look_into(folder: Path, asked: Asked) -> Folder:
    """Look at all files in a folder and its folders.

    Raises:
        DataError: None holds labelled sentences, or there are too many files.
    """
    groups: dict[str, list[DataSet]] = {}
    left_out: list[tuple[Path, str]] = []
    seen: set[Path] = set()
    for path in _files(folder):
        if path in seen:
            continue
        try:
            _, one = data_set_of(path, asked)
        except DataError as error:
            left_out.append((path, str(error)))
            continue
        seen |= {path, *(look.path for look in one.looks.values())}
        groups.setdefault(_layout(one), []).append(one)
    if not groups:
        why = f"; {left_out[0][1]}" if left_out else ""
        raise DataError(f"{shown(folder)} holds no file of examples that can be read{why}")
    ordered = sorted(
        groups.values(), key=lambda sets: -sum(look.tally.examples for one in sets for look in one.looks.values())
    )
    return Folder(tuple(_named_apart(sets, folder) for sets in ordered), tuple(left_out))


def _files(folder: Path) -> Iterator[Path]:
    """The files that may hold data, those of the same folder together."""
    found = []
    try:
        for where, folders, names in os.walk(folder):
            folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
            paths = (Path(where) / name for name in sorted(names) if not name.startswith(".") and name not in SAVED)
            found += [path for path in paths if path.suffix.lower() not in OTHERS and path.is_file()]
            if len(found) > MOST_FILES:
                raise DataError(f"{shown(folder)} holds more than {MOST_FILES} files; give a folder within it")
    except OSError as error:
        raise DataError(f"cannot read {shown(folder)}: {error.strerror}; check the path") from None
    yield from found


def _layout(one: DataSet) -> str:
    """What data sets that one configuration reads have in common."""
    look = next(iter(one.looks.values()))
    templates = {split: one.files.templates[split] for split in one.looks}
    # Token files have a key for the folder of each task, which stands for its name once.
    together = look.source == "conll" and all(template.count("{task}") == 1 for template in templates.values())
    of_rows = look.guess.problem if isinstance(look, RowLook) else None
    return repr((look.source, look.kind, of_rows, look.settings, templates, None if together else one.files.folder))


def _named_apart(sets: Sequence[DataSet], folder: Path) -> tuple[DataSet, ...]:
    """The data sets, of which two with the same name are called by their folders too."""
    names = [one.files.task for one in sets]
    made = []
    for one in sets:
        name = one.files.task
        if names.count(name) > 1:
            name = "-".join((*one.files.folder.relative_to(folder).parts, name))
        made.append(replace(one, name=name))
    return tuple(made)
