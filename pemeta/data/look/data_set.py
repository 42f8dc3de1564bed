"""The data set that a file belongs to, and the configuration of the data source that reads it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from pemeta.data.look.base import Asked, Look
from pemeta.data.look.files import Files, files_beside
from pemeta.data.look.look import SentenceLook, common_scheme, look_at
from pemeta.data.look.row_look import RowLook
from pemeta.data.sentences import SPLITS, Split
from pemeta.data.sources import DataSource
from pemeta.data.tables.held_out import TooFewError
from pemeta.data.token_files.lines import shown
from pemeta.data.token_files.places import DEFAULT
from pemeta.errors import DataError, PemetaError

USUAL_TYPES = ("PER", "ORG", "LOC")
"""The default of ``types``, in its order."""
SHARD = re.compile(r"-\d+-of-\d+(?=\.)")
"""The part of a name that says which part of a table a file holds."""


@dataclass(frozen=True)
class DataSet:
    """The files of one task.

    Attributes:
        files: Where they are.
        looks: What the file of each split holds.
        left_out: Why a file that seems to be a split is not one of them, in a line each.
        name: What the task is called, if not by its files.
    """

    files: Files
    looks: dict[Split, Look]
    left_out: tuple[str, ...] = ()
    name: str = ""

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.name or self.files.task

    @property
    def tasks(self) -> dict[str, int]:
        """Number of training examples of each task in it, before some are held out."""
        train = self.looks["train"]
        if isinstance(train, RowLook) and train.tally.by_task:
            return dict(sorted(train.tally.by_task.items()))
        return {self.task: train.tally.examples}

    @property
    def examples(self) -> int:
        """Number of examples in all splits."""
        return sum(look.tally.examples for look in self.looks.values())

    @property
    def held_out(self) -> list[Split]:
        """The splits that have no file."""
        return [split for split in SPLITS if split not in self.looks]


def data_set_of(path: Path, asked: Asked | None = None) -> tuple[Look, DataSet]:
    """What a file holds, and the data set of it and of the files beside it.

    Raises:
        DataError: The file cannot be read at all, or what it holds may be more than one thing.
    """
    asked = asked or Asked()
    own = look_at(path, asked)
    files = files_beside(path)
    looks: dict[Split, Look] = {}
    left_out = []
    alike = replace(asked, kind=own.kind, columns=own.guess.columns) if isinstance(own, RowLook) else asked
    for split, other in files.paths.items():
        if other == path:
            looks[split] = own
            continue
        try:
            look = look_at(other, alike)
        except DataError as error:
            left_out.append(f"{shown(other)} is left out: {error}")
            continue
        if (look.source, look.kind, look.settings) == (own.source, own.kind, own.settings):
            looks[split] = look
        else:
            left_out.append(f"{shown(other)} is left out, because its format differs: {look.likeness}")
    if "train" not in looks:  # what is to be trained on, and held out of
        templates = {split: one for split, one in files.templates.items() if files.paths[split] == path}
        files = Files(files.folder, files.task, {"train": next(iter(templates.values()))}, {"train": path})
        looks = {"train": own}
    return own, DataSet(files, looks, tuple(left_out))


def settings_of(sets: Sequence[DataSet]) -> dict[str, Any]:
    """What a configuration says as ``data`` to read data sets of the same layout, one for each task."""
    looks = [look for one in sets for look in one.looks.values()]
    first = sets[0]
    roots = {one.files.folder for one in sets}
    root = first.files.folder if len(roots) == 1 else Path(os.path.commonpath(roots))
    found: dict[str, Any] = {"name": looks[0].source, "path": str(root)}
    within = {one.task: (one.files.folder.relative_to(root) / one.files.task).as_posix() for one in sets}
    if folders := {task: path for task, path in within.items() if path != task}:
        found["folders"] = folders
    templates = {split: first.files.templates[split] for split in SPLITS if split in first.looks}
    if looks[0].source == "table":
        templates = {split: SHARD.sub("-*", one) for split, one in templates.items()}
    usual = {split: DEFAULT.replace("{split}", split) for split in SPLITS}
    if templates != usual or looks[0].source == "table":
        found["splits"] = dict(templates)
    found.update(looks[0].settings)
    if "task_column" in found:  # then no file is that of a task
        found["splits"] = {split: one.replace("{task}", first.files.task) for split, one in templates.items()}
        found.pop("folders", None)
    sentences = [look for look in looks if isinstance(look, SentenceLook)]
    if sentences:
        scheme = common_scheme(sentences)
        if scheme not in ("IOB2", None):
            found["scheme"] = scheme
        found["types"] = types_of(sentences)
    return found


def types_of(looks: Sequence[SentenceLook]) -> list[str]:
    """The entity types of files: the usual ones in their order, or else by name."""
    types = {kind for look in looks for kind in look.tally.entities}
    return list(USUAL_TYPES) if types <= set(USUAL_TYPES) else sorted(types)


@dataclass(frozen=True)
class Reading:
    """How a configuration reads data sets.

    Attributes:
        sets: Those that it reads.
        settings: What it says as ``data``.
        problem: Why one of them is refused as it is; None if none is.
        too_few: Those that it leaves out, because they have too few sentences to hold some out.
        again: The splits for which the training sentences stand in, because all have too few.
        classes: All classes, where they have to be said: what is held out has one that is left nowhere else.
    """

    sets: tuple[DataSet, ...]
    settings: dict[str, Any]
    problem: str | None = None
    too_few: tuple[DataSet, ...] = ()
    again: tuple[Split, ...] = ()
    classes: tuple[str, ...] = ()

    @property
    def look(self) -> Look:
        """What the first of their files holds, from which the others do not differ in kind."""
        return next(iter(self.sets[0].looks.values()))

    @property
    def tasks(self) -> dict[str, int]:
        """Number of training examples of each task, before some are held out."""
        return {task: number for one in self.sets for task, number in one.tasks.items()}


Read: TypeAlias = Callable[[DataSource, str], object]
"""Reads all examples of a task, or raises an error of pemeta."""


def reading_of(sets: Sequence[DataSet], read: Read | None = None) -> Reading:
    """How a configuration reads data sets of the same layout, found by reading them.

    Args:
        sets: The data sets.
        read: Reads a task of theirs; by default, as sentences.
    """
    read = read or (lambda source, task: source.corpus(task))
    settings = settings_of(sets)
    problems = [_problem(one, settings, read) for one in sets]
    few = tuple(one for one, problem in zip(sets, problems, strict=True) if isinstance(problem, TooFewError))
    if few and len(few) < len(sets):
        rest = tuple(one for one in sets if one not in few)
        return replace(reading_of(rest, read), too_few=few)
    again = tuple(few[0].held_out) if few else ()
    if again:
        settings |= dict.fromkeys(again, "train")
        problems = [_problem(one, settings, read) for one in sets]
    return Reading(tuple(sets), settings, next((str(one) for one in problems if one is not None), None), again=again)


def _problem(one: DataSet, settings: dict[str, Any], read: Read) -> PemetaError | None:
    """Why a data set cannot be read; None if it can."""
    for look in one.looks.values():
        if look.problem is not None:
            return DataError(look.problem)
    try:
        source = DataSource.parse(settings)
        for task in one.tasks:
            read(source, task)
    except PemetaError as error:
        return error
    return None
