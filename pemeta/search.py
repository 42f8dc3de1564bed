"""The choice of values that a configuration leaves open, by F1 on validation data."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pemeta.config import Cell, RunConfig
from pemeta.errors import OutputError
from pemeta.files import read_json
from pemeta.results import Record
from pemeta.setting import candidate_name

CHOSEN = "chosen.json"
"""File of a run's folder that holds what its search has chosen."""


@dataclass(frozen=True)
class Choice:
    """What a search found for a setting.

    Attributes:
        setting: the setting.
        values: the best ones, by dotted key.
        f1: mean F1 on validation data, from 0 to 1, of each candidate that has all its runs, the best one first.
        diverged: candidates that have none because their training failed.
        at_edge: keys whose best value is the first or the last of three or more, in order of size: others beyond it may
            be better.
    """

    setting: str
    values: dict[str, Any]
    f1: dict[str, float]
    at_edge: tuple[str, ...]
    diverged: tuple[str, ...] = ()

    def words(self) -> str:
        """A line for the terminal."""
        values = ", ".join(f"{key} {value}" for key, value in self.values.items())
        edge = f"; {', '.join(self.at_edge)} at the edge of what was tried" if self.at_edge else ""
        return f"{self.setting}: {values} (F1 {100 * next(iter(self.f1.values())):.1f} on validation data{edge})"


def choose(config: RunConfig, records: Sequence[Record], diverged: Collection[Cell] = ()) -> dict[str, Choice]:
    """The best candidate of each setting that has a search; the first of those that are equally good.

    A setting is left out where a run of a candidate is missing: that candidate may be the best. One whose training
    diverged is not.

    Args:
        config: with something to search.
        records: of the run :attr:`~pemeta.config.RunConfig.to_search`.
        diverged: runs without a record because their training failed.
    """
    search = config.to_search
    assert search is not None  # there is something to search
    runs = {Cell(record.setting, record.target, record.seed): record.validation_f1 for record in records}
    choices = {}
    for name, setting in config.settings.items():
        means: dict[str, float] = {}
        candidates = [candidate_name(name, values) for values in setting.candidates]
        for candidate in candidates:
            wanted = [Cell(candidate, target, seed) for target in search.targets for seed in search.seeds]
            if all(run in runs for run in wanted):
                means[candidate] = statistics.fmean(runs[run] for run in wanted)
            elif any(run not in runs and run not in diverged for run in wanted):
                means.clear()
                break
        if means:
            lost = tuple(candidate for candidate in candidates if candidate not in means)
            choices[name] = replace(_best(name, setting.candidates, means), diverged=lost)
    return choices


def read_choices(path: Path, config: RunConfig) -> dict[str, Choice]:
    """What a run has chosen, from its ``chosen.json``, where the configuration still has it among its candidates."""
    try:
        found = read_json(path)
    except OutputError:
        return {}
    choices = {}
    for name, setting in config.settings.items():
        try:
            raw = found[name]
            lists = {key: tuple(raw[key]) for key in ("at_edge", "diverged")}
            choice = Choice(name, dict(raw["values"]), dict(raw["f1"]), **lists)
        except (KeyError, TypeError, ValueError):
            continue
        if choice.values in setting.candidates:
            choices[name] = choice
    return choices


def with_choices(config: RunConfig, choices: Mapping[str, Choice]) -> RunConfig:
    """The run with what was chosen; settings that lack a choice are left out."""
    return config.chosen({name: choice.values for name, choice in choices.items()})


def _best(setting: str, candidates: Sequence[dict[str, Any]], means: Mapping[str, float]) -> Choice:
    ranked = sorted(means, key=lambda name: -means[name])  # stable: of equals the first
    values = next(values for values in candidates if candidate_name(setting, values) == ranked[0])
    edge = tuple(key for key, value in values.items() if _is_edge(value, [one[key] for one in candidates]))
    return Choice(setting, values, {name: means[name] for name in ranked}, edge)


def _is_edge(value: Any, tried: Sequence[Any]) -> bool:
    numbers = sorted({one for one in tried if isinstance(one, int | float)})
    return len(numbers) > 2 and value in (numbers[0], numbers[-1])
