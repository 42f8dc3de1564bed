"""Token classification: a label for each token."""

from __future__ import annotations

from typing import ClassVar

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


class TokenClassificationHead(Head):
    """A linear map from each token to its label: ``D C + C`` parameters.

    Args:
        hidden_size: Width D of the hidden states.
        num_labels: Number C of labels.
        dropout: Dropout probability on the hidden states in training; 0, our choice.

    Initial weights are normal with standard deviation 0.02 and the bias is zero, as in BERT's classifiers.
    """

    def __init__(self, hidden_size: int, num_labels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = new_dropout(dropout)
        self.classifier = new_linear(hidden_size, num_labels)

    def forward(self, hidden: Tensor, batch: Batch, backbone: nn.Module) -> Tensor:
        """Logits (B, T, C) from hidden states (B, T, D)."""
        return self.classifier(self.dropout(hidden))  # type: ignore[no-any-return]

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Mean cross-entropy over the labelled positions of the batch (B, T); 0 without any, and without a gradient.

        Raises:
            DataError: There is no label to learn from, or a label is not one of the head's.
        """
        return mean_cross_entropy(logits, labels_of(batch))

    def labelled(self, batch: Batch) -> float:
        """Number of labels other than -100."""
        return number_labelled(labels_of(batch))

    def predictions(self, logits: Tensor, batch: Batch) -> Tensor:
        """Label indices (B, T) from logits (B, T, C)."""
        return logits.argmax(dim=-1)


class TokenClassification(HeadSpec):
    """Description of a :class:`TokenClassificationHead`.

    Attributes:
        labels: Names of the C labels, in the order of their indices.
        dropout: Dropout probability on the hidden states in training; 0, our choice.

    >>> TokenClassification(labels=("O", "B-PER", "I-PER"))(hidden_size=8).classifier
    Linear(in_features=8, out_features=3, bias=True)
    """

    name: ClassVar[str] = "token_classification"

    labels: Labels
    dropout: float = Field(0.0, ge=0, lt=1)

    def __call__(self, hidden_size: int) -> TokenClassificationHead:  # noqa: D102 - inherited
        return TokenClassificationHead(hidden_size, len(self.labels), self.dropout)
