"""The interface of task heads, and the descriptions that heads are built from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field
from torch import Tensor, nn
from torch.nn import functional as F

from pemeta.typing import IGNORE_INDEX, Batch
from pemeta.utils.registry import Named


class Head(nn.Module, ABC):
    """The head of one task on a backbone: h(· ; θ_h) in the paper's notation, with its loss from the set 𝕃.

    A head's own parameters are θ_h. Parameters of the backbone that it uses besides the hidden states, such as the
    word embedding, stay in θ_p or θ_a: it accesses them through the argument ``backbone`` in each pass and keeps no
    reference, because the inner loop puts a clone's values in the backbone for the length of a pass.
    """

    @abstractmethod
    def forward(self, hidden: Tensor, batch: Batch, backbone: nn.Module) -> Tensor:
        """Logits, with first dimension B, from hidden states (B, T, D).

        Args:
            hidden: Last hidden states of the backbone, after the PE methods.
            batch: Batch that they were computed from; its ``attention_mask`` (B, T), if present, marks padding.
            backbone: The backbone; in the inner loop with a clone's values.
        """

    @abstractmethod
    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """The loss, a scalar, averaged over the labelled positions or examples of the batch."""

    @abstractmethod
    def predictions(self, logits: Tensor, batch: Batch) -> Tensor:
        """The prediction for each example: a tensor with first dimension B."""

    def check(self, backbone: nn.Module) -> None:
        """Refuse a backbone that the head cannot be used with; by default, accept all.

        Raises:
            ModelError: The head would not work, or its loss would be meaningless.
        """

    def start_from(self, backbone: nn.Module) -> None:
        """Initialise parameters of the head from the backbone; by default, do nothing."""


class HeadSpec(Named):
    """A frozen description of a head, which builds a new head when called with the width of the hidden states.

    To add a kind of head, write one file in ``pemeta/heads/`` with the head and its description, and import both in
    ``pemeta/heads/__init__.py``.

    >>> HeadSpec.parse({"name": "token_classification", "labels": ["O", "B-PER", "I-PER"]})
    TokenClassification(labels=('O', 'B-PER', 'I-PER'), dropout=0.0)
    """

    kind: ClassVar[str] = "head"

    @abstractmethod
    def __call__(self, hidden_size: int) -> Head:
        """A new head for hidden states of width ``hidden_size``, initialised from PyTorch's global generator."""


def _distinct(labels: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(labels)) < len(labels):
        raise ValueError(f"labels must be distinct; found {', '.join(labels)}")
    return labels


Labels = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_distinct)]
"""Names of the labels, in the order of their indices."""


def mean_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of logits (N, C) over the labels (N,) other than -100; 0 if there are none."""
    total = F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / (labels != IGNORE_INDEX).sum().clamp(min=1)


def new_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear map with normal weights of standard deviation 0.02 and zero bias, as in BERT's classifiers."""
    linear = nn.Linear(inputs, outputs)
    nn.init.normal_(linear.weight, std=0.02)
    nn.init.zeros_(linear.bias)
    return linear
