"""A label for each sequence: a text, a pair of texts, or an image as a sequence of patches."""

from __future__ import annotations

from typing import ClassVar, Literal, TypeAlias

import torch
from pydantic import Field
from torch import Tensor, nn

from pemeta.heads.base import Head, HeadSpec, Labels, mean_cross_entropy, new_linear
from pemeta.typing import Batch

Pooling: TypeAlias = Literal["first", "mean", "last"]


def pool(hidden: Tensor, mask: Tensor | None, pooling: Pooling) -> Tensor:
    """One vector for each sequence: (B, T, D) to (B, D).

    Args:
        hidden: hidden states.
        mask: (B, T), 1 where there is something and 0 on padding, on either side; without it, all positions count.
        pooling: the ``first`` or the ``last`` position that counts, or the ``mean`` over those that do.

    >>> hidden = torch.tensor([[[1.0], [3.0], [100.0]]])
    >>> [pool(hidden, torch.tensor([[1, 1, 0]]), how).item() for how in ("first", "mean", "last")]
    [1.0, 2.0, 3.0]
    """
    if mask is None:
        mask = torch.ones(hidden.shape[:2], dtype=torch.long, device=hidden.device)
    if pooling == "mean":
        weights = mask.to(hidden.dtype).unsqueeze(-1)
        # Not a product with the mask alone: what stands on padding may be anything, infinite even.
        return hidden.masked_fill(weights == 0, 0.0).sum(1) / weights.sum(1).clamp(min=1)
    positions = torch.arange(mask.shape[1], device=mask.device)
    counted = mask != 0
    if pooling == "first":
        chosen = positions.masked_fill(~counted, mask.shape[1] - 1).min(1).values
    else:
        chosen = positions.masked_fill(~counted, 0).max(1).values
    return hidden[torch.arange(len(hidden), device=hidden.device), chosen]


class SequenceClassificationHead(Head):
    """The hidden states of a sequence made one vector, and one linear map to a label: ``D C + C`` parameters.

    Args:
        hidden_size: width D of the hidden states.
        num_labels: C.
        pooling: ``mean`` over all positions, our choice: it asks nothing of the backbone. ``first`` is that of
            BERT's ``[CLS]``; ``last`` suits backbones that see only what came before.
        dropout: probability on the pooled vector while training; 0, our choice.

    Padding, on either side, is left out where the batch has an ``attention_mask``. The weights are normal with
    standard deviation 0.02 and the bias zero, as in BERT's classifiers.
    """

    def __init__(self, hidden_size: int, num_labels: int, pooling: Pooling = "mean", dropout: float = 0.0) -> None:
        super().__init__()
        self.pooling: Pooling = pooling
        self.dropout = nn.Dropout(dropout)
        self.classifier = new_linear(hidden_size, num_labels)

    def forward(self, hidden: Tensor, batch: Batch, backbone: nn.Module) -> Tensor:
        """(B, T, D) to logits (B, C)."""
        pooled = pool(hidden, batch.get("attention_mask"), self.pooling)
        return self.classifier(self.dropout(pooled))  # type: ignore[no-any-return]

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy, averaged over the labelled sequences of the batch (B,); 0 where there is none."""
        return mean_cross_entropy(logits, batch["labels"])

    def predictions(self, logits: Tensor, batch: Batch) -> Tensor:
        """(B, C) to label indices (B,)."""
        return logits.argmax(dim=-1)


class SequenceClassification(HeadSpec):
    """Makes a :class:`SequenceClassificationHead`.

    Attributes:
        labels: names of the C labels, in the order of their indices.
        pooling: how a sequence becomes one vector: ``first``, ``mean`` (our choice) or ``last``.
        dropout: probability on the pooled vector while training; 0, our choice.

    >>> SequenceClassification(labels=("bad", "good")).to_config()
    {'name': 'sequence_classification', 'labels': ['bad', 'good'], 'pooling': 'mean', 'dropout': 0.0}
    """

    name: ClassVar[str] = "sequence_classification"

    labels: Labels
    pooling: Pooling = "mean"
    dropout: float = Field(0.0, ge=0, lt=1)

    def __call__(self, hidden_size: int) -> SequenceClassificationHead:  # noqa: D102 - inherited
        return SequenceClassificationHead(hidden_size, len(self.labels), self.pooling, self.dropout)
