"""Made-up records."""

from __future__ import annotations

from typing import Any

from pemeta.reporting.records import Record

SENTENCES = 100


def make(setting: str = "adapter", target: str = "hi", seed: int = 0, f1: float = 0.5, **changes: Any) -> Record:
    """A record with defaults; ``changes`` are any of its fields.

    Each of the hundred test sentences has one entity, which is found in the first ``100 f1`` of them and mistaken in
    the others, so that its counts give F1 to two digits.
    """
    found = round(SENTENCES * f1)
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
        "f1": f1,
        "precision": f1,
        "recall": f1,
        "f1_per_type": {"LOC": f1, "PER": f1},
        "f1_unseen": f1,
        "num_unseen": 80,
        "correct": (1,) * found + (0,) * (SENTENCES - found),
        "predicted": (1,) * SENTENCES,
        "gold": (1,) * SENTENCES,
        "unseen": tuple(range(10, 90)),
        "validation_f1": f1,
        "validation_curve": (f1 / 2, f1),
        "steps_per_epoch": 10,
        "best_epoch": 1,
        "num_train": 150,
        "num_test": SENTENCES,
        "num_truncated": 0,
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
