"""What a task head is to the rest of the library, and the descriptions that heads are made from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field
from torch import Tensor, nn
from torch.nn import functional as F

from pemeta.typing import IGNORE_INDEX, Batch
from pemeta.utils.registry import Named


class Head(nn.Module, ABC):
    """What stands on a backbone for one task: h(· ; θ_h) in the paper's notation, and its loss from the set 𝕃.

    A head's own parameters are θ_h. What it reads of the backbone beside the hidden states, such as the word
    embedding, stays in θ_p or θ_a: it reaches that through the argument ``backbone`` and keeps no reference,
    because the inner loop passes a clone.
    """

    @abstractmethod
    def forward(self, hidden: Tensor, batch: Batch, backbone: nn.Module) -> Tensor:
        """Logits, of first dimension B, from hidden states (B, T, D).

        Args:
            hidden: the backbone's last hidden states, after the PE methods.
            batch: what they were computed from; ``attention_mask`` (B, T), if it is there, tells what is padding.
            backbone: the backbone, or a clone of it.
        """

    @abstractmethod
    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """A scalar, averaged over what the batch labels."""

    @abstractmethod
    def predictions(self, logits: Tensor, batch: Batch) -> Tensor:
        """What is predicted for each example: a tensor of first dimension B."""

    def check(self, backbone: nn.Module) -> None:
        """Refuse a backbone that the head cannot stand on; by default none.

        Raises:
            ModelError: the head would not work, or its loss would mean nothing.
        """

    def start_from(self, backbone: nn.Module) -> None:
        """Take starting values from the backbone, where the head has its values from there; by default none."""


class HeadSpec(Named):
    """A frozen description of a head: called with the width of the hidden states, it gives a new head.

    To add a kind of head, write one file in ``pemeta/heads/`` with the head and its description, and import both in
    ``pemeta/heads/__init__.py``.

    >>> HeadSpec.parse({"name": "token_classification", "labels": ["O", "B-PER", "I-PER"]})
    TokenClassification(labels=('O', 'B-PER', 'I-PER'), dropout=0.0)
    """

    kind: ClassVar[str] = "head"

    @abstractmethod
    def __call__(self, hidden_size: int) -> Head:
        """A new head for hidden states of width ``hidden_size``; its values come from PyTorch's global generator."""


def _different(labels: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(labels)) < len(labels):
        raise ValueError(f"labels must be different; found {', '.join(labels)}")
    return labels


Labels = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_different)]
"""Names of the labels, in the order of their indices."""


def mean_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits (N, C), averaged over those of the labels (N,) that are not -100; 0 where all are."""
    total = F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / (labels != IGNORE_INDEX).sum().clamp(min=1)


def new_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear map, normal with standard deviation 0.02 and without bias at the start, as in BERT's classifiers."""
    linear = nn.Linear(inputs, outputs)
    nn.init.normal_(linear.weight, std=0.02)
    nn.init.zeros_(linear.bias)
    return linear
