"""Sources of labelled sentences, as a configuration describes them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import ClassVar

from pydantic import Field, field_validator

from pemeta.data.conll import read_conll_corpus
from pemeta.data.sentences import SPLITS, Corpus, LabelSet, Split
from pemeta.data.streams import Stream
from pemeta.data.synthetic import LABELS, SyntheticWorld
from pemeta.data.wikiann import REPOSITORY, read_wikiann
from pemeta.errors import ConfigError
from pemeta.utils.neutral import without_neutral
from pemeta.utils.registry import Named
from pemeta.utils.values import known


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

    def streams(self, language: str) -> Mapping[Split, Stream]:
        """The sentences of each split of a language, to be read one after the other (``streaming: true``).

        By default these are the sentences of its corpus, which is then in memory while it is stored.

        Raises:
            DataError: The language is unknown, or its data is malformed.
        """
        corpus = self.corpus(language)
        return {split: Stream(corpus.labels, partial(corpus.split, split), notes=corpus.notes) for split in SPLITS}

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

    def streams(self, language: str) -> Mapping[Split, Stream]:
        """The sentences of each split, made one after the other."""
        known(language, "language", self.languages)
        return {
            split: Stream(LABELS, partial(self.sentences, language, split), partial(self._fingerprint, language, split))
            for split in SPLITS
        }

    def _fingerprint(self, language: str, split: Split) -> list[object]:
        return [without_neutral(self), language, split]

    def unlabelled(self) -> Iterator[Sequence[str]]:
        """The unlabelled text of all languages, one language after another."""
        for language in self.languages:
            yield from self.text(language)
