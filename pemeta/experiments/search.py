"""The hyper-parameter search: the choice among candidate values by scores on validation data."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pemeta.errors import OutputError
from pemeta.experiments.config import GridConfig, Run
from pemeta.experiments.setting import candidate_name
from pemeta.reporting.choices import Choice
from pemeta.reporting.grid import scale_of
from pemeta.reporting.records import Record
from pemeta.reporting.scale import Scale
from pemeta.utils.files import read_json

CHOSEN = "chosen.json"
"""File of an output folder that holds the choices of its search."""


def choose(config: GridConfig, records: Sequence[Record], diverged: Collection[Run] = ()) -> dict[str, Choice]:
    """The best candidate of each setting that has a search; the first of several that are equally good.

    A setting is omitted if a run of a candidate is missing, since that candidate may be the best; candidates whose
    training diverged are not waited for.

    Args:
        config: a configuration with a search.
        records: records of its grid :attr:`~pemeta.experiments.config.GridConfig.to_search`.
        diverged: runs without a record because their training failed.
    """
    search = config.to_search
    assert search is not None  # there is something to search
    runs = {Run(record.setting, record.target, record.seed): record.validation_score for record in records}
    scale = scale_of(records, of="validation_metric")
    choices = {}
    for name, setting in config.settings.items():
        means: dict[str, float] = {}
        candidates = [candidate_name(name, values) for values in setting.candidates]
        for candidate in candidates:
            wanted = [Run(candidate, target, seed) for target in search.targets for seed in search.seeds]
            if all(run in runs for run in wanted):
                means[candidate] = statistics.fmean(runs[run] for run in wanted)
            elif any(run not in runs and run not in diverged for run in wanted):
                means.clear()
                break
        if means:
            lost = tuple(candidate for candidate in candidates if candidate not in means)
            choices[name] = replace(_best(name, setting.candidates, means, scale), diverged=lost)
    return choices


def read_choices(path: Path, config: GridConfig) -> dict[str, Choice]:
    """The choices in a ``chosen.json`` that are still among the candidates of the configuration."""
    try:
        found = read_json(path)
    except OutputError:
        return {}
    choices = {}
    for name, setting in config.settings.items():
        try:
            raw = found[name]
            lists = {key: tuple(raw[key]) for key in ("at_edge", "diverged")}
            metric, scores = ("f1", raw["f1"]) if "f1" in raw else (str(raw["metric"]), raw["scores"])
            choice = Choice(name, dict(raw["values"]), metric, dict(scores), **lists)
        except (KeyError, TypeError, ValueError):
            continue
        if choice.values in setting.candidates:
            choices[name] = choice
    return choices


def with_choices(config: GridConfig, choices: Mapping[str, Choice]) -> GridConfig:
    """The configuration with the chosen values; settings without a choice are omitted."""
    return config.chosen({name: choice.values for name, choice in choices.items()})


def _best(setting: str, candidates: Sequence[dict[str, Any]], means: Mapping[str, float], scale: Scale) -> Choice:
    ranked = sorted(means, key=lambda name: means[name], reverse=scale.metric.higher_is_better)  # of equals the first
    values = next(values for values in candidates if candidate_name(setting, values) == ranked[0])
    edge = tuple(key for key, value in values.items() if _is_edge(value, [one[key] for one in candidates]))
    return Choice(setting, values, scale.metric.name, {name: means[name] for name in ranked}, edge)


def _is_edge(value: Any, tried: Sequence[Any]) -> bool:
    numbers = sorted({one for one in tried if isinstance(one, int | float)})
    return len(numbers) > 2 and value in (numbers[0], numbers[-1])
