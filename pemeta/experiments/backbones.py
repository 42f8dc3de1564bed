"""Sources of the pretrained backbone and its tokenizer, as a configuration names them."""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from pemeta.backbone.loading import load_backbone, read_configuration
from pemeta.backbone.output_kinds import OutputKind
from pemeta.backbone.tokenizers import load_tokenizer
from pemeta.data.streams import Text
from pemeta.errors import ModelError, counted, reason
from pemeta.training.pretraining import TinyTransformer, pretrain
from pemeta.training.pretraining_causal import TinyCausalTransformer, pretrain_causal
from pemeta.utils.digests import config_digest
from pemeta.utils.files import follow_umask, replaced_folder
from pemeta.utils.hub import quiet
from pemeta.utils.neutral import Neutral, without_neutral
from pemeta.utils.registry import Named

Say = Callable[[str], None]
"""Takes one line for each thing that is done."""


class Home(NamedTuple):
    """Where a backbone is that is pretrained here, which a grid and its search share.

    Attributes:
        folder: the folder that holds it.
        tasks: the tasks that it is for: on their sentences it is pretrained if the data has no other text.
    """

    folder: Path
    tasks: tuple[str, ...]


class Backbone(Named):
    """A pretrained encoder.

    Attributes:
        attention: ``sdpa`` or ``eager``; chosen by transformers if null. Second order through the backbone works with
            both; with ``sdpa`` the inner loop uses PyTorch's math kernel.
    """

    kind: ClassVar[str] = "backbone"
    trained_as: ClassVar[OutputKind | None] = None
    """The kind of language model that it is, as far as that is known before it is loaded."""

    attention: Literal["sdpa", "eager"] | None = None

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type of the backbone's parameters."""
        return torch.float32

    def prepare(self, text: Text, folder: Path, say: Say = print, progress: bool = True) -> None:
        """Create what :meth:`location` points to, if that is needed; done once per output folder.

        Args:
            text: sentences to pretrain on.
            folder: the folder to write to.
            say: takes one line for each thing that is done.
            progress: show a progress bar.
        """

    def depends_on(self, text: Text) -> str | None:
        """A digest of the sentences that the backbone depends on beside its configuration and that of the data.

        Args:
            text: sentences to pretrain on.

        Returns:
            The digest; None if there are no such sentences.
        """
        return None

    @abstractmethod
    def location(self, folder: Path) -> str:
        """A folder or a hub name that transformers loads.

        Args:
            folder: the folder that :meth:`prepare` writes to.
        """

    def configuration(self, folder: Path) -> PreTrainedConfig:
        """The backbone's shape, without loading its values.

        Raises:
            ModelError: it cannot be read.
        """
        return read_configuration(self.location(folder))

    def model(self, folder: Path, output: OutputKind | None = None) -> PreTrainedModel:
        """A newly loaded backbone, without a pooler.

        Args:
            folder: the folder that :meth:`prepare` writes to.
            output: load the whole language model of this kind, which tasks of that kind need.

        Raises:
            ModelError: it cannot be loaded.
        """
        return load_backbone(self.location(folder), self.attention, self.torch_dtype, output=output)

    def tokenizer(self, folder: Path) -> PreTrainedTokenizerBase:
        """The backbone's tokenizer; its ``model_max_length`` is at most the model's number of positions.

        Raises:
            ModelError: it cannot be loaded, or belongs to another model.
        """
        return load_tokenizer(self.location(folder))


class LoadedBackbone(Backbone):
    """A model that was pretrained elsewhere.

    Attributes:
        dtype: type of the backbone's parameters; ``float32``. ``bfloat16`` and ``float16`` halve the memory of those
            that stay as they are, and of no others: what moves is kept in float32 beside them, and rounded at the end.
    """

    dtype: Annotated[Literal["float32", "bfloat16", "float16"], Neutral("float32")] = "float32"

    @property
    def torch_dtype(self) -> torch.dtype:
        """``dtype`` as PyTorch has it."""
        return getattr(torch, self.dtype)  # type: ignore[no-any-return]


class PretrainedBackbone(LoadedBackbone):
    """A model from a folder or the Hugging Face hub.

    Attributes:
        path: the folder, or the hub's name for the model, such as ``bert-base-multilingual-cased``.
    """

    name: ClassVar[str] = "pretrained"

    path: str = Field(min_length=1)

    def location(self, folder: Path) -> str:
        """The configured path."""
        return self.path


class PackagedBackbone(LoadedBackbone):
    """A model within an installed Python package, for machines without a hub.

    Attributes:
        package: the package.
        attribute: its attribute that holds the model's folder.
    """

    name: ClassVar[str] = "package"

    package: str = Field(min_length=1)
    attribute: str = "MODEL_DIR"

    def location(self, folder: Path) -> str:
        """The folder that the package names."""
        try:
            package = importlib.import_module(self.package)
        except Exception as error:  # importing runs whatever code the package has
            raise ModelError(
                f"cannot import the package {self.package!r} ({reason(error)}); "
                f"run `pip install {self.package.replace('_', '-')}`"
            ) from None
        value = getattr(package, self.attribute, None)
        if value is None:
            raise ModelError(f"the package {self.package!r} has no {self.attribute}; check backbone.attribute")
        return str(value)


class PretrainedHere(Backbone):
    """A tiny model that is pretrained here on text of the grid's data, and saved with its tokenizer."""

    what: ClassVar[str]
    """What it is called in messages."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """Steps of its pretraining."""

    @abstractmethod
    def pretrained(
        self, texts: Iterable[Sequence[str]], progress: bool
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Pretrain a model and its tokenizer.

        Args:
            texts: The text, by words.
            progress: Show a progress bar.
        """

    def prepare(self, text: Text, folder: Path, say: Say = print, progress: bool = True) -> None:
        """Pretrain, and save model and tokenizer under ``folder``; the folder appears once it is complete."""
        target = Path(self.location(folder))
        digest = config_digest([without_neutral(self), text.digest or text.described])
        mark = target / "digest.txt"
        if mark.is_file() and mark.read_text(encoding="utf-8", errors="replace") == digest:
            return
        say(f"pretraining a tiny {self.what} ({counted(self.steps, 'step')})")
        model, tokenizer = self.pretrained(text.read(), progress)
        with replaced_folder(target) as temporary:
            with quiet():
                model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
            follow_umask(temporary)
            (temporary / "digest.txt").write_text(digest, encoding="utf-8")

    def depends_on(self, text: Text) -> str | None:
        """The digest of the sentences, unless the configuration of the data tells them."""
        return text.digest

    def location(self, folder: Path) -> str:
        """The folder that :meth:`prepare` writes."""
        return str(folder / "backbone")


class TinyBackbone(PretrainedHere):
    """A tiny Transformer, pretrained here on text of the grid's data; needs no download.

    The text is that of the training sentences of ``sources`` and ``targets``, of each task the first 10,000, whatever
    ``source_sizes`` and ``target_sizes`` are; that of ``data: synthetic`` is unlabelled sentences of its own. If these
    sentences change, another one is pretrained, and runs that depended on the former are done again.

    Attributes:
        transformer: its shape and its pretraining.
    """

    name: ClassVar[str] = "tiny"
    trained_as: ClassVar[OutputKind | None] = "masked_lm"
    what: ClassVar[str] = "Transformer"

    transformer: TinyTransformer = TinyTransformer()

    @property
    def steps(self) -> int:
        """Steps of its pretraining."""
        return self.transformer.steps

    def pretrained(
        self, texts: Iterable[Sequence[str]], progress: bool
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Pretrain by masked language modelling."""
        return pretrain(texts, self.transformer, progress=progress)

    def configuration(self, folder: Path) -> PreTrainedConfig:
        """The described shape, whether the backbone exists or not; its vocabulary may come out smaller."""
        return self.transformer.configuration(self.transformer.vocab_size)


class TinyCausalBackbone(PretrainedHere):
    """A tiny causal language model, pretrained here on text of the grid's data; needs no download.

    The text is that which ``tiny`` is pretrained on. Its tokenizer has ChatML's template.

    Attributes:
        transformer: its shape and its pretraining.
    """

    name: ClassVar[str] = "tiny_causal"
    trained_as: ClassVar[OutputKind | None] = "causal_lm"
    what: ClassVar[str] = "causal language model"

    transformer: TinyCausalTransformer = TinyCausalTransformer()

    @property
    def steps(self) -> int:
        """Steps of its pretraining."""
        return self.transformer.steps

    def pretrained(
        self, texts: Iterable[Sequence[str]], progress: bool
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Pretrain by predicting the next token."""
        return pretrain_causal(texts, self.transformer, progress=progress)

    def configuration(self, folder: Path) -> PreTrainedConfig:
        """The described shape, whether the backbone exists or not; its vocabulary may come out smaller."""
        return self.transformer.configuration(self.transformer.vocab_size)
