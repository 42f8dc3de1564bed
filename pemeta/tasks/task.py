"""Source and target tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pemeta.data.blocks import EncodedBlocks
from pemeta.data.classes import checked_weights
from pemeta.data.completions import EncodedCompletions
from pemeta.data.encoding import Encoded
from pemeta.data.examples import Examples
from pemeta.data.masked import EncodedMasked
from pemeta.data.texts import EncodedTexts
from pemeta.errors import ConfigError, DataError, excerpt
from pemeta.heads import CausalLM, Head, HeadSpec, MaskedLM, SequenceClassification, TokenClassification
from pemeta.heads.causal_lm import Output
from pemeta.heads.masked_lm import MaskedOutput
from pemeta.heads.sequence_classification import Pooling


@dataclass(frozen=True)
class Task:
    """One source or target task: a name, its training examples, and the constructor of its head with the loss.

    The tasks of one priming run may differ in kind, label set and loss: each has its own head.

    Attributes:
        name: name of the task, e.g. a language code.
        train: training examples, from which priming draws episodes, or on which fine-tuning trains.
        make_head: returns a new head for a given width of the hidden states; a :class:`~pemeta.HeadSpec` or your own
            function.

    Raises:
        ConfigError: the name is not a string, or ``make_head`` cannot be called.
        DataError: ``train`` is not encoded.
    """

    name: str
    train: Examples
    make_head: Callable[[int], Head]

    def __post_init__(self) -> None:
        _check(self.name, self.train)
        if not callable(self.make_head):
            raise ConfigError(
                f"make_head of task {self.name!r} must be a HeadSpec or a function of the width; found "
                f"{excerpt(self.make_head)}; Task.token_classification and its like make one that suits the data"
            )

    @classmethod
    def token_classification(cls, name: str, train: Encoded) -> Task:
        """Create a task with a :class:`~pemeta.TokenClassificationHead` for the label set of its data."""
        _check_kind(name, train, TokenClassification.name)
        return cls(name, train, TokenClassification(labels=train.outputs))

    @classmethod
    def sequence_classification(
        cls,
        name: str,
        train: EncodedTexts,
        pooling: Pooling = "mean",
        dropout: float = 0.0,
        *,
        class_weights: Mapping[str, float] | Sequence[float] | Literal["balanced"] | None = None,
        bias: bool = True,
    ) -> Task:
        """Create a task with a :class:`~pemeta.SequenceClassificationHead` for the classes of its data.

        Args:
            name: name of the task.
            train: training examples, from :func:`~pemeta.encode_texts`.
            pooling: how a text is reduced to one vector: ``mean`` (our choice), ``first``, or ``last``.
            dropout: dropout probability on that vector in training.
            class_weights: what an example of each class counts: by class, in their order, or ``balanced``, by which all
                classes count alike (:func:`~pemeta.data.classes.balanced_weights`); None for 1 each.
            bias: whether the map to classes has a bias, which those of transformers' decoders have not.
        """
        _check_kind(name, train, SequenceClassification.name)
        head = SequenceClassification(
            labels=train.outputs,
            pooling=pooling,
            dropout=dropout,
            pairs=train.pairs,
            problem=train.problem,
            class_weights=checked_weights(class_weights, train.classes, train.labels),
            bias=bias,
        )
        return cls(name, train, head)

    @classmethod
    def causal_lm(cls, name: str, train: EncodedBlocks | EncodedCompletions, output: Output = "pretrained") -> Task:
        """Create a task with a :class:`~pemeta.CausalLMHead` for the vocabulary of its data.

        Args:
            name: name of the task.
            train: training examples, from :func:`~pemeta.encode_language_model` or :func:`~pemeta.encode_completions`.
            output: ``pretrained``: that of the language model which the backbone is a part of; ``tied`` to the
                backbone's word embeddings, with a bias of the task's own; or a matrix of the task's ``own``.
        """
        _check_kind(name, train, CausalLM.name)
        return cls(name, train, CausalLM(vocab_size=len(train.outputs), output=output))

    @classmethod
    def masked_lm(cls, name: str, train: EncodedMasked, output: MaskedOutput = "auto") -> Task:
        """Create a task with a :class:`~pemeta.MaskedLMHead` for the vocabulary of its data.

        Args:
            name: name of the task.
            train: training examples, from :func:`~pemeta.encode_masked_language_model`.
            output: ``pretrained``: that of the masked language model which the backbone is a part of; a ``new`` one; or
                ``auto``, pretrained where the model carries one, and else new.
        """
        _check_kind(name, train, MaskedLM.name)
        return cls(name, train, MaskedLM(vocab_size=len(train.outputs), output=output))

    @property
    def head_config(self) -> dict[str, Any] | None:
        """Configuration of the head; None if a function makes it, so that even equal shapes may differ in behaviour."""
        return self.make_head.to_config() if isinstance(self.make_head, HeadSpec) else None


def _check(name: object, train: object) -> None:
    """Refuse a task without a name, or without encoded examples."""
    if not isinstance(name, str):  # an empty one is refused by the model
        raise ConfigError(f"a task needs a name; found {excerpt(name)}; give it a string, such as a language code")
    if not isinstance(train, Examples):
        raise DataError(
            f"task {name!r} needs encoded examples; found a {type(train).__name__}: {excerpt(train)}; encode it first "
            "with encode, encode_texts, encode_completions or encode_language_model"
        )


def _check_kind(name: str, train: Examples, kind: str) -> None:
    _check(name, train)
    if train.kind != kind:
        raise DataError(f"the examples of task {name!r} are for {train.kind}, not {kind}; use Task.{train.kind}")
