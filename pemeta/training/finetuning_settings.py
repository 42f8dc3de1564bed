"""The settings of fine-tuning, and the order of examples that follows from them."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from pemeta.data.examples import Examples
from pemeta.utils.registry import Frozen
from pemeta.utils.seeding import numpy_generator

CHUNK = 10
"""Batches whose examples bucketing sorts together; our choice: with more, batches become the same in every epoch."""


class FineTuning(Frozen):
    """Settings of fine-tuning; the paper gives none of them, so all are our choice.

    Attributes:
        epochs: passes over the training examples.
        batch_size: examples in a batch.
        lr: AdamW's highest learning rate, falling linearly to zero; 1e-3 suits adapters and heads,
            5e-5 full fine-tuning.
        weight_decay: of AdamW.
        warmup_steps: in which the rate first rises linearly.
        max_grad_norm: norm that the gradient is scaled down to; null leaves it.
        dropout: dropout in the training passes.
        reuse_trunk: run the layers that θ_a does not reach once per example and not once per epoch, where no dropout is
            in them; the results are the same but for rounding. Up to 2 GiB of hidden states are kept in memory, more in
            a temporary file, which is removed. On, our choice.
        bucket_by_length: make batches of examples of similar length, still in a random order. So less padding is
            computed, and epochs are faster where lengths differ much. But the examples of a batch are then alike in
            length, and a long one weighs more in its batch's mean, so that scores change a little, up or down. Off, our
            choice.
        early_stopping: Stop after so many epochs without a better validation score; null, our choice, does all epochs.
    """

    epochs: int = Field(15, gt=0)
    batch_size: int = Field(16, gt=0)
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup_steps: int = Field(0, ge=0)
    max_grad_norm: float | None = Field(1.0, gt=0)
    dropout: bool = False
    reuse_trunk: bool = True
    bucket_by_length: bool = False
    early_stopping: int | None = Field(None, gt=0)

    def steps_per_epoch(self, examples: int) -> int:
        """Number of steps in a pass over so many training examples."""
        return -(-examples // self.batch_size)

    def batches(self, train: Examples, seed: int, task: str, epoch: int) -> list[np.ndarray]:
        """The indices of all training examples, each once, in batches in a random order; the same for each call."""
        rng, size = numpy_generator(seed, "epoch", task, epoch), self.batch_size
        order = rng.permutation(len(train))
        if not self.bucket_by_length:
            return _cut(order, size)
        chunks = [sorted(chunk, key=lambda i: train.length(int(i))) for chunk in _cut(order, size * CHUNK)]
        batches = [batch for chunk in chunks for batch in _cut(np.array(chunk), size)]
        return [batches[i] for i in rng.permutation(len(batches))]


def _cut(order: np.ndarray, size: int) -> list[np.ndarray]:
    return [order[start : start + size] for start in range(0, len(order), size)]
