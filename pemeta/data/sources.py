"""Sources of labelled sentences, as a configuration describes them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from pemeta.data.corpus import Corpus
from pemeta.data.entity_types import Types, checked_types, label_set, type_map
from pemeta.data.roles import Roles
from pemeta.data.row_streams import RowStream
from pemeta.data.sentences import SPLITS, Split
from pemeta.data.streams import Stream, Text
from pemeta.data.synthetic import LABELS, SyntheticWorld
from pemeta.data.tables.held_out import Share
from pemeta.data.token_files.formats import (
    Layout,
    SchemeSetting,
    TokenFormat,
    checked_columns,
    checked_encoding,
    checked_separator,
)
from pemeta.data.token_files.places import checked_splits, place
from pemeta.data.token_files.reading import read_token_corpus
from pemeta.data.token_files.streams import token_streams
from pemeta.data.wikiann import REPOSITORY, read_wikiann
from pemeta.errors import ConfigError, DataError
from pemeta.utils.neutral import Neutral, without_neutral
from pemeta.utils.registry import Named
from pemeta.utils.values import known

MOST_TEXT = 10_000
"""Most sentences of a task that a backbone is pretrained on, so that they fit into memory whatever the data."""


class DataSource(Named):
    """A collection of corpora, one per language."""

    kind: ClassVar[str] = "data source"
    at_hand: ClassVar[bool] = False
    """Whether sentences are in files of this machine, or made here, so that reading some of them is quick."""

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
        return {split: stream.count() for split, stream in self.streams(language).items()}

    def streams(self, language: str) -> Mapping[Split, Stream]:
        """The sentences of each split of a language, to be read one after the other (``streaming: true``).

        By default these are the sentences of its corpus, which is then in memory while it is stored.

        Raises:
            DataError: The language is unknown, or its data is malformed.
        """
        corpus = self.corpus(language)
        return {split: Stream(corpus.labels, partial(corpus.split, split), notes=corpus.notes) for split in SPLITS}

    def rows(self, task: str, roles: Roles) -> Mapping[Split, RowStream]:
        """The rows of each split of a task by role, for kinds of task other than token classification.

        What the data lacks of validation and test is held out of train.

        Args:
            task: The task.
            roles: What the kind of task reads, such as :data:`pemeta.data.roles.COMPLETION`.

        Raises:
            ConfigError: The source has nothing but sentences with tags, or no such columns.
            DataError: The task is unknown, or its data is malformed; what is wrong with a row is said when it is read.
        """
        raise ConfigError(
            f"data {self.name!r} has sentences with tags, and {roles.kind} needs {' or '.join(roles.names)}; read a "
            "file with data: {name: table, path: ...}, or a data set of the hub with data: {name: hub, repository: ...}"
        )

    def row_sizes(self, task: str, roles: Roles) -> dict[Split, int]:
        """Number of rows in each split, or an upper bound, without a download.

        Raises:
            ConfigError: As in :meth:`rows`.
            DataError: As there.
        """
        return {split: stream.count() for split, stream in self.rows(task, roles).items()}

    def entity_types(self) -> tuple[str, ...]:
        """The types of entities that sentences have labels for, as far as that is known without reading them."""
        return ("PER", "ORG", "LOC")

    def check_tasks(self, tasks: Sequence[str]) -> None:
        """Refuse tasks that this source cannot tell apart; by default it can.

        Raises:
            ConfigError: Several of them would have the same sentences.
        """

    def unlabelled(self, tasks: Sequence[str]) -> Text:
        """Text to pretrain a backbone on.

        By default this is that of the tasks' training sentences, of each the first 10,000, whatever number of them a
        grid is limited to. A source that has other text gives that.

        Args:
            tasks: The tasks that the backbone is for.

        Returns:
            The sentences; a task that is unknown or whose data is malformed is an error when they are read.
        """
        return Text(partial(self._of_training, tuple(tasks)))

    def _of_training(self, tasks: Sequence[str]) -> Iterator[Sequence[str]]:
        for task in tasks:
            for sentence in islice(self.streams(task)["train"].read(), MOST_TEXT):
                yield sentence.words


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
    """Token files in a folder: a line for each word, with its tag.

    With ``path`` alone, each language has a folder ``path/af/{train,validation,test}.conll``, whose lines are a word,
    one tab and a tag in IOB2. The other keys say what is different; what is not as they say is refused.

    Attributes:
        path: The folder; a relative path starts at the working directory.
        types: Entity types, in the order of the label indices. Or what the types of the files are called, such as
            ``{PERS: PER, DATE: null}``, where entities of a type that is null are left out. Or either for each
            language, ``{en: {PERS: PER}, de: [PER]}``; the label set has all types and is the same for all languages.
            A type that is not mentioned is an error.
        folders: Subfolders of languages whose subfolder is not named like the language, e.g. ``hi: hiner/hi``.
        splits: The files of ``train``, ``validation`` and ``test`` in the folder, with ``{task}`` or ``{language}``
            for the language's name, or what ``folders`` has for it; where null, ``{task}/train.conll`` etc. What has
            no file beside that of ``train`` is held out of its sentences.
        format: ``columns``, or ``conllu`` for CoNLL-U, where words are numbered, ranges (``1-2``) and empty nodes
            (``1.1``) are no words, and the tag may be a key of MISC.
        columns: Where the ``word`` and its ``tag`` are: numbers from 1, or from the end if negative, or names in a
            header line; in CoNLL-U, also a key of MISC. ``flags`` is a column of which ``EndOfSentence`` ends a
            sentence, as the column ``MISC`` of a header does by itself; each new value of ``sentence`` begins one.
            Where null, the first of two columns is the word and the second its tag; in CoNLL-U, FORM is the word, and
            the tag is where one is found.
        separator: ``tab``, ``blanks`` (any number of blanks and tabs), or the characters themselves, such as ``","``;
            where null, tabs if the first line has one, else blanks.
        scheme: How tags write entities: ``IOB2``, ``IOB1``, ``IOBES``, ``BILOU``, ``BMES``, ``types`` (types alone,
            whose neighbours are one entity), or ``conlleval`` (``B-`` and ``I-`` in any order). Each is converted to
            IOB2. ``detect`` finds it from each whole file, says what it found, and refuses what fits none.
        encoding: The files' encoding, such as ``latin-1``; UTF-8 where null.
        validation: Part of the training sentences that is held out for validation if ``splits`` has no file for it;
            0.1, our choice. Or ``train``, to try things out: the training sentences stand in for it.
        test: Part of the training sentences that is held out to be tested on if ``splits`` has no file for it, or
            ``train``; 0.1, our choice.
        split_seed: Seed of the choice of these sentences.
    """

    name: ClassVar[str] = "conll"
    at_hand: ClassVar[bool] = True

    path: str = Field(min_length=1)
    folders: dict[str, str] = Field(default_factory=dict)
    types: Types = ("PER", "ORG", "LOC")
    splits: Annotated[dict[Split, str] | None, Neutral(None)] = None
    format: Annotated[Layout, Neutral("columns")] = "columns"
    columns: Annotated[dict[str, int | str] | None, Neutral(None)] = None
    separator: Annotated[str | None, Neutral(None)] = None
    scheme: Annotated[SchemeSetting, Neutral("IOB2")] = "IOB2"
    encoding: Annotated[str | None, Neutral(None)] = None
    validation: Annotated[Share, Neutral(0.1)] = 0.1
    test: Annotated[Share, Neutral(0.1)] = 0.1
    split_seed: Annotated[int, Neutral(0)] = 0

    @field_validator("types", mode="before")
    @classmethod
    def _plain_types(cls, types: Any) -> Any:
        return checked_types(types)

    @field_validator("types")
    @classmethod
    def _make_a_label_set(cls, types: Types) -> Types:
        label_set(types)
        return types

    @field_validator("splits", mode="before")
    @classmethod
    def _known_names(cls, splits: Any) -> Any:
        return checked_splits(splits)

    @field_validator("columns", mode="before")
    @classmethod
    def _known_columns(cls, columns: Any) -> Any:
        return None if columns is None else checked_columns(columns)

    @field_validator("separator", mode="before")
    @classmethod
    def _some_separator(cls, separator: Any) -> Any:
        return checked_separator(separator)

    @field_validator("encoding", mode="before")
    @classmethod
    def _some_encoding(cls, encoding: Any) -> Any:
        return checked_encoding(encoding)

    @model_validator(mode="after")
    def _make_a_format(self) -> Self:
        _ = self.token_format
        return self

    def entity_types(self) -> tuple[str, ...]:
        """The configured types, as they are called here."""
        return label_set(self.types).types

    def check_tasks(self, tasks: Sequence[str]) -> None:
        """Refuse tasks that would have the same files, or whose types are not given where others' are."""
        for split, template in (self.splits or {}).items():
            found: dict[str, str] = {}
            for task in tasks:
                file = place(template, self.folders.get(task, task), split)
                if file in found:
                    raise ConfigError(
                        f"data.splits: {found[file]!r} and {task!r} would both have the file {file!r} for {split}; say "
                        "where the task's name stands in its path, {task}"
                    )
                found[file] = task
        for task in tasks:
            try:
                type_map(self.types, task)
            except DataError as error:
                raise ConfigError(f"data.types: {error}") from None

    @property
    def token_format(self) -> TokenFormat:
        """How the files are written."""
        return TokenFormat(self.format, self.columns or {}, self.separator, self.scheme, self.encoding)

    def corpus(self, language: str) -> Corpus:
        """The corpus of a language, by the name of its folder."""
        return read_token_corpus(self.path, *self._how(language))

    def _how(self, language: str) -> tuple[Any, ...]:
        """What the readers of a language are given besides the folder."""
        return (
            language,
            label_set(self.types),
            self.token_format,
            type_map(self.types, language),
            self.splits,
            self.folders.get(language),
            {"validation": self.validation, "test": self.test},
            self.split_seed,
        )

    def streams(self, language: str) -> Mapping[Split, Stream]:
        """The sentences of each split of a language, read line by line."""
        return token_streams(self.path, *self._how(language))


class SyntheticData(SyntheticWorld, DataSource):
    """The synthetic world: small artificial languages, generated on the fly without a download."""

    name: ClassVar[str] = "synthetic"
    at_hand: ClassVar[bool] = True

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

    def unlabelled(self, tasks: Sequence[str]) -> Text:
        """The unlabelled text of all languages, one language after another, whatever the tasks."""
        return Text(self._of_all_languages, described=without_neutral(self))

    def _of_all_languages(self) -> Iterator[Sequence[str]]:
        for language in self.languages:
            yield from self.text(language)
