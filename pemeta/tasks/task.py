"""Tasks, episodes, and the meta-batches that priming steps through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pemeta.data.blocks import EncodedBlocks
from pemeta.data.encoding import Encoded
from pemeta.data.examples import Examples
from pemeta.data.texts import EncodedTexts
from pemeta.errors import DataError
from pemeta.heads import CausalLM, Head, HeadSpec, SequenceClassification, TokenClassification
from pemeta.heads.causal_lm import Output
from pemeta.heads.sequence_classification import Pooling


@dataclass(frozen=True)
class Task:
    """One source or target task: a name, its training examples, and how its head, with its loss, is made.

    The tasks of one priming run may be of different kinds, label sets and losses: each keeps a head of its own.

    Attributes:
        name: such as a language code.
        train: what priming draws episodes from, or fine-tuning trains on.
        make_head: from the width of the hidden states to a new head; a :class:`~pemeta.HeadSpec` or your own function.
    """

    name: str
    train: Examples
    make_head: Callable[[int], Head]

    @classmethod
    def token_classification(cls, name: str, train: Encoded) -> Task:
        """A task with a :class:`~pemeta.TokenClassificationHead` for the label set of its data."""
        _check_kind(name, train, TokenClassification.name)
        return cls(name, train, TokenClassification(labels=train.outputs))

    @classmethod
    def sequence_classification(
        cls, name: str, train: EncodedTexts, pooling: Pooling = "mean", dropout: float = 0.0
    ) -> Task:
        """A task with a :class:`~pemeta.SequenceClassificationHead` for the classes of its data.

        Args:
            name: of the task.
            train: from :func:`~pemeta.encode_texts`.
            pooling: how a text becomes one vector: ``mean`` (our choice), ``first``, or ``last``.
            dropout: probability on that vector while training.
        """
        _check_kind(name, train, SequenceClassification.name)
        return cls(name, train, SequenceClassification(labels=train.outputs, pooling=pooling, dropout=dropout))

    @classmethod
    def causal_lm(cls, name: str, train: EncodedBlocks, output: Output = "tied") -> Task:
        """A task with a :class:`~pemeta.CausalLMHead` for the vocabulary of its data.

        Args:
            name: of the task.
            train: from :func:`~pemeta.encode_language_model`.
            output: ``tied`` to the backbone's word embedding, or a matrix of the task's ``own``.
        """
        _check_kind(name, train, CausalLM.name)
        return cls(name, train, CausalLM(vocab_size=len(train.outputs), output=output))

    @property
    def head_config(self) -> dict[str, Any] | None:
        """How the head is made; None where that cannot be told. Two heads of one shape may still compute otherwise."""
        return self.make_head.to_config() if isinstance(self.make_head, HeadSpec) else None


def _check_kind(name: str, train: Examples, kind: str) -> None:
    if train.kind != kind:
        raise DataError(f"the examples of task {name!r} are for {train.kind}, not for {kind}; use Task.{train.kind}")
