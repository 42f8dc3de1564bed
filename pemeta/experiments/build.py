"""The objects that a configuration describes: models, tasks and data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from pemeta.backbone.tokenizers import check_tokenizer, tokenizer_digest
from pemeta.data.corpus import Corpus
from pemeta.data.encoding import Encoded, encode
from pemeta.data.sentences import SPLITS, Sentence, digest
from pemeta.data.streams import Text, stored_corpus
from pemeta.experiments.backbones import Say
from pemeta.experiments.config import GridConfig, Run
from pemeta.experiments.setting import Sizes
from pemeta.model.pe_model import PEModel
from pemeta.tasks.task import Task
from pemeta.utils.devices import resolve_device
from pemeta.utils.digests import config_digest
from pemeta.utils.numerics import check_tf32


@dataclass(frozen=True)
class Target:
    """A target language, ready for fine-tuning and testing.

    Attributes:
        task: its training sentences.
        validation: sentences that decide which epoch's values are kept.
        test: sentences that are scored.
        unseen: indices of the test sentences whose words are not also those of a training sentence of the target or
            of a source.
    """

    task: Task
    validation: Encoded
    test: Encoded
    unseen: tuple[int, ...]


DTYPES = {"fp32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Builder:
    """Makes the objects that a configuration describes; data is read, encoded and digested once.

    Args:
        config: configuration of the grid.
        folder: folder of the backbone, if it is pretrained here.
        say: takes one line for each thing that is done.
        progress: show progress bars.
        device: device to compute on; the configuration's by default.
        tasks: tasks that such a backbone is for; by default those of the configuration.

    Raises:
        ConfigError: the device cannot be used here, or does not compute in the configuration's precision.
    """

    def __init__(
        self,
        config: GridConfig,
        folder: Path,
        say: Say = print,
        progress: bool = True,
        device: str | None = None,
        tasks: Sequence[str] | None = None,
    ) -> None:
        self.config = config
        self.folder = folder
        self.say = say
        self.progress = progress
        self.device: torch.device = resolve_device(device or config.device)
        if config.precision == "tf32":
            check_tf32(self.device)
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        self._text: Text = config.data.unlabelled(config.text_tasks if tasks is None else tasks)
        self.corpus = cache(self._corpus)
        self.source = cache(self._source)
        self.target = cache(self._target)
        self.priming_digest = cache(self._priming_digest)
        self._splits_digests = cache(self._digests_of_splits)

    def prepare(self) -> None:
        """Pretrain the backbone, if the configuration says so and it has not been done."""
        self.config.backbone.prepare(self._text, self.folder, self.say, self.progress)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The backbone's tokenizer."""
        self.prepare()
        return self.config.backbone.tokenizer(self.folder)

    @property
    def backbone_location(self) -> str:
        """The folder or hub name that the backbone is loaded from."""
        return self.config.backbone.location(self.folder)

    def model(self, setting: str, seed: int) -> PEModel:
        """A model on the pretrained backbone with a setting's method attached, on the grid's device."""
        self.prepare()
        backbone = self.config.backbone.model(self.folder)
        return self.set_up(PEModel(backbone, self.config.settings[setting].method, seed=seed))

    @cached_property
    def tokenizer_digest(self) -> str:
        """Digest of the backbone's tokenizer."""
        return tokenizer_digest(self.tokenizer)

    def set_up(self, model: PEModel) -> PEModel:
        """The model on the grid's device, with the configuration's precision and checkpointing.

        Raises:
            ModelError: it was primed with another tokenizer than the backbone's.
        """
        check_tokenizer("the primed model", model.tokenizer_digest, self.tokenizer_digest)
        model.tokenizer_digest = self.tokenizer_digest
        model.autocast_dtype = DTYPES[self.config.precision]
        if self.config.checkpoint_layers:
            model.checkpoint_layers()
        return model.to(self.device)

    def sources(self) -> list[Task]:
        """The source tasks."""
        return [self.source(language) for language in self.config.sources]

    def validation_tasks(self) -> list[tuple[Task, Encoded]]:
        """The tasks that priming is validated on, each with the sentences that score it."""
        pairs = []
        for language in self.config.validation_tasks:
            corpus = self.corpus(language, self.config.source_sizes)
            pairs.append((self.source(language), self._encode(corpus, corpus.validation)))
        return pairs

    @cached_property
    def source_digest(self) -> str:
        """Digest of the sentences that priming draws from, and that test sentences may repeat.

        Those that a backbone is pretrained on count too, for what is primed and fine-tuned depends on it.
        """
        return config_digest(self._source_digests)

    @cached_property
    def _source_digests(self) -> list[str]:
        corpora = [self.corpus(language, self.config.source_sizes) for language in self.config.sources]
        text = self.config.backbone.depends_on(self._text)
        return [*(digest(corpus.train) for corpus in corpora), *([] if text is None else [text])]

    def _priming_digest(self, setting: str) -> str:
        """Digest of the sentences that a setting's primed model depends on; that of the sources without any."""
        if not self.config.validates(setting):
            return self.source_digest
        corpora = [self.corpus(language, self.config.source_sizes) for language in self.config.validation_tasks]
        validation = [digest(split) for corpus in corpora for split in (corpus.train, corpus.validation)]
        return config_digest([*self._source_digests, *validation])

    def data_digest(self, run: Run) -> str:
        """Digest of all sentences that a run's record depends on."""
        splits = self._splits_digests(run.target, self.config.sizes_of(run.setting))
        return config_digest([self.priming_digest(run.setting), *splits])

    def _digests_of_splits(self, language: str, sizes: Sizes) -> list[str]:
        corpus = self.corpus(language, sizes)
        return [digest(corpus.split(split)) for split in SPLITS]

    def _source(self, language: str) -> Task:
        corpus = self.corpus(language, self.config.source_sizes)
        return Task.token_classification(language, self._encode(corpus, corpus.train))

    def _target(self, language: str, sizes: Sizes) -> Target:
        corpus = self.corpus(language, sizes)
        # The same for all settings, primed or not, so that the rows of a table are scored on the same sentences.
        trained_on = [corpus, *(self.corpus(source, self.config.source_sizes) for source in self.config.sources)]
        scored = corpus.split(self.config.scored_on)
        return Target(
            task=Task.token_classification(language, self._encode(corpus, corpus.train)),
            validation=self._encode(corpus, corpus.validation),
            test=self._encode(corpus, scored),
            unseen=_unseen(scored, [one.train for one in trained_on]),
        )

    def _corpus(self, language: str, sizes: Sizes) -> Corpus:
        if self.config.streaming:
            return stored_corpus(language, self.config.data.streams(language), sizes.model_dump())
        return self.config.data.corpus(language).limited(**sizes.model_dump())

    def _encode(self, corpus: Corpus, sentences: Sequence[Sentence]) -> Encoded:
        return encode(sentences, corpus.labels, self.tokenizer, self.config.max_length, self.config.scoring)


def _unseen(scored: Iterable[Sentence], trained_on: Iterable[Iterable[Sentence]]) -> tuple[int, ...]:
    """Indices of scored sentences whose words are not those of a training sentence, which may not fit into memory."""
    left = {sentence.words for sentence in scored}
    for sentence in chain.from_iterable(trained_on):
        left.discard(sentence.words)
    return tuple(i for i, sentence in enumerate(scored) if sentence.words in left)
