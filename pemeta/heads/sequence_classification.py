"""Sequence classification: a label for each text, pair of texts, or image as a sequence of patches."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeAlias, get_args

import torch
from pydantic import Field
from torch import Tensor, nn

from pemeta.heads.base import (
    Head,
    HeadSpec,
    Labels,
    labels_of,
    mean_cross_entropy,
    new_dropout,
    new_linear,
    number_labelled,
)
from pemeta.typing import Batch
from pemeta.utils.neutral import Neutral
from pemeta.utils.values import known

Pooling: TypeAlias = Literal["first", "mean", "last"]


def pool(hidden: Tensor, mask: Tensor | None, pooling: Pooling) -> Tensor:
    """Pool the hidden states (B, T, D) of sequences into one vector each (B, D).

    Args:
        hidden: Hidden states.
        mask: Attention mask (B, T), 0 on padding, which may be on either side; without a mask, all positions count.
        pooling: The ``first`` or ``last`` position that is not padding, or the ``mean`` over all of them.

    >>> hidden = torch.tensor([[[1.0], [3.0], [100.0]]])
    >>> [pool(hidden, torch.tensor([[1, 1, 0]]), how).item() for how in ("first", "mean", "last")]
    [1.0, 2.0, 3.0]
    """
    known(pooling, "pooling", get_args(Pooling))
    if mask is None:
        mask = torch.ones(hidden.shape[:2], dtype=torch.long, device=hidden.device)
    if pooling == "mean":
        weights = mask.to(hidden.dtype).unsqueeze(-1)
        # Not just a product with the mask: values on padding may be anything, even infinite.
        return hidden.masked_fill(weights == 0, 0.0).sum(1) / weights.sum(1).clamp(min=1)
    positions = torch.arange(mask.shape[1], device=mask.device)
    counted = mask != 0
    if pooling == "first":
        chosen = positions.masked_fill(~counted, mask.shape[1] - 1).min(1).values
    else:
        chosen = positions.masked_fill(~counted, 0).max(1).values
    return hidden[torch.arange(len(hidden), device=hidden.device), chosen]


class SequenceClassificationHead(Head):
    """Pooling of a sequence's hidden states into one vector, and a linear map to labels: ``D C + C`` parameters.

    Args:
        hidden_size: Width D of the hidden states.
        num_labels: Number C of labels.
        pooling: ``mean`` over all positions (our choice, because it suits any backbone), ``first`` (the position of
            BERT's ``[CLS]``), or ``last``, for backbones with causal attention.
        dropout: Dropout probability on the pooled vector in training; 0, our choice.

    Padding, on either side, is excluded if the batch has an ``attention_mask``. Initial weights are normal with
    standard deviation 0.02 and the bias is zero, as in BERT's classifiers.
    """

    def __init__(self, hidden_size: int, num_labels: int, pooling: Pooling = "mean", dropout: float = 0.0) -> None:
        super().__init__()
        known(pooling, "pooling", get_args(Pooling))
        self.pooling: Pooling = pooling
        self.dropout = new_dropout(dropout)
        self.classifier = new_linear(hidden_size, num_labels)

    def forward(self, hidden: Tensor, batch: Batch, backbone: nn.Module) -> Tensor:
        """Logits (B, C) from hidden states (B, T, D)."""
        pooled = pool(hidden, batch.get("attention_mask"), self.pooling)
        return self.classifier(self.dropout(pooled))  # type: ignore[no-any-return]

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Mean cross-entropy over the labelled sequences of the batch (B,); 0 without any, and without a gradient.

        Raises:
            DataError: There is no label to learn from, or a label is not one of the head's.
        """
        return mean_cross_entropy(logits, labels_of(batch))

    def labelled(self, batch: Batch) -> float:
        """Number of labels other than -100."""
        return number_labelled(labels_of(batch))

    def predictions(self, logits: Tensor, batch: Batch) -> Tensor:
        """Label indices (B,) from logits (B, C)."""
        return logits.argmax(dim=-1)


class SequenceClassification(HeadSpec):
    """Description of a :class:`SequenceClassificationHead`.

    Attributes:
        labels: Names of the C labels, in the order of their indices.
        pooling: Pooling of a sequence into one vector: ``first``, ``mean`` (our choice) or ``last``.
        dropout: Dropout probability on the pooled vector in training; 0, our choice.
        pairs: Whether the head labels pairs of texts, which a server then asks for, or single texts.

    >>> SequenceClassification(labels=("bad", "good"), pooling="last").to_config()["pooling"]
    'last'
    """

    name: ClassVar[str] = "sequence_classification"

    labels: Labels
    pooling: Pooling = "mean"
    dropout: float = Field(0.0, ge=0, lt=1)
    pairs: Annotated[bool, Neutral(False)] = False

    def __call__(self, hidden_size: int) -> SequenceClassificationHead:  # noqa: D102 - inherited
        return SequenceClassificationHead(hidden_size, len(self.labels), self.pooling, self.dropout)
