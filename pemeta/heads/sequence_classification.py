"""Sequence classification: a label, labels or a number for each text, pair of texts, or image as patches."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeAlias, get_args

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Self

from pemeta.data.classes import PROBLEMS, Problem, checked_weights
from pemeta.errors import ConfigError, DataError, counted
from pemeta.heads.base import (
    Head,
    HeadSpec,
    Labels,
    labels_of,
    mean_cross_entropy,
    mean_over_labels,
    new_dropout,
    new_linear,
    number_labelled,
)
from pemeta.typing import IGNORE_INDEX, Batch
from pemeta.utils.neutral import Neutral
from pemeta.utils.signatures import checked
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


@checked(hidden_size=None, num_labels=None, pooling=None, dropout=None, problem=None, class_weights=None)
class SequenceClassificationHead(Head):
    """Pooling of a sequence's hidden states into one vector, and a linear map to labels: ``D C + C`` parameters.

    Args:
        hidden_size: Width D of the hidden states.
        num_labels: Number C of labels.
        pooling: ``mean`` over all positions (our choice, because it suits any backbone), ``first`` (the position of
            BERT's ``[CLS]``), or ``last``, for backbones with causal attention.
        dropout: Dropout probability on the pooled vector in training; 0, our choice.
        problem: What is learned: ``single_label``, by cross-entropy; ``multi_label``, any number of labels, by binary
            cross-entropy; or ``regression``, numbers, by the mean squared error.
        class_weights: What an example of each label counts: with ``single_label``, in a weighted mean; with
            ``multi_label``, a text that has the label, against one that lacks it. All count alike where None.
        bias: Whether the map has a bias, which those of transformers' decoders have not.

    Padding, on either side, is excluded if the batch has an ``attention_mask``. Initial weights are normal with
    standard deviation 0.02 and the bias is zero, as in BERT's classifiers.

    Raises:
        ConfigError: An argument is none of its choices, or there is not one weight above 0 for each label.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        hidden_size: int,
        num_labels: int,
        pooling: Pooling = "mean",
        dropout: float = 0.0,
        problem: Problem = "single_label",
        class_weights: tuple[float, ...] | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        known(pooling, "pooling", get_args(Pooling))
        known(problem, "problem", PROBLEMS)
        self.pooling: Pooling = pooling
        self.problem: Problem = problem
        self.dropout = new_dropout(dropout)
        self.classifier = new_linear(hidden_size, num_labels)
        if not bias:
            self.classifier.register_parameter("bias", None)
        found = _weights(class_weights, [str(label) for label in range(num_labels)], problem)
        weights = None if found is None else torch.tensor(found)
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, hidden: Tensor, batch: Batch, backbone: nn.Module) -> Tensor:
        """Logits (B, C) from hidden states (B, T, D)."""
        pooled = pool(hidden, batch.get("attention_mask"), self.pooling)
        return self.classifier(self.dropout(pooled))  # type: ignore[no-any-return]

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """The mean loss of the batch's sequences.

        With ``single_label``, cross-entropy over the labelled ones (B,), 0 without any and without a gradient; weighted
        as in PyTorch, by the sum of their weights. Otherwise, the mean over all B C numbers, as in transformers: of
        binary cross-entropy, or of squared differences.

        Raises:
            DataError: There is no label to learn from, or a label is not one of the head's.
        """
        labels = labels_of(batch)
        if self.problem == "single_label":
            return mean_cross_entropy(logits, labels) if self.class_weights is None else self._weighted(logits, labels)
        if labels.shape != logits.shape or not labels.is_floating_point():
            kind = str(labels.dtype).removeprefix("torch.")
            raise DataError(
                f"{self.problem} needs a number for each of the {tuple(logits.shape)} logits; found labels of shape "
                f"{tuple(labels.shape)}, {kind}; encode the texts with problem={self.problem!r}"
            )
        labels = labels.to(logits.dtype)
        if self.problem == "regression":
            return F.mse_loss(logits, labels)
        weights = None if self.class_weights is None else self.class_weights.to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, labels, pos_weight=weights)

    def _weighted(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy with weights, divided by their sum."""
        assert self.class_weights is not None
        weights = self.class_weights.to(logits.dtype)
        mean = mean_over_labels(
            lambda: F.cross_entropy(logits, labels, weights, ignore_index=IGNORE_INDEX, reduction="sum"),
            labels,
            logits.shape,
        )
        counts = labels != IGNORE_INDEX
        total = (weights[labels.clamp(min=0)] * counts).sum()
        # Of no label there is no mean, and the sum is 0.
        return mean * counts.sum().clamp(min=1) / torch.where(total > 0, total, torch.ones_like(total))

    def labelled(self, batch: Batch) -> float:
        """Number of labels other than -100, or the sum of their classes' weights; of numbers, how many there are."""
        labels = labels_of(batch)
        if self.problem != "single_label":
            return float(labels.numel())
        if self.class_weights is None:
            return number_labelled(labels)
        weights = self.class_weights.cpu()
        return float((weights[labels.clamp(min=0)] * (labels != IGNORE_INDEX)).sum())

    def predictions(self, logits: Tensor, batch: Batch) -> Tensor:
        """Label indices (B,) from logits (B, C); 1 or 0 for each label (B, C); or the numbers (B, C) themselves."""
        if self.problem == "single_label":
            return logits.argmax(dim=-1)
        return logits if self.problem == "regression" else (logits > 0).long()


def _weights(weights: object, labels: list[str], problem: Problem) -> tuple[float, ...] | None:
    """The weight of each label, checked."""
    if weights is not None and problem == "regression":
        raise ConfigError("class_weights are for classes, and regression has none; remove them")
    if isinstance(weights, str):
        raise ConfigError(
            f"a head needs {counted(len(labels), 'weight')} as numbers; found {weights!r}; 'balanced' is for "
            "Task.sequence_classification, which has the examples"
        )
    return checked_weights(weights, labels, ())


class SequenceClassification(HeadSpec):
    """Description of a :class:`SequenceClassificationHead`.

    Attributes:
        labels: Names of the C labels, in the order of their indices.
        pooling: Pooling of a sequence into one vector: ``first``, ``mean`` (our choice) or ``last``.
        dropout: Dropout probability on the pooled vector in training; 0, our choice.
        pairs: Whether the head labels pairs of texts, which a server then asks for, or single texts.
        problem: What is learned: ``single_label``, ``multi_label`` or ``regression``; the names are those of
            transformers' ``problem_type``, without ``_classification``.
        class_weights: What an example of each label counts, by the labels' order; all count alike where None.
        bias: Whether the map to labels has a bias.

    >>> SequenceClassification(labels=("bad", "good"), pooling="last").to_config()["pooling"]
    'last'
    """

    name: ClassVar[str] = "sequence_classification"

    labels: Labels
    pooling: Pooling = "mean"
    dropout: float = Field(0.0, ge=0, lt=1)
    pairs: Annotated[bool, Neutral(False)] = False
    problem: Annotated[Problem, Neutral("single_label")] = "single_label"
    class_weights: Annotated[tuple[float, ...] | None, Neutral(None)] = None
    bias: Annotated[bool, Neutral(True)] = True

    @model_validator(mode="after")
    def _one_weight_each(self) -> Self:
        _weights(self.class_weights, list(self.labels), self.problem)
        return self

    def __call__(self, hidden_size: int) -> SequenceClassificationHead:  # noqa: D102 - inherited
        return SequenceClassificationHead(
            hidden_size,
            len(self.labels),
            self.pooling,
            self.dropout,
            self.problem,
            self.class_weights,
            self.bias,
        )
