"""Cases of the fault suites, and the room in which each of them is tried."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml


@dataclass
class Room:
    """Everything that a case may damage, copied when it is first requested.

    Attributes:
        tmp: Folder of the case, which is also the working directory.
        config: Configuration of a run that takes a second, not yet in a file.
        patch: Means to break things other than files, such as the network.
        held: Objects that must live until the case is over, such as a lock.
    """

    tmp: Path
    config: dict[str, Any]
    _data: Path
    _model: Path
    _run: Path
    _interrupted: Path
    patch: pytest.MonkeyPatch
    held: list[Any] = field(default_factory=list)

    def data(self) -> Path:
        """The data folder, which the configuration names."""
        self.config["data"]["path"] = str(self._copy(self._data, self.tmp / "conll"))
        return self.tmp / "conll"

    def model(self) -> Path:
        """The backbone's folder, which the configuration names."""
        self.config["backbone"]["path"] = str(self._copy(self._model, self.tmp / "model"))
        return self.tmp / "model"

    def run(self) -> Path:
        """The output folder of a finished run of the configuration."""
        return self._copy(self._run, self.tmp / "out")

    def interrupted(self) -> Path:
        """The checkpoint of a run whose priming was interrupted."""
        (file,) = self._copy(self._interrupted, self.tmp / "out").glob("checkpoints/priming/*.safetensors")
        return file

    def primed(self) -> Path:
        """The primed model in the run."""
        (folder,) = (self.run() / "primed").iterdir()
        return folder

    def served(self, setting: str = "primed") -> Path:
        """The folder in the run that holds a setting's tasks, one of them ``cc``."""
        return self.run() / "models" / f"{setting}-seed0"

    def write(self, text: str | bytes, name: str = "given.yaml") -> Path:
        """Write a file with the given content."""
        path = self.tmp / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def written(self, **changes: Any) -> str:
        """The configuration as YAML, with other values of some keys."""
        return yaml.safe_dump({**self.config, **changes}, sort_keys=False, allow_unicode=True)

    @staticmethod
    def _copy(source: Path, target: Path) -> Path:
        if not target.exists():
            shutil.copytree(source, target)
        return target


Prepare = Callable[[Room], Sequence[object]]
"""A function that damages something in a room, and returns the command line that has to notice."""


@dataclass(frozen=True)
class Case:
    """A malformed input.

    Attributes:
        name: Unique name of the case.
        prepare: Function that damages something, and returns the command line.
        says: Regular expression that the message must match: what is wrong, and where.
        stdin: Standard input of the command.
    """

    name: str
    prepare: Prepare
    says: str
    stdin: str = ""


@dataclass
class Cases:
    """A growing list of cases of one kind."""

    kind: str
    all: list[Case] = field(default_factory=list)

    def add(self, name: str, says: str, prepare: Prepare, stdin: str = "") -> None:
        self.all.append(Case(f"{self.kind}: {name}", prepare, says, stdin))

    def case(self, says: str, stdin: str = "") -> Callable[[Prepare], Prepare]:
        """A decorator that registers a function as a case named after it."""

        def register(prepare: Prepare) -> Prepare:
            self.add(prepare.__name__.strip("_").replace("_", " "), says, prepare, stdin)
            return prepare

        return register


def edit(path: Path, changes: Mapping[str, Any]) -> None:
    """Set keys of a JSON object in a file; those that are ``...`` are removed."""
    value = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps({key: item for key, item in value.items() if item is not ...}), encoding="utf-8")
