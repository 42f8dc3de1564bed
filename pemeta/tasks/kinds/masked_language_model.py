"""Masked language modelling: hidden tokens of running text from those around them."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from transformers import PreTrainedTokenizerBase

from pemeta.backbone.output_kinds import OutputKind
from pemeta.data.examples import Examples
from pemeta.data.masked import EncodedMasked, encode_masked_language_model
from pemeta.data.sentences import Split
from pemeta.data.sources import DataSource
from pemeta.heads import HeadSpec, MaskedLM
from pemeta.tasks.kinds.base import Collection
from pemeta.tasks.kinds.language_model import RunningText
from pemeta.tasks.task import Task


class MaskedLanguageModelTasks(RunningText):
    """Running text in the column ``text``, of whose tokens some are hidden and learned (Devlin et al., 2019).

    The head is the backbone's own where its folder has one, and a new one of the task else. As ``source_task``, it
    primes on text without labels.

    Attributes:
        share: share of the tokens that are learned; 0.15, as BERT's.
        seed: seed of the choice of these tokens.
    """

    name: ClassVar[str] = "masked_language_model"
    output: ClassVar[OutputKind | None] = "masked_lm"

    share: float = Field(0.15, gt=0, lt=1)
    seed: int = 0

    def encode(
        self, data: Collection[str], split: Split, tokenizer: PreTrainedTokenizerBase, max_length: int | None
    ) -> Examples:
        """The documents of a split, in blocks of ``max_length`` tokens."""
        return encode_masked_language_model(data.splits[split], tokenizer, max_length, seed=self.seed, share=self.share)

    def task(self, name: str, train: Examples) -> Task:
        """A task with the backbone's own output map, or a new head."""
        assert isinstance(train, EncodedMasked)
        return Task.masked_lm(name, train)

    def planned_head(self, source: DataSource, vocabulary: int) -> HeadSpec:
        """The backbone's own output map, or a new head."""
        return MaskedLM(vocab_size=vocabulary)
