"""The interface of task heads, and the descriptions that heads are built from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated, ClassVar

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Self

from pemeta.errors import ConfigError, DataError, excerpt, reason
from pemeta.typing import IGNORE_INDEX, Batch
from pemeta.utils.devices import lacks_memory
from pemeta.utils.precision import casts_itself, wide
from pemeta.utils.registry import Named
from pemeta.utils.remembered import Remembered
from pemeta.utils.values import checked_size


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

    @property
    def learns_from_few(self) -> bool:
        """Whether :meth:`loss_of` costs less than all logits and their loss, and is equal; false by default."""
        return False

    def loss_of(self, hidden: Tensor, batch: Batch, backbone: nn.Module) -> Tensor:
        """The loss from hidden states (B, T, D), with the arguments of :meth:`forward`."""
        logits = self(hidden, batch, backbone)
        return self.loss(logits.float() if casts_itself(hidden) else wide(logits), batch)

    def labelled(self, batch: Batch) -> float | None:
        """The number of labels, or the sum of their weights, that :meth:`loss` of a batch on the CPU is the mean over.

        None, the default, if the head does not say; its batches then cannot be split into parts that are weighed by it.
        """
        return None

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

    def on(self, backbone: nn.Module) -> Self:
        """The same description with what a backbone decides, such as sizes of its vocabulary; by default itself."""
        return self

    @abstractmethod
    def __call__(self, hidden_size: int) -> Head:
        """A new head for hidden states of width ``hidden_size``, initialised from PyTorch's global generator."""


def _distinct(labels: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(labels)) < len(labels):
        raise ValueError(f"labels must be distinct; found {', '.join(labels)}")
    return labels


Labels = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_distinct)]
"""Names of the labels, in the order of their indices."""


def labels_of(batch: Batch) -> Tensor:
    """The labels of a batch.

    Raises:
        DataError: It has none.
    """
    if "labels" not in batch:
        raise DataError(f"a loss needs labels; found a batch of {', '.join(batch) or 'nothing'}; add batch['labels']")
    return batch["labels"]


def number_labelled(labels: Tensor) -> float:
    """Number of labels other than -100."""
    return float((labels != IGNORE_INDEX).sum())


def mean_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of logits (..., C) over the labels (...) other than -100.

    It is 0 if there are none and no gradient is asked for. With a gradient, that would be a step that learns nothing,
    and is refused on the CPU; on another device, to ask would be to wait for it in each step.

    Raises:
        DataError: The labels are not an index for each logit, or -100; or all are -100.
    """
    return mean_over_labels(
        lambda: F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORE_INDEX, reduction="sum"),
        labels,
        logits.shape,
    )


def mean_over_labels(summed: Callable[[], Tensor], labels: Tensor, shape: torch.Size) -> Tensor:
    """A loss that is summed over the labels other than -100, divided by their number, as in :func:`mean_cross_entropy`.

    Args:
        summed: The sum.
        labels: The labels (...).
        shape: That of the logits (..., C).

    Raises:
        DataError: As there.
    """
    if labels.shape != shape[:-1]:
        raise DataError(
            f"there must be one label for each of the {tuple(shape[:-1])} predictions; found labels of shape "
            f"{tuple(labels.shape)}; give them the shape of the batch, -100 where there is none"
        )
    try:
        total = summed()
    except (IndexError, RuntimeError):
        problem = _label_problem(labels, shape[-1])
        if problem is None:
            raise
        raise DataError(problem) from None
    if total.requires_grad and _none_labelled(labels):
        raise DataError(
            "no position or example of the batch has a label: all are -100, so that its loss would teach nothing; "
            "leave the batch out, or give it labels"
        )
    return total / (labels != IGNORE_INDEX).sum().clamp(min=1)


def _none_labelled(labels: Tensor) -> bool:
    """Whether no label is known to be other than -100, without waiting for a device, or for a compiled graph."""
    known = type(labels) is Tensor and labels.device.type == "cpu" and not torch.compiler.is_compiling()
    return known and not has_labels(labels)


has_labels = Remembered(lambda labels: bool((labels != IGNORE_INDEX).any()))
"""Whether a label is other than -100."""


def _label_problem(labels: Tensor, classes: int) -> str | None:
    """The reason why labels are no indices of classes, or None if they are."""
    if labels.dtype != torch.long:
        kind = str(labels.dtype).removeprefix("torch.")
        return f"labels must be of type int64, from 0 to {classes - 1} or -100; found {kind}; convert them with .long()"
    wrong = labels[((labels < 0) | (labels >= classes)) & (labels != IGNORE_INDEX)]
    if not wrong.numel():
        return None
    return (
        f"labels must be from 0 to {classes - 1}, or -100 where there is none; found {int(wrong[0])}; encode the data "
        "with the labels that the head was made for"
    )


def new_dropout(probability: object) -> nn.Dropout:
    """Dropout with a probability from 0 to less than 1.

    Raises:
        ConfigError: The probability is not.
    """
    if not isinstance(probability, int | float) or not 0 <= probability < 1:
        raise ConfigError(f"dropout must be a number from 0 to less than 1; found {excerpt(probability)}")
    return nn.Dropout(probability)


def new_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear map with normal weights of standard deviation 0.02 and zero bias, as in BERT's classifiers.

    Raises:
        ConfigError: A size is not a positive whole number.
    """
    inputs = checked_size(inputs, "the width of the hidden states")
    outputs = checked_size(outputs, "the number of labels")
    try:
        linear = nn.Linear(inputs, outputs)
    except (RuntimeError, OverflowError, MemoryError) as error:
        if not lacks_memory(error):
            raise
        raise ConfigError(f"no memory holds a head from {inputs} to {outputs} values ({reason(error)})") from None
    nn.init.normal_(linear.weight, std=0.02)
    nn.init.zeros_(linear.bias)
    return linear
