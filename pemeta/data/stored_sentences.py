"""Labelled sentences in a file, for those that do not fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from pemeta.data.arrow import ArrowFile, Chunk, Rows, chunked, write_rows
from pemeta.data.sentences import LabelSet, Sentence, SentenceDigest, checked_labels
from pemeta.errors import DataError, PemetaError, article, excerpt, reason
from pemeta.utils.cache import DATA, cache_folder, cached_content, cached_entry, code_and_packages
from pemeta.utils.digests import config_digest

HERE = Path(__file__).parent
FORMAT = 1
"""Of the files; part of their names, so that another one is never misread."""
COLUMNS = {"words": "string", "tags": "int32", "document": "int64"}
"""Of the files; a document is a list of one number, or of none."""


class StoredSentences(Rows[Sentence]):
    """Sentences in an Arrow file of the cache, which is mapped into memory.

    They are a sequence as a list of sentences is, but each is read when it is asked for, so that memory does not grow
    with their number. Their beginning, ``sentences[:1000]``, is one such sequence too. :func:`~pemeta.store_sentences`
    makes them.

    Attributes:
        labels: Label set that all tags are of.
    """

    def __init__(self, file: ArrowFile, size: int | None = None) -> None:
        self._file = file
        self._size = len(file) if size is None else size
        self.labels = LabelSet(tuple(file.about["types"]))

    @property
    def content(self) -> tuple[str, str, int]:
        """What tells them from others, also where words hold the tabs and line ends that a digest has between words."""
        return self._file.about["crc32"], self._file.about["digest"], self._size

    @cached_property
    def kept_digest(self) -> str:
        """What ``pemeta.data.sentences.digest`` is for them; it was made when they were written."""
        if self._size == len(self._file):
            return str(self._file.about["digest"])
        sha = SentenceDigest()
        for sentence in self:
            sha.update(sentence)
        return sha.value

    def __len__(self) -> int:
        return self._size

    def __eq__(self, other: object) -> bool:
        """Whether both are files of the same sentences."""
        if not isinstance(other, StoredSentences):
            return NotImplemented
        return (len(self), self.kept_digest) == (len(other), other.kept_digest)

    def __hash__(self) -> int:
        return hash(self.kept_digest)

    def row(self, index: int) -> Sentence:  # noqa: D102 - inherited
        file = self._file
        numbers = [file.numbers(column, index).tolist() for column in ("tags", "document")]
        return self._sentence(file.texts("words", index), *numbers)

    def part(self, rows: range) -> Sequence[Sentence]:
        """The beginning in the same file; others in a tuple."""
        if rows.step != 1 or (rows and rows.start):
            return super().part(rows)
        return self if len(rows) == self._size else StoredSentences(self._file, len(rows))

    def __iter__(self) -> Iterator[Sentence]:
        rows = islice(self._file.rows(*COLUMNS), self._size)
        return (self._sentence(*row) for row in rows)

    def _sentence(self, words: list[str], tags: list[int], document: list[int]) -> Sentence:
        return Sentence(tuple(words), tuple(map(self.labels.tags.__getitem__, tags)), *document)

    def __repr__(self) -> str:
        return f"StoredSentences({self._size} in {str(self._file.path)!r})"


def store_sentences(sentences: Iterable[Sentence], labels: LabelSet) -> StoredSentences:
    """Store sentences in a file of the cache, one after the other, for data sets that do not fit into memory.

    :func:`~pemeta.encode` stores the tokens of such sentences beside them. What it returns then works as any other,
    with the same batches and results, but memory does not grow with the number of sentences.

    The folder of the cache is the one that the environment variable ``PEMETA_CACHE`` names, or else ``pemeta`` in the
    cache of the Hugging Face libraries (``HF_HOME``). Its files may be removed at any time; they are made again.

    Args:
        sentences: Sentences in an order, such as a generator that reads them from somewhere; it is gone through once.
        labels: Label set, which must contain every tag.

    Raises:
        DataError: They are not sentences, or a tag is unknown or cannot follow the one before it in IOB2.
        OutputError: The cache cannot be written.
    """
    checked_labels(labels)
    iterator = _iterator(sentences)
    folder = cache_folder() / "sentences"

    def write(path: Path) -> dict[str, Any]:
        return _write(path, iterator, labels)

    entry, about = cached_content(folder, write, lambda about: config_digest([FORMAT, about]))
    return StoredSentences(ArrowFile(entry / DATA, about))


def _iterator(sentences: Iterable[Sentence]) -> Iterator[Sentence]:
    """Begin to go through sentences, which have an order."""
    try:
        if isinstance(sentences, str | bytes | Mapping | set | frozenset):
            raise TypeError
        given: Any = sentences
        lazy = hasattr(given, "__len__") and hasattr(given, "__getitem__") and not hasattr(given, "__iter__")
        return (given[i] for i in range(len(given))) if lazy else iter(given)
    except TypeError:
        found = f"{article(type(sentences).__name__)}: {excerpt(sentences)}"
        raise DataError(f"sentences must be in an order; found {found}; give a list or a generator of them") from None


def stored_once(
    read: Callable[[], Iterable[Sentence]], labels: LabelSet, fingerprint: Callable[[], Any]
) -> StoredSentences:
    """The sentences of a source in a file of the cache, which is written only once for each state of the source.

    Args:
        read: Begins to read them.
        labels: Label set, which must contain every tag.
        fingerprint: A JSON value that tells all that the sentences depend on, which is quicker than to read them.

    Raises:
        DataError: They are malformed, or their source changed while it was read.
        OutputError: The cache cannot be written.
    """
    before = fingerprint()

    def write(path: Path) -> dict[str, Any]:
        about = _write(path, read(), labels)
        if fingerprint() != before:
            raise DataError("the data changed while it was read; run again when it is complete")
        return about

    entry = cache_folder() / "sentences" / config_digest([FORMAT, before, labels.types, code_and_packages(HERE)])
    return StoredSentences(ArrowFile(entry / DATA, cached_entry(entry, write)))


def _write(path: Path, sentences: Iterable[Sentence], labels: LabelSet) -> dict[str, Any]:
    """Write sentences to a file, and return what is to be known about it."""
    sha = SentenceDigest()

    def chunks() -> Iterator[Chunk]:
        for chunk in chunked(_checked(sentences, labels)):
            for sentence in chunk:
                sha.update(sentence)
            yield {
                "words": [list(sentence.words) for sentence in chunk],
                "tags": [[labels.index[tag] for tag in sentence.tags] for sentence in chunk],
                "document": [[] if sentence.document is None else [sentence.document] for sentence in chunk],
            }

    number = write_rows(path, COLUMNS, chunks())
    return {"sentences": number, "types": list(labels.types), "digest": sha.value}


def _checked(sentences: Iterable[Sentence], labels: LabelSet) -> Iterator[Sentence]:
    """The sentences, each after a check."""
    iterator, number = iter(sentences), 0
    while True:
        number += 1
        try:
            sentence = next(iterator)
        except StopIteration:
            return
        except OSError as error:
            if isinstance(error, PemetaError):
                raise
            raise DataError(f"cannot read sentence {number}: {reason(error)}; check where it comes from") from error
        labels.check_sentence(sentence, f"sentence {number}")
        yield sentence
