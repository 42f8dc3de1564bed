"""Whether metrics suit the predictions of a kind of task, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pemeta.data.metrics import Metric
from pemeta.data.metrics.base import Reads
from pemeta.errors import ConfigError, reason, shortened


def check_metrics(
    metrics: Iterable[Metric],
    what: str,
    gold: Sequence[Any],
    predicted: Mapping[Reads, Sequence[Any]],
    outputs: Sequence[object],
    usual: Iterable[str],
) -> None:
    """Refuse metrics that would fail after the training, tried on a few made-up predictions.

    Args:
        metrics: the metrics.
        what: what messages call the predictions.
        gold: what some examples should be, in the terms of the kind.
        predicted: what they are predicted to be, in each of the terms that the kind has.
        outputs: the meanings of the head's logits.
        usual: names of metrics that suit them.

    Raises:
        ValueError: one does not suit them.
    """
    remedy = f"use such as {', '.join(usual)}"
    for metric in metrics:
        if metric.reads not in predicted:
            raise ValueError(
                f"metrics: {metric.name} reads {metric.reads.replace('_', '-')}, which there are none of for {what}; "
                f"{remedy}"
            )
        try:
            metric.outcomes(gold, predicted[metric.reads], outputs)
        except ConfigError:  # a package is missing, which is said when the metric is used
            continue
        except Exception as error:  # whatever a metric raises that is for something else
            why = shortened(reason(error), 160)
            raise ValueError(f"metrics: {metric.name} does not suit {what} ({why}); {remedy}") from None
