"""Where a run's pretrained backbone and tokenizer come from, as a configuration says it."""

from __future__ import annotations

import importlib.util
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from pemeta.data.sources import DataSource
from pemeta.errors import ModelError
from pemeta.files import replaced_folder
from pemeta.model import load_backbone
from pemeta.pretraining import TinyTransformer, pretrain
from pemeta.registry import Named
from pemeta.results import config_digest


class Backbone(Named):
    """A pretrained encoder.

    Attributes:
        attention: ``sdpa`` or ``eager``; transformers' choice where null. Second order through the backbone
            needs ``eager``.
    """

    kind: ClassVar[str] = "backbone"

    attention: Literal["sdpa", "eager"] | None = None

    def prepare(self, data: DataSource, folder: Path) -> None:
        """Make what :meth:`location` points to, if it has to be made; done once per run folder."""

    @abstractmethod
    def location(self, folder: Path) -> str:
        """A folder or a hub name that transformers loads.

        Args:
            folder: where :meth:`prepare` puts what it makes.
        """

    def model(self, folder: Path) -> PreTrainedModel:
        """A newly loaded backbone, without a pooler.

        Raises:
            ModelError: it cannot be loaded.
        """
        return load_backbone(self.location(folder), self.attention)

    def tokenizer(self, folder: Path) -> PreTrainedTokenizerBase:
        """The backbone's tokenizer.

        Raises:
            ModelError: it cannot be loaded.
        """
        path = self.location(folder)
        try:
            return AutoTokenizer.from_pretrained(path)
        except Exception as error:  # transformers and the hub raise nearly anything here
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ModelError(
                f"cannot load a tokenizer from {path!r}: {reason}; give a folder that has its files too"
            ) from None


class PretrainedBackbone(Backbone):
    """A model from a folder or the Hugging Face hub.

    Attributes:
        path: the folder, or the hub's name for the model, such as ``bert-base-multilingual-cased``.
    """

    name: ClassVar[str] = "pretrained"

    path: str = Field(min_length=1)

    def location(self, folder: Path) -> str:
        """The configured path."""
        return self.path


class PackagedBackbone(Backbone):
    """A model that an installed Python package carries, for machines without a hub.

    Attributes:
        package: the package.
        attribute: its attribute that holds the model's folder.
    """

    name: ClassVar[str] = "package"

    package: str = Field(min_length=1)
    attribute: str = "MODEL_DIR"

    def location(self, folder: Path) -> str:
        """The folder that the package names."""
        if importlib.util.find_spec(self.package) is None:
            raise ModelError(
                f"the package {self.package!r} is not installed; run `pip install {self.package.replace('_', '-')}`"
            )
        value = getattr(importlib.import_module(self.package), self.attribute, None)
        if value is None:
            raise ModelError(f"the package {self.package!r} has no {self.attribute}; check backbone.attribute")
        return str(value)


class TinyBackbone(Backbone):
    """A tiny Transformer, pretrained here on the unlabelled text of the run's data; needs no download.

    Attributes:
        transformer: its shape and its pretraining.
    """

    name: ClassVar[str] = "tiny"

    transformer: TinyTransformer = TinyTransformer()

    def prepare(self, data: DataSource, folder: Path) -> None:
        """Pretrain, and save model and tokenizer under ``folder``; the folder appears when it is whole."""
        target = Path(self.location(folder))
        digest = config_digest([self.to_config(), data.to_config()])
        if target.is_dir() and (target / "digest.txt").read_text(encoding="utf-8") == digest:
            return
        model, tokenizer = pretrain(data.unlabelled(), self.transformer)
        with replaced_folder(target) as temporary:
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
            (temporary / "digest.txt").write_text(digest, encoding="utf-8")

    def location(self, folder: Path) -> str:
        """The folder that :meth:`prepare` makes."""
        return str(folder / "backbone")
