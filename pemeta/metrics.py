"""Entity-level scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seqeval.metrics import classification_report


@dataclass(frozen=True)
class Scores:
    """Entity-level micro precision, recall and F1, and F1 per entity type; fractions from 0 to 1."""

    f1: float
    precision: float
    recall: float
    f1_per_type: dict[str, float]


def entity_scores(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], types: Sequence[str]) -> Scores:
    """Scores of predicted IOB2 tags by seqeval, in its default mode, which is that of the ``conlleval`` script.

    An entity counts when its type and both its ends are right. A predicted ``I-X`` that continues nothing
    starts an entity. Where there is nothing to find or nothing was found, the score is 0.

    >>> entity_scores([["B-PER", "I-PER", "O"]], [["B-PER", "O", "O"]], ["PER"]).f1
    0.0
    """
    report = classification_report(gold, predicted, output_dict=True, zero_division=0) if _any(gold, predicted) else {}
    micro = report.get("micro avg", {"f1-score": 0.0, "precision": 0.0, "recall": 0.0})
    return Scores(
        f1=float(micro["f1-score"]),
        precision=float(micro["precision"]),
        recall=float(micro["recall"]),
        f1_per_type={kind: float(report[kind]["f1-score"]) if kind in report else 0.0 for kind in types},
    )


def _any(*sequences: Sequence[Sequence[str]]) -> bool:
    """Whether any entity is there at all; seqeval fails without one."""
    return any(tag != "O" for tags in sequences for sentence in tags for tag in sentence)
