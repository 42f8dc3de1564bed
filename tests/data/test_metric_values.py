"""Every metric of the registry against a library's own value, on the data and on samples drawn from it with replacement."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from seqeval.metrics import f1_score as entity_f1
from seqeval.metrics import precision_score, recall_score

from pemeta.data.metrics import Metric


@dataclass(frozen=True)
class Case:
    """Examples to score, and the value that a library gives for gold and predicted ones."""

    metric: str | dict[str, Any]
    data: Callable[[np.random.Generator], tuple[list[Any], list[Any], Sequence[object]]]
    oracle: Callable[[list[Any], list[Any]], float]

    def __str__(self) -> str:
        return self.metric if isinstance(self.metric, str) else "-".join(map(str, self.metric.values()))


def tagged(rng):
    tags = ["O", "B-PER", "I-PER", "B-ORG"]
    lengths = rng.integers(0, 6, size=20)
    gold, predicted = ([list(rng.choice(tags, length)) for length in lengths] for _ in range(2))
    return gold, predicted, tags


CASES = [
    Case("f1", tagged, lambda gold, predicted: entity_f1(gold, predicted, zero_division=0)),
    Case("precision", tagged, lambda gold, predicted: precision_score(gold, predicted, zero_division=0)),
    Case("recall", tagged, lambda gold, predicted: recall_score(gold, predicted, zero_division=0)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_value_is_the_librarys_on_the_data_and_on_samples_of_it(case):
    rng = np.random.default_rng(0)
    gold, predicted, outputs = case.data(rng)
    metric = Metric.parse(case.metric)
    outcomes = metric.outcomes(gold, predicted, outputs)
    assert {len(column) for column in outcomes.values()} == {len(gold)}
    drawn = [np.arange(len(gold)), *(rng.integers(len(gold), size=len(gold)) for _ in range(8))]
    expected = [case.oracle([gold[i] for i in sample], [predicted[i] for i in sample]) for sample in drawn]
    assert len(set(expected)) > 4  # or samples would not tell metrics apart
    weights = np.array([np.bincount(sample, minlength=len(gold)) for sample in drawn], float)
    columns = {name: np.asarray(column, float) for name, column in outcomes.items()}
    assert metric.value(columns, weights) == pytest.approx(expected, abs=1e-9)
    assert metric.score(gold, predicted, outputs) == metric.of(outcomes) == pytest.approx(expected[0], abs=1e-9)


def test_every_metric_has_a_case():
    assert {Metric.parse(case.metric).name for case in CASES} == set(Metric.members())
