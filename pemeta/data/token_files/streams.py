"""Token files that are read line by line, for those that do not fit into memory."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pemeta.data.conll import conll_paths
from pemeta.data.entity_types import TypeMap
from pemeta.data.sentences import LabelSet, Split
from pemeta.data.streams import Stream, file_digest, with_held_out
from pemeta.data.tables.held_out import Share
from pemeta.data.token_files.formats import TokenFormat
from pemeta.data.token_files.lines import shown
from pemeta.data.token_files.reading import HELD_OUT, file_scheme, stream_token_file, token_paths


def token_streams(
    folder: str | Path,
    task: str,
    labels: LabelSet,
    form: TokenFormat,
    types: TypeMap | None = None,
    splits: Mapping[Split, str] | None = None,
    within: str | None = None,
    shares: Mapping[Split, Share] = HELD_OUT,
    seed: int = 0,
) -> dict[Split, Stream]:
    """The sentences of each split of the corpus that :func:`~pemeta.data.token_files.reading.read_token_corpus` reads.

    Its arguments are the same. A scheme that is to be detected is, from each whole file, and where a split has no file,
    the training sentences are gone through to hold it out of them.

    Raises:
        DataError: The folder or a file is missing, no scheme fits, or there are too few sentences to hold some out. A
            wrong line is refused when it is read.
    """
    usual = form.is_usual and types is None and splits is None
    paths = conll_paths(folder, task, within) if usual else token_paths(folder, task, splits, within)
    found: dict[Split, Stream] = {}
    for split, path in paths.items():
        scheme, notes = file_scheme(path, form)
        read = partial(stream_token_file, path, labels, form, types, scheme)
        found[split] = Stream(labels, read, partial(_fingerprint, path, [form.described(), scheme, types]), notes)
    return with_held_out(found, shares, seed, shown(paths["train"]))


def _fingerprint(path: Path, read_as: list[Any]) -> list[Any]:
    """All that the sentences of a file depend on."""
    return [file_digest(path), *read_as]
