"""What heads over a vocabulary have in common: logits and losses at labelled positions only, in chunks."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pemeta.backbone.language_models import output_of
from pemeta.backbone.output_kinds import OutputKind
from pemeta.backbone.output_map import Factors
from pemeta.errors import ModelError
from pemeta.heads.base import Head, has_labels, labels_of, mean_cross_entropy, mean_over_labels, number_labelled
from pemeta.heads.labelled import fits, labelled_places, summed_cross_entropy
from pemeta.typing import IGNORE_INDEX, Batch
from pemeta.utils.modules import calls_only
from pemeta.utils.precision import HALF, casts_itself, wide


class VocabularyHead(Head):
    """A head whose logits (B, T, V) are over a vocabulary of V tokens, each from one position's hidden state.

    Attributes:
        vocab_size: number of tokens that labels come from, at most V; None if it does not matter.
        pretrained: whether logits are those of the language model that the backbone is a part of.
    """

    output_kind: ClassVar[OutputKind]
    """The kind of output map that pretrained logits are from."""
    shift: ClassVar[int]
    """How many positions before its label a hidden state is."""

    def __init__(self, vocab_size: int | None, pretrained: bool) -> None:
        super().__init__()
        self.vocab_size, self.pretrained = vocab_size, pretrained

    def forward(self, hidden: Tensor, batch: Batch, backbone: nn.Module) -> Tensor:
        """Logits (B, T, V) from hidden states (B, T, D)."""
        return self._logits(hidden, backbone)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Mean cross-entropy over the labelled tokens of (B, T); 0 without any, and without a gradient.

        Raises:
            DataError: There is no label to learn from, or a label is no token of the vocabulary.
        """
        labels = labels_of(batch)
        return mean_cross_entropy(logits[:, : logits.shape[1] - self.shift], labels[:, self.shift :])

    def labelled(self, batch: Batch) -> float:
        """Number of labelled tokens that something predicts."""
        return number_labelled(labels_of(batch)[:, self.shift :])

    def predictions(self, logits: Tensor, batch: Batch) -> Tensor:
        """Natural log-probability (B, T) of each labelled token, 0 elsewhere, from logits (B, T, V)."""
        labels, before = batch["labels"][:, self.shift :], logits[:, : logits.shape[1] - self.shift]
        nll = F.cross_entropy(before.transpose(1, 2), labels, ignore_index=IGNORE_INDEX, reduction="none")
        return F.pad(-nll, (self.shift, 0))

    @property
    def learns_from_few(self) -> bool:
        """Whether logits and loss are this class's own; then few positions may be labelled, while V is large."""
        return calls_only(self, VocabularyHead.forward) and type(self).loss is VocabularyHead.loss

    def loss_of(self, hidden: Tensor, batch: Batch, backbone: nn.Module) -> Tensor:
        """The loss from hidden states (B, T, D), with logits at labelled positions only.

        Where even these are large, they are computed in chunks, and again in each backward pass, so that what is held
        of them at a time is no more than one chunk (``pemeta.heads.labelled``).

        Raises:
            DataError: As :meth:`loss`.
        """
        labels = labels_of(batch)
        places = labelled_places(labels, self.shift) if labels.shape == hidden.shape[:2] else None
        if places is None:
            return super().loss_of(hidden, batch, backbone)
        rows = hidden.flatten(0, 1).index_select(0, places - self.shift)
        own = labels.flatten().index_select(0, places)
        has_labels.note(own, len(own) > 0)
        classes = self._classes(backbone)
        factors = None if fits(len(rows), classes) else self._factors(rows, backbone)
        if factors is None:
            logits = self._logits(rows, backbone)
            return mean_cross_entropy(logits.float() if casts_itself(hidden) else wide(logits), own)
        x, weight, bias = self._as_multiplied(factors)
        loss = lambda: summed_cross_entropy(x, weight, bias, own, factors.after)  # noqa: E731
        return mean_over_labels(loss, own, torch.Size([len(rows), classes]))

    @staticmethod
    def _as_multiplied(factors: Factors) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden states, W and b in the types that :meth:`forward` computes in."""
        hidden, weight, bias, _ = factors
        if bias is None:
            bias = weight.new_zeros(len(weight))
        if casts_itself(hidden) and hidden.dtype != torch.float64:
            kind = torch.get_autocast_dtype(hidden.device.type)
            return hidden.to(kind), weight.to(kind), bias.to(kind)
        return hidden.to(weight.dtype) if weight.dtype in HALF else hidden, weight, bias

    def _logits(self, hidden: Tensor, backbone: nn.Module) -> Tensor:
        """Logits (..., V) from hidden states (..., D)."""
        if self.pretrained:
            return output_of(backbone, self.output_kind)(hidden, backbone)  # type: ignore[no-any-return]
        hidden, weight, bias, _ = self._own_factors(hidden, backbone)
        if weight.dtype in HALF and not casts_itself(hidden):  # an embedding in half precision; b is in float32
            products = F.linear(hidden.to(weight.dtype), weight)
            return products if bias is None else products + bias
        return F.linear(hidden, weight, bias)

    def _factors(self, rows: Tensor, backbone: nn.Module) -> Factors | None:
        """The factors of logits; None if they are no product."""
        if not self.pretrained:
            return self._own_factors(rows, backbone)
        output = output_of(backbone, self.output_kind)
        return output.factors(rows, backbone) if output.factored else None

    def _classes(self, backbone: nn.Module) -> int:
        """Number V of logits."""
        if self.pretrained:
            return output_of(backbone, self.output_kind).classes(backbone)
        assert self.vocab_size is not None  # or there would be no matrix
        return self.vocab_size

    @abstractmethod
    def _own_factors(self, hidden: Tensor, backbone: nn.Module) -> Factors:
        """The factors of logits that are not pretrained."""

    def _tied_matrix(self, backbone: nn.Module) -> Tensor:
        """The first V rows of the word embedding."""
        weight = word_embedding(backbone)
        # Not a slice of all rows: its gradient would be copied into another matrix of that size.
        return weight if len(weight) == self.vocab_size else weight[: self.vocab_size]

    def _check_output(self, backbone: nn.Module) -> None:
        """Refuse a backbone without pretrained output, or whose output lacks tokens that were added."""
        output_of(backbone, self.output_kind).refuse_resized(backbone)

    def _check_rows(self, backbone: nn.Module) -> None:
        """Refuse a backbone that has fewer tokens than the labels come from."""
        rows = len(word_embedding(backbone))
        if self.vocab_size is not None and rows < self.vocab_size:
            raise ModelError(
                f"the head predicts {self.vocab_size} tokens, but the word embedding of {type(backbone).__name__} has "
                f"{rows} rows; encode with the tokenizer of this backbone"
            )


def word_embedding(backbone: nn.Module) -> Tensor:
    """The backbone's word embedding (rows, width).

    Raises:
        ModelError: It has none.
    """
    try:
        weight = backbone.get_input_embeddings().weight  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        weight = None
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        raise ModelError(f"a language model needs a word embedding, but {type(backbone).__name__} has none")
    return weight
