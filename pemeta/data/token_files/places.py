"""Where the files of a data set are: paths with the names of tasks and splits left open."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import Any

from pemeta.data.sentences import SPLITS
from pemeta.errors import excerpt, unknown_name

DEFAULT = "{task}/{split}.conll"
NAMES = ("task", "language", "split")
"""What may be left open in a path; ``language`` is another word for ``task``."""


def checked_splits(splits: Any) -> Any:
    """Paths of splits, as a configuration gives them.

    Raises:
        ValueError: There is none for train, two are the same, or one leaves something unknown open.
    """
    if not isinstance(splits, Mapping):
        return splits
    for split in splits:
        if split not in SPLITS:
            raise ValueError(unknown_name("split", split, SPLITS))
    if "train" not in splits:
        raise ValueError(
            "expected a path for train, and those of validation and test, where they are not to be held out of train; "
            f"found {excerpt(dict(splits))}; add train"
        )
    for split, template in splits.items():
        if isinstance(template, str):
            _check_template(split, template)
    paths = list(splits.values())
    if len({str(path).replace("{split}", split) for split, path in splits.items()}) < len(paths):
        raise ValueError(f"expected a file for each split; found one for two: {excerpt(dict(splits))}")
    return splits


def _check_template(split: str, template: str) -> None:
    try:
        parts = [name for _, name, *_ in Formatter().parse(template) if name is not None]
    except ValueError:
        raise ValueError(f"{split}: expected a path; found a brace alone in {template!r}; double it") from None
    if not template.strip():
        raise ValueError(f"{split}: expected a path; found {template!r}")
    for name in parts:
        if name not in NAMES:
            raise ValueError(f"{split}: {unknown_name('name in braces', name, NAMES)}; the path is {template!r}")


def place(template: str, task: str, split: str) -> str:
    """A path with the names of a task and a split.

    >>> place("{language}/{split}.txt", "af", "train")
    'af/train.txt'
    """
    return template.format(task=task, language=task, split=split)


def tasks_in(folder: Path, template: str, split: str) -> list[str]:
    """The names of tasks that a folder has a file for."""
    mark = "\0"
    given = place(template, mark, split)
    if mark not in given or Path(given).is_absolute():
        return []
    pattern = "*".join(glob.escape(part) for part in given.split(mark))
    once, *again = (re.escape(part) for part in given.split(mark))
    name = re.compile(once + "([^/]+)" + "\\1".join(again))
    found = (path.relative_to(folder).as_posix() for path in folder.glob(pattern))
    return sorted({match[1] for match in map(name.fullmatch, found) if match})
