"""The records of a run: one JSON file per group, and what can be asked of them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speedbench.cases import Case


@dataclass(frozen=True)
class Result:
    """What was measured of one case."""

    case: Case
    entry: dict[str, Any]

    @property
    def error(self) -> str | None:
        """Why there is nothing, where there is nothing."""
        error: str | None = self.entry["error"]
        return error

    @property
    def seconds(self) -> float:
        """Median over the rounds."""
        return float(statistics.median(self.entry["seconds"]))

    @property
    def least_seconds(self) -> float:
        """Of the fastest round."""
        return float(min(self.entry["seconds"]))

    @property
    def memory(self) -> float | None:
        """Bytes: what is held between steps (parameters, optimiser) and the most that a step added; median."""
        added = [value for value in self.entry["added_bytes"] if value is not None]
        return float(self.entry["held_bytes"] + statistics.median(added)) if added else None

    @property
    def process_memory(self) -> float | None:
        """Bytes: the most that the whole process held, Python and libraries included; median."""
        peaks = [value for value in self.entry["peak_bytes"] if value is not None]
        return float(statistics.median(peaks)) if peaks else None


@dataclass(frozen=True)
class Results:
    """The results of one race, which compare with each other."""

    name: str
    rounds: int
    results: tuple[Result, ...]

    def find(self, contender: str, **fields: Any) -> Result | None:
        """The first case of a contender with these fields that was measured; None where there is none."""
        for result in self.results:
            given = result.case.as_dict()
            if result.error is None and given["contender"] == contender and fields.items() <= given.items():
                return result
        return None


class Records:
    """The groups' records in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, group: str) -> dict[str, Any] | None:
        """A group's record as it is in its file, None where there is none."""
        path = self.folder / f"{group}.json"
        if not path.exists():
            return None
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return record

    def write(self, record: dict[str, Any]) -> None:
        """Write a group's record, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{record['group']}.json"
        part = path.with_suffix(".part")
        part.write_text(_dense(record) + "\n", encoding="utf-8")
        part.replace(path)

    def races(self, group: str) -> Iterator[Results]:
        """The races of a group."""
        for race in (self.read(group) or {"races": []})["races"]:
            results = tuple(Result(Case(**entry["case"]), entry) for entry in race["cases"])
            yield Results(race["race"], race["rounds"], results)


def _dense(record: dict[str, Any]) -> str:
    """JSON with one line per case."""
    races = [
        "    {"
        + ", ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in race.items() if k != "cases")
        + ', "cases": [\n'
        + ",\n".join(f"      {json.dumps(entry, ensure_ascii=False)}" for entry in race["cases"])
        + "\n    ]}"
        for race in record["races"]
    ]
    head = {key: value for key, value in record.items() if key != "races"}
    return json.dumps(head, indent=2, ensure_ascii=False)[:-2] + ',\n  "races": [\n' + ",\n".join(races) + "\n  ]\n}"
