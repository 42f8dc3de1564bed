"""Where the files of a task's splits are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pemeta.data.sentences import Split
from pemeta.data.tables.files import ENDINGS
from pemeta.data.tables.held_out import parts_of
from pemeta.data.tables.table import shown, unreadable
from pemeta.data.tables.text_files import PACKED
from pemeta.data.token_files.lines import is_folder
from pemeta.errors import DataError, shortened, unknown_name

PLACE = re.compile(r"\{([^{}]*)\}")
"""What stands for something else in a pattern."""
TASK = ("task", "language")
"""What stands for the task in a pattern."""
SPLIT = "split"
SAVED = "state.json"
"""A file in each folder that ``Dataset.save_to_disk`` has written."""
ABOUT = {"dataset_dict.json", "dataset_info.json", "dataset_infos.json", SAVED}
"""Files that ``datasets`` puts beside tables."""
SHARD = re.compile(r"-(\d+)-of-(\d+)$")
"""The end of the name of one of several files that are one table together: its number, from 0, and that of all."""


def checked_pattern(pattern: str, split: bool = True) -> str:
    """A pattern in which nothing but the task, and the split if ``split``, stand in braces.

    Raises:
        ValueError: Something else does.
    """
    for name in PLACE.findall(pattern):
        if name not in TASK and not (split and name == SPLIT):
            places = "{task} and {split}" if split else "{task}"
            raise ValueError(f"only {places} may stand in braces; found {{{name}}} in {pattern!r}")
    return pattern


def names_task(*patterns: str | None) -> bool:
    """Whether the task stands in a pattern."""
    return any(name in TASK for pattern in patterns for name in PLACE.findall(pattern or ""))


def filled(pattern: str, task: str, split: str) -> str:
    """A pattern with the task and the split in their places.

    >>> filled("{task}/{split}-*.parquet", "news", "train")
    'news/train-*.parquet'
    """
    return PLACE.sub(lambda found: split if found[1] == SPLIT else task, pattern)


def files_of(
    root: Path, task: str, patterns: Mapping[Split, str] | None, format: str | None
) -> dict[Split, list[Path]]:
    """The files of each split of a task, of those splits that there are.

    Args:
        root: The file, or the folder that patterns start from.
        task: The task.
        patterns: The file of each split, or several with ``*``; by default those named like splits, in ``root`` if one
            of train is there, or else in a folder named like the task.
        format: Their format; None if it follows from their names.

    Raises:
        DataError: There are none, or it is not clear which file is which split.
    """
    if patterns is not None:
        return {split: _matching(root, filled(pattern, task, split)) for split, pattern in patterns.items()}
    if not is_file(root) and not is_folder(root):
        raise DataError(f"there is no file or folder {shown(root)}; check data.path")
    if is_file(root) or is_file(root / SAVED):
        return {"train": [root]}
    folder = root if is_whole(root, format) else root / task
    if not is_folder(folder):
        known = [child.name for child in root.iterdir() if child.is_dir() and _tables_in(child, format)]
        raise DataError(
            f"{shortened(unknown_name('task', task, known), 300)}; expected a folder {shown(folder)}; if files are "
            "elsewhere, say where with splits"
        )
    tables = _tables_in(folder, format)
    parts = parts_of(list(tables), None, shown(folder))
    for name in parts.values():
        _check_shards(tables[name])
        endings = {path.name[len(path.name.partition(".")[0]) :] for path in tables[name]}
        if len(endings) > 1:
            files = " and ".join(path.name for path in tables[name])
            raise DataError(f"{shown(folder)} has {files}; say which with format or splits")
    return {split: tables[name] for split, name in parts.items()}


def is_whole(root: Path, format: str | None) -> bool:
    """Whether a path is all there is, and not a folder with one folder for each task."""
    return is_file(root) or (is_folder(root) and (is_file(root / SAVED) or "train" in _tables_in(root, format)))


def is_file(path: Path) -> bool:
    """Whether a path is a file."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long for a file
        return False


def _tables_in(folder: Path, format: str | None) -> dict[str, list[Path]]:
    """The tables in a folder, by their names without endings and numbers of shards."""
    endings = ENDINGS[format] if format else tuple(ending for some in ENDINGS.values() for ending in some)
    found: dict[str, list[Path]] = {}
    try:
        children = sorted(folder.iterdir())
    except OSError as error:
        raise unreadable(folder, error) from None
    for path in children:
        inner = _inner(path)
        if path.is_file() and path.name not in ABOUT and inner.suffix.lower() in endings:
            found.setdefault(SHARD.sub("", inner.stem), []).append(path)
        elif format in (None, "arrow") and (path / SAVED).is_file():  # of Dataset.save_to_disk
            found.setdefault(path.name, []).append(path)
    return found


def _inner(path: Path) -> Path:
    """A path without the ending of a file that is packed."""
    return path.with_suffix("") if path.suffix.lower() in PACKED else path


def _check_shards(paths: Sequence[Path]) -> None:
    """Refuse files of which one says that there are others, which are not there."""
    shards = [(int(found[1]), int(found[2])) for path in paths if (found := SHARD.search(_inner(path).stem))]
    lacking = sorted({(number, of) for _, of in shards for number in range(of)} - {*shards})
    if lacking:
        number, of = lacking[0]
        raise DataError(
            f"{shown(paths[0])} is one of {of} files, of which number {number:05} is not there; fetch all of them, or "
            "name those to read with splits"
        )


def _matching(root: Path, pattern: str) -> list[Path]:
    """The file of a name, or the files that a pattern with ``*`` matches, sorted."""
    path = root / pattern
    if "*" not in pattern or is_folder(path):
        return [path]
    start = Path(path.anchor) if Path(pattern).is_absolute() else root
    found = sorted(start.glob(str(path.relative_to(start))))
    if not found:
        raise DataError(f"no file is {shown(path)}; check data.path and splits")
    return found
