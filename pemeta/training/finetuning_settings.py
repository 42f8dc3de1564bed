"""The settings of fine-tuning, and the order of examples that follows from them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from pemeta.backbone.packed_passes import Padding
from pemeta.data.examples import Examples
from pemeta.training.lean_adamw import AdamWKind
from pemeta.utils.neutral import Neutral
from pemeta.utils.registry import Frozen
from pemeta.utils.seeding import numpy_generator
from pemeta.utils.signatures import checked

if TYPE_CHECKING:
    from pemeta.model.pe_model import PEModel  # which a configuration need not wait for

CHUNK = 10
"""Number of batches whose examples bucketing sorts together; with more, batches would be alike in every epoch."""


class FineTuning(Frozen):
    """Settings of fine-tuning; the paper gives none of them, so all defaults are our choice.

    Attributes:
        epochs: number of passes over the training examples.
        batch_size: number of examples in a batch.
        lr: AdamW's peak learning rate, from which it falls linearly to zero; 1e-3 suits adapters and heads, 5e-5 full
            fine-tuning.
        weight_decay: AdamW's weight decay.
        warmup_steps: number of steps in which the learning rate first rises linearly.
        max_grad_norm: norm to which a larger gradient is scaled down; null for no limit.
        dropout: whether training passes use dropout.
        reuse_trunk: run the layers that θ_a does not affect once per example instead of once per epoch, if they have
            no dropout, and padding does not change what they compute; the results are the same up to rounding. On a
            GPU hidden states are kept in up to a quarter of its spare memory; otherwise up to 2 GiB are kept in memory,
            and more in a temporary file, which is removed. On by default.
        bucket_by_length: make batches of examples of similar length, still in random order. Less padding is then
            computed, and epochs are faster if lengths vary widely. However, the examples of a batch are then similar
            in length, and a long one weighs more in its batch's mean, so that scores change slightly, up or down. Off
            by default.
        max_tokens: most tokens of a batch, in place of ``batch_size``: as many examples as have no more, or a single
            one that has. With ``padding: packed`` an example counts with its own tokens where the backbone takes rows,
            otherwise as the longest of its batch, so that the limit holds whether or not a batch is packed. Null, the
            default, for batches of ``batch_size``.
        padding: how examples of different lengths run: ``padded`` to the longest of their batch; ``packed``, behind
            each other in rows, which computes the same without the work of padding; or ``auto``, the default and our
            choice, packed where that is so much less work that it is faster. What a backbone cannot compute exactly in
            rows is padded. With dropout, its draw differs. ``padded`` repeats earlier versions bit for bit.
        micro_batch_size: most examples of a batch that run at once: a larger batch runs in parts, whose gradients, each
            weighed by its number of labels, sum to the same. Memory falls with it, and speed where parts do not fill
            the device. Null, the default, for the whole batch.
        optimizer: ``adamw``, the default; ``adamw_fused``, its step as one operation, as CUDA has it anyway: a fifth of
            the time on a CPU, rounded otherwise; ``adamw_8bit``, whose moments take a quarter of the memory, rounded;
            ``adamw_paged``, whose moments a GPU moves to the CPU's memory when its own is full; or
            ``adamw_8bit_paged``, both. The last three need bitsandbytes (the extra ``lean``), and what is paged needs
            CUDA.
        early_stopping: number of epochs in a row without a better validation score after which to stop; null, the
            default, for never.
        head: what the task's head starts from: newly drawn values (``new``, as in the paper), or those of the head that
            priming has left for tasks with equal labels (``primed``), such as the one that source tasks have in common
            with ``source_heads: shared``.
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
    max_tokens: Annotated[int | None, Field(gt=0), Neutral(None)] = None
    padding: Annotated[Padding, Neutral("padded")] = "auto"
    micro_batch_size: Annotated[int | None, Field(gt=0), Neutral(None)] = None
    optimizer: Annotated[AdamWKind, Neutral("adamw")] = "adamw"
    early_stopping: Annotated[int | None, Field(gt=0), Neutral(None)] = None
    head: Annotated[Literal["new", "primed"], Neutral("new")] = "new"

    @checked(examples=0)
    def steps_per_epoch(self, examples: int) -> int:
        """Number of steps in one pass over this number of training examples, in batches of ``batch_size``."""
        return -(-examples // self.batch_size)

    @checked()
    def steps_of_epochs(self, train: Examples, seed: int, task: str) -> tuple[int, ...]:
        """Number of steps in each pass over the training examples, a function of the arguments."""
        if self.max_tokens is None:
            return (self.steps_per_epoch(len(train)),) * self.epochs
        return tuple(len(self.batches(train, seed, task, epoch)) for epoch in range(self.epochs))

    @checked()
    def batches(self, train: Examples, seed: int, task: str, epoch: int) -> list[np.ndarray]:
        """Indices of all training examples, each once, in batches in random order, a function of the arguments."""
        rng, size = numpy_generator(seed, "epoch", task, epoch), self.batch_size
        order = rng.permutation(len(train))
        if self.max_tokens is not None:
            lengths = train.lengths()
            size = max(1, int(self.max_tokens // max(1.0, float(lengths.mean()))))  # of a chunk's batches
            cut = partial(cut_by_tokens, lengths=lengths, most=self.max_tokens, padded=self.padding != "packed")
        else:
            cut = partial(_cut, size=size)
        if not self.bucket_by_length:
            return cut(order)
        chunks = [sorted(chunk, key=lambda i: train.length(int(i))) for chunk in _cut(order, size * CHUNK)]
        batches = [batch for chunk in chunks for batch in cut(np.array(chunk))]
        return [batches[i] for i in rng.permutation(len(batches))]

    @checked()
    def parts(self, indices: np.ndarray) -> list[np.ndarray]:
        """A batch's examples as they run at once, ``micro_batch_size`` at most."""
        return [indices] if self.micro_batch_size is None else _cut(indices, self.micro_batch_size)


def as_counted(settings: FineTuning, model: PEModel) -> FineTuning:
    """The settings by which batches are cut: padding counts for a backbone that is not packed, whatever was asked for.

    Args:
        settings: of the run.
        model: its model.
    """
    if settings.max_tokens is None or settings.padding != "packed":
        return settings
    with model.padded_as("packed"):
        return settings if model.packs else settings.model_copy(update={"padding": "padded"})


def cut_by_tokens(order: np.ndarray, lengths: np.ndarray, most: int, padded: bool) -> list[np.ndarray]:
    """Examples in their order, in batches of as many as have no more tokens than ``most``, or of one that has.

    Args:
        order: indices of the examples.
        lengths: number of tokens of each example.
        most: of a batch.
        padded: whether each example counts as the longest of its batch.

    >>> [batch.tolist() for batch in cut_by_tokens(np.arange(4), np.array([2, 3, 4, 9]), 8, padded=True)]
    [[0, 1], [2], [3]]
    """
    batches: list[list[int]] = []
    longest = total = 0
    for index in order.tolist():
        length = int(lengths[index])
        longest, total = max(longest, length), total + length
        if not batches or (longest * (len(batches[-1]) + 1) if padded else total) > most:
            batches.append([])
            longest = total = length
        batches[-1].append(index)
    return [np.array(batch) for batch in batches]


def _cut(order: np.ndarray, size: int) -> list[np.ndarray]:
    return [order[start : start + size] for start in range(0, len(order), size)]
