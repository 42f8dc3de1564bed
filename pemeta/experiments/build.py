"""The objects that a configuration describes: models, tasks and data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from pemeta.backbone.tokenizers import check_tokenizer, tokenizer_digest
from pemeta.data.examples import Examples
from pemeta.data.sentences import SPLITS, Split
from pemeta.data.sources import DataSource
from pemeta.data.streams import Text, joined_text
from pemeta.experiments.backbones import Say
from pemeta.experiments.config import GridConfig, Run
from pemeta.experiments.setting import Sizes
from pemeta.experiments.task_reader import TaskReader, unseen
from pemeta.model.pe_model import PEModel
from pemeta.tasks.kinds import TaskKind, Tested
from pemeta.tasks.task import Task
from pemeta.utils.devices import resolve_device
from pemeta.utils.digests import config_digest
from pemeta.utils.numerics import check_tf32


@dataclass(frozen=True)
class Target:
    """A target task, ready for fine-tuning and testing.

    Attributes:
        task: its training examples.
        validation: examples that decide which epoch's values are kept.
        tested: examples that are scored.
        gold: what each of these should be predicted to be.
        unseen: indices of those that are not also training examples of the target or of a source.
    """

    task: Task
    validation: Examples
    tested: Tested[Any]
    gold: Sequence[Any]
    unseen: tuple[int, ...]


DTYPES = {"fp32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Builder:
    """Makes the objects that a configuration describes; data is read, encoded and digested once.

    Attributes:
        of_targets: reads the targets, and the validation tasks.
        of_source: what reads each source.

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
        self._readers: list[TaskReader] = []
        self.of_targets = self._reader(config.task, config.data)
        self.of_source = {
            name: self._reader(config.kind_of_source(name), config.data_of_sources) for name in config.sources
        }
        self._text = self._text_of(config.text_tasks if tasks is None else tasks)
        self.target = cache(self._target)
        self.priming_digest = cache(self._priming_digest)

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
        backbone = self.config.backbone.model(self.folder, self.config.language_model)
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
        return [read.task(name, self.config.source_sizes) for name, read in self.of_source.items()]

    def validation_tasks(self) -> list[tuple[Task, Examples]]:
        """The tasks that priming is validated on, each with the examples that score it."""
        read, sizes = self.of_targets, self.config.source_sizes
        return [
            (read.task(name, sizes), read.examples(name, sizes, "validation")) for name in self.config.validation_tasks
        ]

    @cached_property
    def source_digest(self) -> str:
        """Digest of the examples that priming draws from, and that test examples may repeat.

        The text that a backbone is pretrained on counts too, for what is primed and fine-tuned depends on it.
        """
        return config_digest(self._source_digests)

    @cached_property
    def _source_digests(self) -> list[str]:
        sizes = self.config.source_sizes
        digests = [read.digest(name, sizes, "train") for name, read in self.of_source.items()]
        text = self.config.backbone.depends_on(self._text)
        return [*digests, *([] if text is None else [text])]

    def _priming_digest(self, setting: str) -> str:
        """Digest of the examples that a setting's primed model depends on; that of the sources without any."""
        if not self.config.validates(setting):
            return self.source_digest
        tasks, sizes = self.config.validation_tasks, self.config.source_sizes
        parts: tuple[Split, ...] = ("train", "validation")
        validation = [self.of_targets.digest(name, sizes, split) for name in tasks for split in parts]
        return config_digest([*self._source_digests, *validation])

    def data_digest(self, run: Run) -> str:
        """Digest of all examples that a run's record depends on."""
        sizes = self.config.sizes_of(run.setting)
        splits = [self.of_targets.digest(run.target, sizes, split) for split in SPLITS]
        return config_digest([self.priming_digest(run.setting), *splits])

    def test_digest(self, run: Run) -> str:
        """Digest of the examples that a run is scored on."""
        return self.of_targets.digest(run.target, self.config.sizes_of(run.setting), self.config.scored_on)

    def _target(self, name: str, sizes: Sizes) -> Target:
        read, scored_on = self.of_targets, self.config.scored_on
        test = read.examples(name, sizes, scored_on)
        return Target(
            task=read.task(name, sizes),
            validation=read.examples(name, sizes, "validation"),
            tested=Tested(read.collection(name, sizes), scored_on, test),
            gold=read.kind.gold(test),
            unseen=self._unseen(name, sizes) if read.kind.tells_unseen else (),
        )

    def _unseen(self, name: str, sizes: Sizes) -> tuple[int, ...]:
        """Indices of a target's scored examples that no training has seen.

        They are the same for all settings, primed or not, so that the rows of a table are scored on the same examples.
        """
        read, of_sources = self.of_targets, self.config.source_sizes
        trained_on = chain(
            read.identities(name, sizes, "train"),
            *(reader.identities(source, of_sources, "train") for source, reader in self.of_source.items()),
        )
        return unseen(read.identities(name, sizes, self.config.scored_on), trained_on)

    def _text_of(self, tasks: Sequence[str]) -> Text:
        """The text that a backbone is pretrained on if it is made here."""
        readers = {task: self.of_source.get(task, self.of_targets) for task in tasks}
        texts = []
        for read in dict.fromkeys(readers.values()):
            own = [task for task in tasks if readers[task] is read]
            texts.append(read.kind.pretraining_text(read.source, own))
        return texts[0] if len(texts) == 1 else joined_text(texts)

    def _reader(self, kind: TaskKind[Any], data: DataSource) -> TaskReader:
        """What reads tasks of a kind from a source, the same where both are."""
        for read in self._readers:
            if (read.kind, read.source) == (kind, data):
                return read
        made = TaskReader(kind, data, lambda: self.tokenizer, self.config.max_length, self.config.streaming)
        self._readers.append(made)
        return made
