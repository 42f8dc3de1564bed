"""Records of before there were several kinds of task, which know entities and F1 alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SCORES = ("f1", "precision", "recall")
OUTCOMES = ("correct", "predicted", "gold")
RENAMED = {"f1_per_type": "scores_by", "f1_unseen": "score_unseen", "validation_f1": "validation_score"}
OLD = (*SCORES, *OUTCOMES, *RENAMED)


def is_old(fields: Mapping[str, Any]) -> bool:
    """Whether a record's fields are those of an old file."""
    return "metric" not in fields and not fields.keys().isdisjoint(OLD)


def upgraded(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an old file as those of a record of token classification.

    Raises:
        ValueError: one of them is missing.
    """
    if lacking := [name for name in (*OLD, "num_unseen") if name not in fields]:
        raise ValueError(f"{lacking[0]}: this key is required")
    kept = {name: value for name, value in fields.items() if name not in OLD}
    renamed = {new: fields[old] for old, new in RENAMED.items()}
    if fields["num_unseen"] == 0:
        renamed["score_unseen"] = None  # it was 0
    return {
        **kept,
        **renamed,
        "task": "token_classification",
        "unit": "sentence",
        "metric": "f1",
        "score": fields["f1"],
        "scores": {name: fields[name] for name in SCORES},
        "by": "F1 per entity type",
        "outcomes": {name: fields[name] for name in OUTCOMES},
        "validation_metric": "f1",
        "cut": "cut words count as O",
    }
