"""Where a run's labelled sentences come from, as a configuration says it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

from pydantic import Field

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
            DataError: the language is unknown, or its data is not as it should be.
        """

    def sizes(self, language: str) -> dict[Split, int]:
        """Sentences in each split, or the most that there can be, without a download.

        Raises:
            DataError: the language is unknown.
        """
        corpus = self.corpus(language)
        return {split: len(corpus.split(split)) for split in SPLITS}

    def unlabelled(self) -> Iterator[Sequence[str]]:
        """Unlabelled sentences of all languages, to pretrain on.

        Raises:
            ConfigError: this source has none.
        """
        raise ConfigError(
            f"data {self.name!r} has no unlabelled text to pretrain on; use backbone: {{name: pretrained, path: ...}}"
        )


class WikiAnnData(DataSource):
    """WikiAnn from the Hugging Face hub, the paper's data (§4.1).

    Attributes:
        repository: a data set on the hub, or a folder of the same layout.
        revision: a commit, branch or tag of it; its newest where null.
    """

    name: ClassVar[str] = "wikiann"

    repository: str = REPOSITORY
    revision: str | None = None

    def corpus(self, language: str) -> Corpus:
        """One language by WikiAnn's code, such as ``af``."""
        return read_wikiann(language, self.repository, self.revision)

    def sizes(self, language: str) -> dict[Split, int]:
        """Those of WikiAnn's largest languages; others have fewer."""
        return {"train": 20_000, "validation": 10_000, "test": 10_000}


class ConllData(DataSource):
    """CoNLL files in a folder with a folder per language: ``path/af/{train,validation,test}.conll``.

    Attributes:
        path: the folder; a relative one starts where the command is run.
        types: entity types, in the order of the label indices.
        folders: within the folder, where a language is not in one of its own name; such as ``hi: hiner/hi``.
    """

    name: ClassVar[str] = "conll"

    path: str = Field(min_length=1)
    folders: dict[str, str] = Field(default_factory=dict)
    types: tuple[str, ...] = ("PER", "ORG", "LOC")

    def corpus(self, language: str) -> Corpus:
        """One language by the name of its folder."""
        return read_conll_corpus(self.path, language, LabelSet(self.types), self.folders.get(language))


class SyntheticData(SyntheticWorld, DataSource):
    """The synthetic world: small artificial languages, made up on the spot; needs no download."""

    name: ClassVar[str] = "synthetic"

    def sizes(self, language: str) -> dict[Split, int]:
        """As described: nothing is made up for it."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def unlabelled(self) -> Iterator[Sequence[str]]:
        """The unlabelled text of every language, one after the other."""
        for language in self.languages:
            yield from self.text(language)
