"""Corpora: the sentences of one language, customer or domain in three splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pemeta.data.entity_types import Types
from pemeta.data.sentences import SPLITS, LabelSet, Sentence, Split
from pemeta.data.tables.given import given_tables
from pemeta.data.tables.reading import Parts, TableReading
from pemeta.utils.messages import warn
from pemeta.utils.signatures import checked
from pemeta.utils.values import checked_size, known


@dataclass(frozen=True)
class Corpus:
    """The sentences of one language (or customer, or domain) in three splits.

    Attributes:
        name: Name of the language.
        labels: Label set of all sentences.
        train: Sentences to train on.
        validation: Sentences that choose between epochs.
        test: Sentences to score.
        notes: What was found or decided in reading, such as the scheme of the tags, in a line each.
    """

    name: str
    labels: LabelSet
    train: Sequence[Sentence]
    validation: Sequence[Sentence]
    test: Sequence[Sentence]
    notes: Sequence[str] = field(default=(), compare=False, repr=False, kw_only=True)

    @classmethod
    @checked(types=None, scheme=None, validation=None, test=None, columns=None)
    def from_dataset(
        cls,
        data: Any,
        name: str = "data",
        *,
        columns: Mapping[str, Any] | None = None,
        names: Sequence[str] | None = None,
        task_column: str | None = None,
        types: Types | None = None,
        scheme: str = "IOB2",
        splits: Mapping[Split, str] | None = None,
        validation: float | Literal["train"] = 0.1,
        test: float | Literal["train"] = 0.1,
        split_seed: int = 0,
    ) -> Corpus:
        """The corpus in a data set of ``datasets``, a data frame of pandas, or their splits.

        Integers become tags by the names of the data set's ClassLabel, or by ``names``. What the data lacks of
        validation and test is held out of train, which ``notes`` say, and a line on standard error.

        Args:
            data: A ``Dataset``, ``IterableDataset`` or ``DataFrame``, all of which is train; or a ``DatasetDict`` or
                another mapping of splits to them.
            name: Name of the corpus; with ``task_column`` also the value of its rows there.
            columns: The columns ``tokens`` and ``tags``, by default those with usual names; ``sentence``, if each row
                is one word: what has another value where another sentence begins; and ``document``.
            names: The tags that integers mean, in order.
            task_column: The column whose values are names of corpora, if the data holds several.
            types: Entity types in the order of the label indices, or what the data's types are called
                (``{"PERS": "PER", "DATE": None}``); by default those of integers' names, or else PER, ORG and LOC.
            scheme: Scheme of the tags, or ``detect``.
            splits: Which of its splits are ``train``, ``validation`` and ``test``; by default those named so.
            validation: Part of the training sentences that is held out for validation, if the data has none; or
                ``train``, to try things out: the training sentences stand in for it.
            test: Part of them that is held out to be tested on, if the data has none; or ``train``.
            split_seed: Seed of the choice.

        Raises:
            DataError: The data or a row is malformed; the message names the row and its words.
            ConfigError: An argument is out of its range.

        >>> import pandas
        >>> rows = {"tokens": [["Ada", "slept"]], "tags": [["B-PER", "O"]]}
        >>> parts = {split: pandas.DataFrame(rows) for split in ("train", "dev", "test")}
        >>> Corpus.from_dataset(parts, "news").validation
        (Sentence(words=('Ada', 'slept'), tags=('B-PER', 'O')),)
        """
        reading = TableReading(
            columns={} if columns is None else columns,
            names=names,
            task_column=task_column,
            types=types,
            scheme=scheme,
            validation=validation,
            test=test,
            split_seed=split_seed,
        )
        return _told(cls, name, reading.parts(name, given_tables(data, splits, name), name))

    def split(self, name: Split) -> Sequence[Sentence]:
        """The sentences of one split.

        Raises:
            ConfigError: There is no split of that name.
        """
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return splits[known(name, "split", SPLITS)]

    def limited(self, **sizes: int | None) -> Corpus:
        """The corpus with the first ``sizes[split]`` sentences of each split, or all if that is None.

        Raises:
            ConfigError: There is no split of a name, or a size is negative.
        """
        most = {name: None if size is None else checked_size(size, name, 0) for name, size in sizes.items()}
        for name in most:
            self.split(name)  # type: ignore[arg-type]
        parts = (self.split(split)[: most.get(split)] for split in SPLITS)
        return Corpus(self.name, self.labels, *parts, notes=self.notes)


def _told(kind: type[Corpus], name: str, parts: Parts) -> Corpus:
    """A corpus, after its notes were told."""
    for note in parts.notes:
        warn(note)
    return kind(name, parts.labels, **parts.splits, notes=parts.notes)
