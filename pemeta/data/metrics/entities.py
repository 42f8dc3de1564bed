"""Entity-level scores of tagged sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, TypeAlias

from seqeval.metrics.sequence_labeling import get_entities, precision_recall_fscore_support

from pemeta.data.metrics.base import Floats, Form, Metric, Outcomes, TaskScores, check_alike, ratio
from pemeta.utils.values import checked_names, known, listed

Scoring: TypeAlias = Literal["conlleval", "strict"]
"""What becomes of a predicted ``I-X`` that goes on with no entity: it begins one, or it is none."""
SCORINGS: tuple[Scoring, ...] = ("conlleval", "strict")


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
    check_alike([len(tags) for tags in gold], [len(tags) for tags in predicted], "sentence")
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


class _OfEntities(Metric):
    """A metric from the entity counts of each sentence.

    Attributes:
        scoring: what becomes of a predicted ``I-X`` that goes on with no entity, as in ``entity_scores``.
    """

    forms: ClassVar[tuple[Form, ...]] = ("tags",)

    scoring: Scoring = "conlleval"

    def outcomes(self, gold: Sequence[Any], predicted: Sequence[Any], outputs: Sequence[object]) -> Outcomes:
        """Numbers of ``correct``, ``predicted`` and ``gold`` entities of each sentence, from its tags."""
        check_alike([len(tags) for tags in gold], [len(tags) for tags in predicted], "sentence")
        counts = entity_counts(gold, predicted, self.scoring)
        return {"correct": counts.correct, "predicted": counts.predicted, "gold": counts.gold}


class EntityF1(_OfEntities):
    """Entity-level micro F1, ``2 correct / (predicted + gold)``; 0 where there is nothing to find and nothing found.

    Attributes:
        scoring: what becomes of a predicted ``I-X`` that goes on with no entity, as in ``entity_scores``.

    >>> EntityF1().score([["B-PER", "O"], ["B-LOC", "O"]], [["B-PER", "O"], ["O", "O"]])
    0.666...
    """

    name: ClassVar[str] = "f1"
    label: ClassVar[str] = "F1"
    description: ClassVar[str] = "entity-level micro F1 as seqeval counts it"

    def value(self, outcomes: Mapping[str, Floats], weights: Floats) -> Floats:  # noqa: D102 - inherited
        return ratio(weights @ (2 * outcomes["correct"]), weights @ (outcomes["predicted"] + outcomes["gold"]))

    def by_output(self, gold: Sequence[Any], predicted: Sequence[Any], outputs: Sequence[object]) -> dict[str, float]:
        """F1 of each entity type in ``outputs``; of all types found where it has none."""
        found = {tag[2:] for sentences in (gold, predicted) for tags in sentences for tag in tags if tag != "O"}
        types = sorted(found) if not outputs else _types_of(outputs)
        return entity_scores(gold, predicted, types, self.scoring).f1_per_type


class EntityPrecision(_OfEntities):
    """Entity-level micro precision, ``correct / predicted``; 0 where none is predicted.

    Attributes:
        scoring: as in ``f1``.
    """

    name: ClassVar[str] = "precision"
    label: ClassVar[str] = "precision"
    description: ClassVar[str] = "the share of predicted entities with the right type and boundaries"

    def value(self, outcomes: Mapping[str, Floats], weights: Floats) -> Floats:  # noqa: D102 - inherited
        return ratio(weights @ outcomes["correct"], weights @ outcomes["predicted"])


class EntityRecall(_OfEntities):
    """Entity-level micro recall, ``correct / gold``; 0 where there is none.

    Attributes:
        scoring: as in ``f1``.
    """

    name: ClassVar[str] = "recall"
    label: ClassVar[str] = "recall"
    description: ClassVar[str] = "the share of the entities that were found, with the right type and boundaries"

    def value(self, outcomes: Mapping[str, Floats], weights: Floats) -> Floats:  # noqa: D102 - inherited
        return ratio(weights @ outcomes["correct"], weights @ outcomes["gold"])


def _types_of(outputs: Sequence[object]) -> list[str]:
    """The entity types of a head's tags, in their order; of types, themselves."""
    tags = [str(output) for output in outputs if output != "O"]
    return list(dict.fromkeys(tag[2:] if tag[:2] in ("B-", "I-") else tag for tag in tags))


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


def _any(*sequences: Sequence[Sequence[str]]) -> bool:
    """Whether there is any entity at all; seqeval fails without one."""
    return any(tag != "O" for tags in sequences for sentence in tags for tag in sentence)
