"""Sentences that a source yields one after the other, and what is stored of them so that they need not be in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pemeta.data.corpus import Corpus
from pemeta.data.sentences import SPLITS, LabelSet, Sentence, Split
from pemeta.data.stored_sentences import StoredSentences, store_sentences, stored_once
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
        notes: What was found or decided in reading, in a line each.
    """

    labels: LabelSet
    read: Callable[[], Iterable[Sentence]]
    fingerprint: Callable[[], Any] | None = None
    notes: Sequence[str] = ()

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
    notes = tuple(dict.fromkeys(note for stream in streams.values() for note in stream.notes))
    return Corpus(name, streams["train"].labels, **parts, notes=notes)


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
