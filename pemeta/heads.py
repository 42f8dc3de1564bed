"""Task heads: hidden states to logits, to a loss, to predictions; one class per kind of task."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.nn import functional as F

from pemeta.typing import IGNORE_INDEX, Batch


class Head(nn.Module, ABC):
    """What stands on a backbone for one task: h(· ; θ_h) in the paper's notation."""

    @abstractmethod
    def forward(self, hidden: Tensor) -> Tensor:
        """Logits from hidden states (B, T, D)."""

    @abstractmethod
    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """A scalar, averaged over what the batch labels."""

    @abstractmethod
    def predictions(self, logits: Tensor) -> Tensor:
        """Label indices."""


class TokenClassificationHead(Head):
    """One linear map to a label per word piece: ``D C + C`` parameters.

    Args:
        hidden_size: width D of the hidden states.
        num_labels: C.
        dropout: probability on the hidden states while training; 0, our choice.

    The weights are normal with standard deviation 0.02 and the bias zero, as in BERT's classifiers.
    """

    def __init__(self, hidden_size: int, num_labels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden_size, num_labels)
        nn.init.normal_(self.classifier.weight, std=0.02)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, D) to logits (B, T, C)."""
        return self.classifier(self.dropout(hidden))  # type: ignore[no-any-return]

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy, averaged over the labelled positions of the batch (B, T); 0 where there is none."""
        labels = batch["labels"]
        total = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX, reduction="sum")
        return total / (labels != IGNORE_INDEX).sum().clamp(min=1)

    def predictions(self, logits: Tensor) -> Tensor:
        """(B, T, C) to label indices (B, T)."""
        return logits.argmax(dim=-1)
