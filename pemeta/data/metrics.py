"""Scores for each kind of task."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

from seqeval.metrics.sequence_labeling import get_entities, precision_recall_fscore_support

from pemeta.errors import DataError, counted
from pemeta.utils.values import checked_names, known, listed

Scoring: TypeAlias = Literal["conlleval", "strict"]
"""What becomes of a predicted ``I-X`` that goes on with no entity: it begins one, or it is none."""
SCORINGS: tuple[Scoring, ...] = ("conlleval", "strict")


class TaskScores(ABC):
    """Scores of predictions for one task of any kind."""

    @property
    @abstractmethod
    def main(self) -> float:
        """The number by which epochs are compared; higher is better."""

    @property
    @abstractmethod
    def summary(self) -> str:
        """Name and value of the metric for a progress bar."""

    def numbers(self) -> dict[str, float]:
        """Every score that is one number, by name."""
        return {name: float(value) for name, value in vars(self).items() if isinstance(value, int | float)}


@dataclass(frozen=True)
class Scores(TaskScores):
    """Entity-level micro precision, recall and F1, and F1 per entity type; fractions from 0 to 1."""

    f1: float
    precision: float
    recall: float
    f1_per_type: dict[str, float]

    @property
    def main(self) -> float:
        """F1."""
        return self.f1

    @property
    def summary(self) -> str:
        """F1 in per cent."""
        return f"F1 {100 * self.f1:.1f}"


def entity_scores(
    gold: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    types: Sequence[str],
    scoring: Scoring = "conlleval",
) -> Scores:
    """Scores of predicted IOB2 tags by seqeval.

    An entity is correct if its type and both its boundaries are. A predicted ``I-X`` that continues no entity starts
    one by the rules of the ``conlleval`` script, which are seqeval's own, and is no entity by strict ones, which are
    those of seqeval's ``mode="strict", scheme=IOB2``. Scores are 0 if there are no gold entities or no predicted ones.

    Raises:
        DataError: There is not one predicted tag for each gold tag.
        ConfigError: There is no such scoring.

    >>> entity_scores([["B-PER", "I-PER", "O"]], [["B-PER", "O", "O"]], ["PER"]).f1
    0.0
    """
    gold = [list(listed(tags, "gold tags", "['O']")) for tags in listed(gold, "sentences' gold tags", "[['O']]")]
    predicted = [list(listed(tags, "predicted tags", "['O']")) for tags in listed(predicted, "predictions", "[['O']]")]
    types = checked_names(types, "entity type")
    _check_alike([len(tags) for tags in gold], [len(tags) for tags in predicted], "sentence")
    gold, predicted = _counted_tags(gold, scoring), _counted_tags(predicted, scoring)
    if not _any(gold, predicted):
        return Scores(0.0, 0.0, 0.0, dict.fromkeys(types, 0.0))
    # Not seqeval's report, which extracts all entities ten times: it would dominate an epoch on cached hidden states.
    score = partial(precision_recall_fscore_support, gold, predicted, zero_division=0, warn_for=())
    precision, recall, f1, _ = score(average="micro")
    found = sorted({tag[2:] for tags in (gold, predicted) for sentence in tags for tag in sentence if tag != "O"})
    per_type = dict(zip(found, score(average=None)[2], strict=True))
    return Scores(float(f1), float(precision), float(recall), {t: float(per_type.get(t, 0.0)) for t in types})


@dataclass(frozen=True)
class EntityCounts:
    """Entity counts of each sentence, from which micro F1 on any sample of the sentences can be computed.

    Attributes:
        correct: Number of predicted entities with the right type and boundaries, for each sentence.
        predicted: Number of predicted entities, for each sentence.
        gold: Number of gold entities, for each sentence.
    """

    correct: tuple[int, ...]
    predicted: tuple[int, ...]
    gold: tuple[int, ...]


def entity_counts(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], scoring: Scoring = "conlleval"
) -> EntityCounts:
    """The entity counts of each sentence, by the rules of :func:`entity_scores`.

    >>> entity_counts([["B-PER", "I-PER", "O"], ["B-LOC"]], [["B-PER", "O", "O"], ["B-LOC"]])
    EntityCounts(correct=(0, 1), predicted=(1, 1), gold=(1, 1))
    """
    gold, predicted = _counted_tags(gold, scoring), _counted_tags(predicted, scoring)
    found = [(set(get_entities(list(g))), set(get_entities(list(p)))) for g, p in zip(gold, predicted, strict=True)]
    return EntityCounts(
        tuple(len(g & p) for g, p in found), tuple(len(p) for _, p in found), tuple(len(g) for g, _ in found)
    )


def _counted_tags(sentences: Sequence[Sequence[str]], scoring: Scoring) -> Sequence[Sequence[str]]:
    """The tags of entities that count: strictly, without those that go on with no entity."""
    if known(scoring, "scoring", SCORINGS) == "conlleval":
        return sentences
    strict = []
    for tags in sentences:
        kept: list[str] = []
        for tag in tags:
            fits = not tag.startswith("I-") or (bool(kept) and kept[-1][1:] == tag[1:])  # B-X or I-X before it
            kept.append(tag if fits else "O")
        strict.append(kept)
    return strict


def _check_alike(gold: list[int], predicted: list[int], unit: str) -> None:
    """Refuse predictions for other data, given the numbers of labels in each text or sentence."""
    if len(gold) != len(predicted):
        raise DataError(
            f"each gold {unit} needs one prediction; found {len(gold)} and {len(predicted)}; predict for the same data"
        )
    for number, (one, other) in enumerate(zip(gold, predicted, strict=True), 1):
        if one != other:
            raise DataError(
                f"{unit} {number} of {len(gold)} has {counted(one, 'gold tag')} and {other} predicted; predict one for "
                "each word"
            )


def _any(*sequences: Sequence[Sequence[str]]) -> bool:
    """Whether there is any entity at all; seqeval fails without one."""
    return any(tag != "O" for tags in sequences for sentence in tags for tag in sentence)


@dataclass(frozen=True)
class ClassScores(TaskScores):
    """Accuracy, macro-F1 and F1 per class; fractions from 0 to 1."""

    accuracy: float
    macro_f1: float
    f1_per_class: dict[str, float]

    @property
    def main(self) -> float:
        """Accuracy."""
        return self.accuracy

    @property
    def summary(self) -> str:
        """Accuracy in per cent."""
        return f"accuracy {100 * self.accuracy:.1f}"


def class_scores(gold: Sequence[str], predicted: Sequence[str], classes: Sequence[str]) -> ClassScores:
    """Scores of one predicted class per text.

    Macro-F1 is the mean F1 of the classes that occur in ``gold`` or ``predicted``, as in scikit-learn; any other class
    has an F1 of 0 in ``f1_per_class`` and does not count.

    Raises:
        DataError: There is not one predicted class for each gold class.

    >>> scores = class_scores(["a", "a", "b"], ["a", "b", "b"], ["a", "b", "c"])
    >>> round(scores.accuracy, 3), round(scores.macro_f1, 3)
    (0.667, 0.667)
    """
    gold, predicted = listed(gold, "gold classes", "['good']"), listed(predicted, "predictions", "['good']")
    classes = checked_names(classes, "class", "classes")
    _check_alike([1] * len(gold), [1] * len(predicted), "text")
    pairs = list(zip(gold, predicted, strict=True))
    # F1 = 2 TP / (2 TP + FP + FN); the denominator is the sum of the two counts.
    sizes = {name: list(gold).count(name) + list(predicted).count(name) for name in classes}
    f1 = {name: 2 * pairs.count((name, name)) / size if size else 0.0 for name, size in sizes.items()}
    present = [f1[name] for name, size in sizes.items() if size]
    return ClassScores(
        accuracy=sum(g == p for g, p in pairs) / len(pairs) if pairs else 0.0,
        macro_f1=sum(present) / len(present) if present else 0.0,
        f1_per_class=f1,
    )


@dataclass(frozen=True)
class LanguageModelScores(TaskScores):
    """Mean negative log-likelihood per predicted token, in nats, and its exponential."""

    loss: float
    perplexity: float

    @property
    def main(self) -> float:
        """The negated loss."""
        return -self.loss

    @property
    def summary(self) -> str:
        """Perplexity."""
        return f"perplexity {self.perplexity:.1f}"


def language_model_scores(log_probabilities: Sequence[Sequence[float]]) -> LanguageModelScores:
    """Scores from the log-probability of each predicted token; all tokens have the same weight, whatever their block.

    >>> language_model_scores([[math.log(0.5)], [math.log(0.5), math.log(0.25)]]).perplexity
    2.519...
    """
    blocks = listed(log_probabilities, "log-probabilities of blocks", "[[-0.5]]")
    values = [value for block in blocks for value in listed(block, "log-probabilities", "[-0.5]")]
    loss = -math.fsum(values) / len(values) if values else 0.0
    try:
        perplexity = math.exp(loss)
    except OverflowError:
        perplexity = math.inf
    return LanguageModelScores(loss, perplexity)
