"""Causal language modelling: each token of running text from those before it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, ClassVar

from transformers import PreTrainedTokenizerBase

from pemeta.backbone.output_kinds import OutputKind
from pemeta.data.blocks import EncodedBlocks, encode_language_model
from pemeta.data.examples import Examples
from pemeta.data.labelled import digest_of, plain_texts
from pemeta.data.metrics import Metric
from pemeta.data.roles import TEXT
from pemeta.data.rows import Row
from pemeta.data.sentences import Split
from pemeta.data.sources import DataSource
from pemeta.heads import CausalLM, HeadSpec
from pemeta.tasks.kinds.base import Collection
from pemeta.tasks.kinds.rows import RowTasks
from pemeta.tasks.task import Task


class RunningText(RowTasks[str]):
    """What kinds have in common that learn tokens of running text: a document in each row, in the column ``text``."""

    unit: ClassVar[str] = "block"
    roles: ClassVar[Any] = TEXT
    tells_unseen: ClassVar[bool] = False  # blocks begin anywhere in a document

    @property
    def scored_by(self) -> tuple[Metric, ...]:
        """The loss per token, and its exponential."""
        return Metric.parse("loss"), Metric.parse("perplexity")

    def raw(self, rows: Iterable[Row]) -> Iterator[str]:  # noqa: D102 - inherited
        return plain_texts(rows)

    def text(self, example: str) -> str:
        """The document."""
        return example

    def digest(self, data: Collection[str], split: Split) -> str:
        """A digest of all documents."""
        return digest_of(data.splits[split])

    def identity(self, example: str) -> Hashable:
        """The document."""
        return example

    def gold(self, examples: Examples) -> Sequence[Any]:
        """Nothing: what is predicted is the probability of what is there."""
        return [None] * len(examples)


class LanguageModelTasks(RunningText):
    """Running text in the column ``text``, of which each token is learned from those before it.

    Attributes:
        document_masks: whether the tokens of a block see those of their own document only; our choice.
    """

    name: ClassVar[str] = "language_model"
    sample: ClassVar[str] = "the beginning of a text"
    output: ClassVar[OutputKind | None] = "causal_lm"

    document_masks: bool = True

    def encode(
        self, data: Collection[str], split: Split, tokenizer: PreTrainedTokenizerBase, max_length: int | None
    ) -> EncodedBlocks:
        """The documents of a split, in blocks of ``max_length`` tokens."""
        return encode_language_model(data.splits[split], tokenizer, max_length, document_masks=self.document_masks)

    def task(self, name: str, train: Examples) -> Task:
        """A task with the backbone's own output map."""
        assert isinstance(train, EncodedBlocks)
        return Task.causal_lm(name, train)

    def planned_head(self, source: DataSource, vocabulary: int) -> HeadSpec:
        """The backbone's own output map."""
        return CausalLM(vocab_size=vocabulary)
