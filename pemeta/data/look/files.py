"""The files of a data set, found from one of them: which split each is, and of which task."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pemeta.data.sentences import SPLITS, Split
from pemeta.data.tables.table import PACKED

NAMES: Mapping[Split, tuple[str, ...]] = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "valid", "val", "development", "dev", "testa"),
    "test": ("test", "tst", "testb"),
}
"""What files of each split are called; ``testa`` and ``testb`` are CoNLL-2002's and CoNLL-2003's."""
_WORDS = sorted((name for names in NAMES.values() for name in names), key=len, reverse=True)
_SPLIT = re.compile(f"(?<![a-z])({'|'.join(_WORDS)})(?![a-z0-9])", re.IGNORECASE)
_MARKS = "-_. "
LONGEST = 100
"""Most characters of a task's name."""


@dataclass(frozen=True)
class Files:
    """The files of one task.

    Attributes:
        folder: The folder that the templates start from.
        task: Name of the task.
        templates: Path of each split's file in the folder, with ``{task}`` where the task's name stands.
        paths: The files themselves.
    """

    folder: Path
    task: str
    templates: Mapping[Split, str]
    paths: Mapping[Split, Path]


@dataclass(frozen=True)
class _Name:
    """A path in two parts, around the word for its split."""

    folder: Path
    before: str
    word: str
    after: str

    @property
    def split(self) -> Split:
        return next(split for split, names in NAMES.items() if self.word.lower() in names)

    def with_word(self, word: str) -> Path:
        return self.folder / f"{self.before}{word}{self.after}"

    def words(self) -> Iterator[str]:
        """The words for splits with which such a file is there."""
        where = self.folder / self.before if self.before.endswith("/") else self.folder
        start, end = self.before.rpartition("/")[2], self.after.partition("/")[0]
        for path in sorted(where.iterdir()):
            word = path.name[len(start) : len(path.name) - len(end)]
            if path.name == f"{start}{word}{end}" and word.lower() in _WORDS and self.with_word(word).is_file():
                yield word


def files_beside(path: Path) -> Files:
    """A file and those of the other splits, whose names, or those of their folders, differ in the word for the split.

    A file that says no split is one to train on, and the only one.
    """
    name = _split_name(path)
    if name is None:
        return _nameable(Files(path.parent, path.stem, {"train": f"{{task}}{_plain(path.suffix)}"}, {"train": path}))
    words = {name.split: name.word}
    for word in name.words():
        words.setdefault(next(split for split, names in NAMES.items() if word.lower() in names), word)
    if "train" not in words:
        words = {"train": name.word}  # there is nothing else to train on
    paths = {split: name.with_word(words[split]) for split in SPLITS if split in words}
    folder, task, before, after = _task(name)
    templates = {split: f"{before}{words[split]}{after}" for split in paths}
    return _nameable(Files(folder, task, templates, paths))


def _nameable(files: Files) -> Files:
    """The files, whose task has another name if what names it is none for a task."""
    if files.task.isprintable() and len(files.task) <= LONGEST:
        return files
    templates = {split: one.replace("{task}", _plain(files.task)) for split, one in files.templates.items()}
    return replace(files, task="task", templates=templates)


def _split_name(path: Path) -> _Name | None:
    """The parts of a path, of which one says the split; None if none does."""
    matches = list(_SPLIT.finditer(path.name))
    if matches:  # the last, if there are two, as in test-set-train.txt
        start, end = matches[-1].span()
        return _Name(path.parent, path.name[:start], matches[-1][1], path.name[end:])
    if path.parent.name.lower() in _WORDS:
        return _Name(path.parent.parent, "", path.parent.name, f"/{path.name}")
    return None


def _task(name: _Name) -> tuple[Path, str, str, str]:
    """The folder, the task, and both parts of the template, in which ``{task}`` stands for the task's name.

    The task is what the folder is called if the file's name repeats it; else what stands before the split, or after it
    if that is a word; else what the folder is called.
    """
    folder = name.folder
    if name.after.startswith("/"):
        if (folder / name.word / "state.json").is_file():  # splits of DatasetDict.save_to_disk, which are folders
            return folder.parent, folder.name, "{task}/", ""
        own = Path(name.after).stem
        return folder, own, "", f"/{{task}}{_plain(Path(name.after).suffix)}"
    of_folder = folder.name
    if of_folder:
        repeated = re.compile(f"(?<![^{_MARKS}]){re.escape(of_folder)}(?![^{_MARKS}])")
        parts = [repeated.split(part) for part in (name.before, name.after)]
        if any(len(part) > 1 for part in parts):
            before, after = ("{task}".join(map(_plain, part)) for part in parts)
            return folder.parent, of_folder, f"{{task}}/{before}", after
    prefix = name.before.strip(_MARKS)
    if prefix:
        before, after = name.before.split(prefix, 1)
        return folder, prefix, f"{_plain(before)}{{task}}{_plain(after)}", _plain(name.after)
    inner = Path(f"x{name.after}")
    suffix = (inner.with_suffix("") if inner.suffix.lower() in PACKED else inner).stem[1:].strip(_MARKS)
    if suffix.isalpha():
        before, after = name.after.split(suffix, 1)
        return folder, suffix, "", f"{_plain(before)}{{task}}{_plain(after)}"
    if of_folder and of_folder != "..":
        return folder.parent, of_folder, "{task}/", _plain(name.after)
    return folder, folder.resolve().name or "task", "", _plain(name.after)


def _plain(text: str) -> str:
    """A part of a path in which nothing is left open."""
    return text.replace("{", "{{").replace("}", "}}")
