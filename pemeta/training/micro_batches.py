"""A batch in parts that run one after the other: the same gradient, and the memory of one part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pemeta.errors import ConfigError
from pemeta.heads import Head
from pemeta.typing import Batch


@dataclass(frozen=True)
class Part:
    """A part of a batch.

    Attributes:
        batch: some of its examples.
        share: their share of the labels that the loss of the whole batch is the mean over; the sum over the parts of
            share times loss is that loss, and so for gradients.
    """

    batch: Batch
    share: float


def parts_of(head: Head, batches: Sequence[Batch]) -> list[Part]:
    """Batches as the parts of one, without those that have no label, which teach nothing.

    Args:
        head: whose loss it is.
        batches: on the CPU, so that their labels can be counted without waiting for a device.

    Raises:
        ConfigError: the head does not say how many labels its loss is the mean over.
    """
    if len(batches) == 1:
        return [Part(batches[0], 1.0)]
    weights = [head.labelled(batch) for batch in batches]
    known = [weight for weight in weights if weight is not None]
    if len(known) < len(weights):
        raise ConfigError(
            f"micro_batch_size weighs the parts of a batch by their labels, but {type(head).__name__} does not say how "
            "many its loss is the mean over; define its method labelled, or leave micro_batch_size out"
        )
    total = sum(known)
    if not total:
        return [Part(batches[0], 1.0)]
    return [Part(batch, weight / total) for batch, weight in zip(batches, known, strict=True) if weight]
