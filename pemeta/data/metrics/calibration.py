"""Whether a classifier is right as often as it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from pemeta.data.metrics.base import Floats, Form, Metric, Outcomes, Reads, check_pairs, ratio
from pemeta.errors import DataError, unknown_name


class CalibrationError(Metric):
    """The expected calibration error: how far confidence is from accuracy, on the mean over examples.

    The confidence of an example is the probability of its likeliest class. Examples are put into bins of equal width by
    their confidence, and the error is the mean over bins of the difference between accuracy and mean confidence, each
    bin weighted by the number of its examples (Guo et al., 2017).

    Attributes:
        bins: number of bins; 15, as there.

    >>> round(CalibrationError().score(["a", "b"], [[0.9, 0.1], [0.8, 0.2]], ["a", "b"]), 2)
    0.45
    """

    name: ClassVar[str] = "ece"
    label: ClassVar[str] = "ECE"
    description: ClassVar[str] = "the expected calibration error of the likeliest class's probability"
    higher_is_better: ClassVar[bool] = False
    reads: ClassVar[Reads] = "probabilities"
    forms: ClassVar[tuple[Form, ...]] = ("class",)

    bins: int = Field(15, ge=1)

    def outcomes(self, gold: Sequence[Any], predicted: Sequence[Any], outputs: Sequence[object]) -> Outcomes:
        """The ``confidence`` of each example, and whether it is ``correct``, as 0 or 1.

        Raises:
            DataError: there is not one probability for each output, or what an example should be is no output.
        """
        check_pairs(gold, predicted)
        places = {output: place for place, output in enumerate(outputs)}
        confidence, correct = [], []
        for name, row in zip(gold, predicted, strict=True):
            if name not in places:
                raise DataError(f"{unknown_name('class', name, map(str, outputs))}; score with the classes of the data")
            if len(row) != len(outputs):
                raise DataError(
                    f"each example needs a probability for each of the {len(outputs)} classes; found {len(row)}; give "
                    "the probabilities of all classes, in their order"
                )
            likeliest = int(np.argmax(row))
            confidence.append(float(row[likeliest]))
            correct.append(int(likeliest == places[name]))
        return {"confidence": confidence, "correct": correct}

    def value(self, outcomes: Mapping[str, Floats], weights: Floats) -> Floats:  # noqa: D102 - inherited
        edges = np.linspace(0, 1, self.bins + 1)[1:-1]
        one_hot = np.eye(self.bins)[np.searchsorted(edges, outcomes["confidence"])]
        off = np.abs(weights @ (one_hot * (outcomes["correct"] - outcomes["confidence"])[:, None]))
        return ratio(off.sum(1), weights.sum(1))
