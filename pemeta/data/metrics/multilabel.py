"""Metrics of examples with any number of labels each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from pemeta.data.metrics.base import Floats, Form, Metric, Outcomes, check_pairs, ratio
from pemeta.errors import DataError, excerpt, unknown_name


class MultilabelMicroF1(Metric):
    """Micro F1 over labels: ``2 right / (predicted + gold)``, of all labels of all examples.

    >>> MultilabelMicroF1().score([{"a", "b"}, {"b"}], [{"a"}, {"b", "c"}], ["a", "b", "c"])
    0.666...
    """

    name: ClassVar[str] = "multilabel_micro_f1"
    label: ClassVar[str] = "micro F1"
    description: ClassVar[str] = "micro F1 over the labels of all examples, as scikit-learn counts it"
    forms: ClassVar[tuple[Form, ...]] = ("labels",)

    def outcomes(self, gold: Sequence[Any], predicted: Sequence[Any], outputs: Sequence[object]) -> Outcomes:
        """Numbers of ``correct``, ``predicted`` and ``gold`` labels of each example."""
        pairs = _sets(gold, predicted, outputs)
        return {
            "correct": [len(g & p) for g, p in pairs],
            "predicted": [len(p) for _, p in pairs],
            "gold": [len(g) for g, _ in pairs],
        }

    def value(self, outcomes: Mapping[str, Floats], weights: Floats) -> Floats:  # noqa: D102 - inherited
        return ratio(weights @ (2 * outcomes["correct"]), weights @ (outcomes["predicted"] + outcomes["gold"]))

    def by_output(self, gold: Sequence[Any], predicted: Sequence[Any], outputs: Sequence[object]) -> dict[str, float]:
        """F1 of each label; 0 for one that neither occurs nor is predicted."""
        return _f1_of_labels(gold, predicted, outputs)


class MultilabelMacroF1(Metric):
    """Macro F1 over labels: the mean of each label's F1, 0 for a label that neither occurs nor is predicted.

    >>> MultilabelMacroF1().score([{"a", "b"}, {"b"}], [{"a"}, {"b", "c"}], ["a", "b", "c"])
    0.555...
    """

    name: ClassVar[str] = "multilabel_macro_f1"
    label: ClassVar[str] = "macro F1"
    description: ClassVar[str] = "the mean F1 of all labels, as scikit-learn counts it"
    forms: ClassVar[tuple[Form, ...]] = ("labels",)

    def outcomes(self, gold: Sequence[Any], predicted: Sequence[Any], outputs: Sequence[object]) -> Outcomes:
        """For each label: 1 where an example is predicted to have it, 2 where it should, 3 for both, 0 else."""
        pairs = _sets(gold, predicted, outputs)
        return {str(output): [2 * (output in g) + (output in p) for g, p in pairs] for output in outputs}

    def value(self, outcomes: Mapping[str, Floats], weights: Floats) -> Floats:  # noqa: D102 - inherited
        if not outcomes:
            return np.zeros(len(weights))
        has = np.stack(list(outcomes.values()), axis=1)
        right, sizes = (has == 3).astype(np.float64), np.array([0.0, 1.0, 1.0, 2.0])[has.astype(np.int64)]
        mean: Floats = ratio(2 * weights @ right, weights @ sizes).mean(1)
        return mean

    def by_output(self, gold: Sequence[Any], predicted: Sequence[Any], outputs: Sequence[object]) -> dict[str, float]:
        """F1 of each label; 0 for one that neither occurs nor is predicted."""
        return _f1_of_labels(gold, predicted, outputs)


def _f1_of_labels(gold: Sequence[Any], predicted: Sequence[Any], outputs: Sequence[object]) -> dict[str, float]:
    pairs = _sets(gold, predicted, outputs)
    sizes = {output: sum((output in g) + (output in p) for g, p in pairs) for output in outputs}
    right = {output: sum(output in g and output in p for g, p in pairs) for output in outputs}
    return {str(output): 2 * right[output] / size if size else 0.0 for output, size in sizes.items()}


def _sets(
    gold: Sequence[Collection[object]], predicted: Sequence[Collection[object]], outputs: Sequence[object]
) -> list[tuple[set[object], set[object]]]:
    """The labels of each example as sets.

    Raises:
        DataError: they are no collections, or a label is not among the outputs.
    """
    check_pairs(gold, predicted)
    known = set(outputs)
    for labels in (*gold, *predicted):
        if isinstance(labels, str) or not isinstance(labels, Collection):
            raise DataError(
                f"each example needs a collection of labels; found {excerpt(labels)}; put a single label in a list"
            )
        odd = next((label for label in labels if label not in known), None)
        if odd is not None:
            raise DataError(f"{unknown_name('label', odd, map(str, outputs))}; score with the labels of the data")
    return [(set(g), set(p)) for g, p in zip(gold, predicted, strict=True)]
