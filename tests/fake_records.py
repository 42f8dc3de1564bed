"""Made-up records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pemeta.reporting.records import Record
from pemeta.reporting.scale import metric_named

SENTENCES = 100


def make(setting: str = "adapter", target: str = "hi", seed: int = 0, f1: float = 0.5, **changes: Any) -> Record:
    """A record of entities with defaults; ``changes`` are any of its fields, or of the outcomes of its sentences.

    Each of the hundred test sentences has one entity, which is found in the first ``100 f1`` of them and mistaken in
    the others, so that its counts give F1 to two digits.
    """
    found = round(SENTENCES * f1)
    outcomes: dict[str, Any] = {
        "correct": (1,) * found + (0,) * (SENTENCES - found),
        "predicted": (1,) * SENTENCES,
        "gold": (1,) * SENTENCES,
    }
    outcomes |= {name: changes.pop(name) for name in tuple(outcomes) if name in changes}
    fields: dict[str, Any] = {
        "setting": setting,
        "label": setting,
        "method": "adapter",
        "priming": None,
        "inner_method": None,
        "inner_steps": None,
        "sources": (),
        "target": target,
        "seed": seed,
        "task": "token_classification",
        "unit": "sentence",
        "metric": "f1",
        "score": f1,
        "scores": {"f1": f1, "precision": f1, "recall": f1},
        "scores_by": {"LOC": f1, "PER": f1},
        "by": "F1 per entity type",
        "score_unseen": f1,
        "num_unseen": 80,
        "outcomes": outcomes,
        "unseen": tuple(range(10, 90)),
        "test_digest": "2" * 12,
        "validation_metric": "f1",
        "validation_score": f1,
        "validation_curve": (f1 / 2, f1),
        "steps_per_epoch": 10,
        "best_epoch": 1,
        "num_train": 150,
        "num_test": SENTENCES,
        "num_truncated": 0,
        "cut": "cut words count as O",
        "num_adapted": 618,
        "fraction_adapted": 0.000618,
        "seconds": 4.0,
        "priming_seconds": None,
        "gradient_sentences": None,
        "config": {"target": target, "seed": seed, "finetuning": {"epochs": 3, "lr": 0.001}},
        "digest": "0" * 12,
        "data_digest": "1" * 12,
        "packages": {"torch": "2.13.0"},
        "hardware": {"device": "cpu", "cores": 2},
    }
    return Record(**{**fields, **changes})


def of_metric(
    name: str, outcomes: Mapping[str, Sequence[float]], setting: str = "adapter", target: str = "hi", **changes: Any
) -> Record:
    """A record of another metric than F1, from the outcomes of its examples; every second one is unseen."""
    metric = metric_named(name)
    size = len(next(iter(outcomes.values())))
    unseen = tuple(range(0, size, 2))
    score = metric.of(outcomes)
    fields: dict[str, Any] = {
        "task": "sequence_classification",
        "unit": "example",
        "metric": name,
        "score": score,
        "scores": {name: score, "other": 0.25},
        "scores_by": {},
        "by": "",
        "cut": "",
        "score_unseen": metric.of({column: [values[i] for i in unseen] for column, values in outcomes.items()}),
        "num_unseen": len(unseen),
        "outcomes": {column: tuple(values) for column, values in outcomes.items()},
        "unseen": unseen,
        "validation_metric": name,
        "validation_score": score,
        "validation_curve": (2 * score, score),
        "num_test": size,
    }
    return make(setting, target, **{**fields, **changes})


def primed(setting: str, target: str = "hi", seed: int = 0, f1: float = 0.5, **changes: Any) -> Record:
    """A record of a setting with priming."""
    defaults: dict[str, Any] = {"priming": "maml", "priming_seconds": 60.0, "gradient_sentences": 4800}
    return make(setting, target, seed, f1, **{**defaults, **changes})


def by_setting(*records: Record) -> dict[str, list[Record]]:
    """Records as figures take them."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.setting, []).append(record)
    return found
