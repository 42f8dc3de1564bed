"""Sources of labelled sentences, as a configuration describes them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

from pydantic import Field, field_validator

from pemeta.data.conll import read_conll_corpus
from pemeta.data.sentences import SPLITS, Corpus, LabelSet, Split
from pemeta.data.synthetic import SyntheticWorld
from pemeta.data.wikiann import REPOSITORY, read_wikiann
from pemeta.errors import ConfigError
from pemeta.utils.registry import Named


class DataSource(Named):
    """A collection of corpora, one per language."""

    kind: ClassVar[str] = "data source"

    @abstractmethod
    def corpus(self, language: str) -> Corpus:
        """The corpus of one language.

        Raises:
            DataError: The language is unknown, or its data is malformed.
        """

    def sizes(self, language: str) -> dict[Split, int]:
        """Number of sentences in each split, or an upper bound, without a download.

        Raises:
            DataError: The language is unknown.
        """
        corpus = self.corpus(language)
        return {split: len(corpus.split(split)) for split in SPLITS}

    def check_tasks(self, tasks: Sequence[str]) -> None:
        """Refuse tasks that this source cannot tell apart; by default it can.

        Raises:
            ConfigError: Several of them would have the same sentences.
        """

    def unlabelled(self) -> Iterator[Sequence[str]]:
        """Unlabelled sentences of all languages, for pretraining.

        Raises:
            ConfigError: This source has none.
        """
        raise ConfigError(
            f"data {self.name!r} has no unlabelled text to pretrain on; use backbone: {{name: pretrained, path: ...}}"
        )


class WikiAnnData(DataSource):
    """WikiAnn from the Hugging Face hub, the paper's data (§4.1).

    Attributes:
        repository: Data set on the hub, or a folder with the same layout.
        revision: Commit, branch or tag of the repository; the newest if null.
    """

    name: ClassVar[str] = "wikiann"

    repository: str = REPOSITORY
    revision: str | None = None

    def corpus(self, language: str) -> Corpus:
        """The corpus of a language, by its WikiAnn code, such as ``af``."""
        return read_wikiann(language, self.repository, self.revision)

    def sizes(self, language: str) -> dict[Split, int]:
        """The sizes of WikiAnn's largest languages; others are smaller."""
        return {"train": 20_000, "validation": 10_000, "test": 10_000}


class ConllData(DataSource):
    """CoNLL files in a folder with one subfolder per language: ``path/af/{train,validation,test}.conll``.

    Attributes:
        path: The folder; a relative path starts at the working directory.
        types: Entity types, in the order of the label indices.
        folders: Subfolders of languages whose subfolder is not named like the language, e.g. ``hi: hiner/hi``.
    """

    name: ClassVar[str] = "conll"

    path: str = Field(min_length=1)
    folders: dict[str, str] = Field(default_factory=dict)
    types: tuple[str, ...] = ("PER", "ORG", "LOC")

    @field_validator("types")
    @classmethod
    def _make_a_label_set(cls, types: tuple[str, ...]) -> tuple[str, ...]:
        LabelSet(types)
        return types

    def corpus(self, language: str) -> Corpus:
        """The corpus of a language, by the name of its folder."""
        return read_conll_corpus(self.path, language, LabelSet(self.types), self.folders.get(language))


class SyntheticData(SyntheticWorld, DataSource):
    """The synthetic world: small artificial languages, generated on the fly without a download."""

    name: ClassVar[str] = "synthetic"

    def sizes(self, language: str) -> dict[Split, int]:
        """The configured sizes; no sentences are generated."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def unlabelled(self) -> Iterator[Sequence[str]]:
        """The unlabelled text of all languages, one language after another."""
        for language in self.languages:
            yield from self.text(language)
