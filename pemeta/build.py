"""Configuration to objects: the only file that knows both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from pemeta.config import RunConfig, Sizes
from pemeta.data.encoding import Encoded, encode
from pemeta.data.sentences import SPLITS, Corpus, Sentence, digest
from pemeta.devices import resolve_device
from pemeta.model import PEModel
from pemeta.tasks import Task


@dataclass(frozen=True)
class Target:
    """A target language, ready for fine-tuning and testing.

    Attributes:
        task: its training sentences.
        validation: sentences that decide which epoch's values are kept.
        test: sentences that are scored.
        unseen: indices of the test sentences whose words are not also those of a training sentence.
        digest: of all three splits.
    """

    task: Task
    validation: Encoded
    test: Encoded
    unseen: tuple[int, ...]
    digest: str


class Workshop:
    """Makes the objects that a configuration describes; data is read and encoded once.

    Args:
        config: the run's configuration.
        folder: where the backbone is kept, if it has to be made.
    """

    def __init__(self, config: RunConfig, folder: Path) -> None:
        self.config = config
        self.folder = folder
        self.device: torch.device = resolve_device(config.device)
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        self.source = cache(self._source)
        self.target = cache(self._target)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The backbone's tokenizer."""
        self.config.backbone.prepare(self.config.data, self.folder)
        return self.config.backbone.tokenizer(self.folder)

    def model(self, setting: str, seed: int) -> PEModel:
        """A model on the pretrained backbone with a setting's method attached, on the run's device."""
        self.config.backbone.prepare(self.config.data, self.folder)
        backbone = self.config.backbone.model(self.folder)
        return PEModel(backbone, self.config.settings[setting].method, seed=seed).to(self.device)

    def sources(self) -> tuple[list[Task], str]:
        """The source tasks, and a digest of their sentences."""
        built = [self.source(language) for language in self.config.sources]
        return [task for task, _ in built], "-".join(digested for _, digested in built)

    def _source(self, language: str) -> tuple[Task, str]:
        corpus = self._corpus(language, self.config.source_sizes)
        return Task.token_classification(language, self._encode(corpus, corpus.train)), digest(corpus.train)

    def _target(self, language: str) -> Target:
        corpus = self._corpus(language, self.config.target_sizes)
        trained_on = {sentence.words for sentence in corpus.train}
        return Target(
            task=Task.token_classification(language, self._encode(corpus, corpus.train)),
            validation=self._encode(corpus, corpus.validation),
            test=self._encode(corpus, corpus.test),
            unseen=tuple(i for i, sentence in enumerate(corpus.test) if sentence.words not in trained_on),
            digest=digest([sentence for split in SPLITS for sentence in corpus.split(split)]),
        )

    def _corpus(self, language: str, sizes: Sizes) -> Corpus:
        return self.config.data.corpus(language).limited(**sizes.model_dump())

    def _encode(self, corpus: Corpus, sentences: Sequence[Sentence]) -> Encoded:
        return encode(sentences, corpus.labels, self.tokenizer, self.config.max_length)
