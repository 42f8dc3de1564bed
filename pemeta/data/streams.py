"""Sentences that a source yields one after the other, and what is stored of them so that they need not be in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from pemeta.data.corpus import Corpus
from pemeta.data.sentences import SPLITS, LabelSet, Sentence, Split
from pemeta.data.stored_sentences import StoredSentences, store_sentences, stored_once
from pemeta.data.tables.held_out import Part, Share, read_held_out, words_of
from pemeta.data.tables.table import unreadable

AT_ONCE = 2**20  # bytes


@dataclass(frozen=True)
class Stream:
    """The sentences of one split, one after the other.

    Attributes:
        labels: Label set of all tags.
        read: Begins to read the sentences.
        fingerprint: Finds a JSON value that tells all that the sentences depend on, without reading them, such as the
            digests of files and how they are read. None if there is no quicker way than to read the sentences.
        notes: What was found or decided in reading the corpus, in a line each.
        number: How many sentences these are, if that is known.
    """

    labels: LabelSet
    read: Callable[[], Iterable[Sentence]]
    fingerprint: Callable[[], Any] | None = None
    notes: Sequence[str] = ()
    number: int | None = None

    def count(self) -> int:
        """The number of sentences, which are read if it is not known."""
        return sum(1 for _ in self.read()) if self.number is None else self.number

    def stored(self, limit: int | None = None) -> StoredSentences:
        """The first ``limit`` sentences, or all, in a file of the cache.

        What follows them is not read. The file is written only once for each state of the source; if that is unknown,
        the sentences are read each time, and written if they are others.

        Raises:
            DataError: The data is malformed.
            OutputError: The cache cannot be written.
        """

        def read() -> Iterable[Sentence]:
            return islice(self.read(), limit)

        find = self.fingerprint
        if find is None:
            return store_sentences(read(), self.labels)
        return stored_once(read, self.labels, lambda: [find(), limit])


@dataclass(frozen=True)
class Text:
    """Unlabelled sentences to pretrain a backbone on, one after the other.

    Attributes:
        read: Begins to read them, each as its words.
        described: A JSON value that tells which sentences these are without reading them, such as the configuration of
            a source that makes them. None if they are in files, which may change.
    """

    read: Callable[[], Iterable[Sequence[str]]]
    described: Any = None

    @cached_property
    def digest(self) -> str | None:
        """A digest of all words, for which they are read once; None if they are described.

        Raises:
            DataError: The data is malformed.
        """
        if self.described is not None:
            return None
        sha = hashlib.sha256()
        for words in self.read():
            sha.update(json.dumps(list(words)).encode())  # a word may hold any character
        return sha.hexdigest()[:12]


def joined_text(texts: Sequence[Text]) -> Text:
    """Several texts, one after the other."""
    described = [text.described for text in texts]
    return Text(lambda: chain.from_iterable(text.read() for text in texts), None if None in described else described)


def stored_corpus(name: str, streams: Mapping[Split, Stream], limits: Mapping[str, int | None]) -> Corpus:
    """A corpus whose sentences are in files of the cache.

    Args:
        name: Name of the corpus.
        streams: The sentences of each split.
        limits: How many sentences of each split are used, from its beginning; None for all.

    Raises:
        DataError: The data is malformed.
        OutputError: The cache cannot be written.
    """
    parts = {split: streams[split].stored(limits.get(split)) for split in SPLITS}
    return Corpus(name, streams["train"].labels, **parts, notes=streams["train"].notes)


def with_held_out(
    streams: Mapping[Split, Stream], shares: Mapping[Split, Share], seed: int, where: str
) -> dict[Split, Stream]:
    """The streams of all splits, of which those that the data lacks are held out of train, which is read for it.

    Args:
        streams: The splits that the data has; train is one of them.
        shares: What becomes of each split that the data lacks.
        seed: Seed of the choice.
        where: What messages call the data.

    Raises:
        DataError: The data is malformed, or nothing would be left to train on.
    """
    train, notes = streams["train"], [note for stream in streams.values() for note in stream.notes]
    lacking = {split: shares[split] for split in SPLITS if split not in streams}
    found = dict(streams)
    if lacking:
        parts, more = read_held_out(train.read, lacking, seed, where, words_of)
        notes += more
        for split, part in parts.items():
            find = train.fingerprint and partial(of_part, train.fingerprint, part)
            found[split] = replace(train, read=part, fingerprint=find, number=part.number)
    return {split: replace(found[split], notes=tuple(dict.fromkeys(notes))) for split in SPLITS}


def of_part(fingerprint: Callable[[], Any], part: Part[Any]) -> list[Any]:
    """The fingerprint of a part, given that of the whole."""
    return [fingerprint(), part.seed, part.ranks.start, part.ranks.stop]


def file_digest(path: Path) -> str:
    """A digest of a file's content, for the fingerprint of a stream.

    Raises:
        DataError: The file cannot be read.
    """
    sha = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while part := file.read(AT_ONCE):
                sha.update(part)
    except (OSError, ValueError) as error:  # the latter for a NUL in the path
        raise unreadable(path, error) from None
    return sha.hexdigest()


def content_of(path: Path) -> list[list[str]]:
    """The names and digests of a file, or of all in a folder.

    Raises:
        DataError: One cannot be read.
    """
    files = sorted(filter(Path.is_file, path.iterdir())) if path.is_dir() else [path]
    return [[file.name, file_digest(file)] for file in files]
