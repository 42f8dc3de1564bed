"""The sentences of token files, and corpora of them in folders of any layout."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pemeta.data.conll import read_conll, read_conll_corpus, stream_conll
from pemeta.data.corpus import Corpus
from pemeta.data.entity_types import TypeMap
from pemeta.data.schemes import SCHEMES, Scheme, SchemeError
from pemeta.data.sentences import SPLITS, LabelSet, Sentence, Split, checked_labels
from pemeta.data.tables.held_out import Share, held_out
from pemeta.data.token_files.columns import token_rows
from pemeta.data.token_files.formats import TokenFormat
from pemeta.data.token_files.lines import as_path, is_folder, shown
from pemeta.data.token_files.places import DEFAULT, place, tasks_in
from pemeta.data.token_rows import detect_rows, sentences
from pemeta.errors import DataError, unknown_name

HELD_OUT: Mapping[Split, Share] = {"validation": 0.1, "test": 0.1}
"""Parts of the training sentences that are held out for splits without a file; our choice."""


@dataclass(frozen=True)
class TokenFile:
    """What a token file holds.

    Attributes:
        sentences: Its sentences, in IOB2.
        scheme: The scheme that its tags are in.
        notes: What was found in reading it, in a line each.
    """

    sentences: tuple[Sentence, ...]
    scheme: Scheme
    notes: tuple[str, ...] = ()


def read_token_file(
    path: str | Path, labels: LabelSet, form: TokenFormat | None = None, types: TypeMap | None = None
) -> TokenFile:
    """The sentences of one token file.

    Args:
        path: The file.
        labels: Label set of the sentences.
        form: How it is written; by default a word, one tab and a tag in IOB2, which
            :func:`~pemeta.data.conll.read_conll` reads.
        types: What each type of the file is called in ``labels``, or None where it is left out; by default types are
            called what they are.

    Raises:
        DataError: The file is missing, empty or not UTF-8, a line is not what the format says, a tag does not fit the
            scheme, or a type is unknown. The message names the file, the line and its content.
        ConfigError: ``labels`` is not a label set.
    """
    form, path = form or TokenFormat(), as_path(path)
    if form.is_usual and types is None:
        return TokenFile(tuple(read_conll(path, labels)), "IOB2")
    scheme, notes = file_scheme(path, form)
    return TokenFile(tuple(stream_token_file(path, labels, form, types, scheme)), scheme, notes)


def file_scheme(path: Path, form: TokenFormat) -> tuple[Scheme, tuple[str, ...]]:
    """The scheme of a file's tags, and what was found if it had to be detected, in a line each.

    Raises:
        DataError: No scheme fits, or more than one; or a line is not what the format says.
    """
    if form.scheme != "detect":
        return form.scheme, ()
    found = detect_rows(token_rows(path, form))
    return found.scheme, (f"{shown(path)}: {found}",)


def stream_token_file(
    path: Path, labels: LabelSet, form: TokenFormat, types: TypeMap | None, scheme: Scheme
) -> Iterator[Sentence]:
    """The sentences of one token file, one by one, as :func:`read_token_file` reads them in a scheme that is known."""
    if form.is_usual and types is None:
        yield from stream_conll(path, labels)
        return
    checked_labels(labels)
    empty = True
    try:
        for sentence in sentences(token_rows(path, form, scheme), labels=labels, scheme=scheme, types=types):
            yield sentence
            empty = False
    except SchemeError as error:
        raise DataError(f"{error}{_other_scheme(path, form, types or labels.types)}") from None
    if empty:
        raise DataError(f"{shown(path)} holds no sentence; expected a line for each word")


def _other_scheme(path: Path, form: TokenFormat, known: Container[str]) -> str:
    """The scheme that would read a file that the given one does not fit."""
    try:
        found = detect_rows(token_rows(path, form), among=SCHEMES)
    except DataError:
        return "; mend it"
    if found.scheme == "conlleval":
        return "; mend it, or say scheme: conlleval if an I- that goes on with nothing begins an entity"
    if found.scheme == "types" and not all(kind in known for kind in found.types):  # words or parts of speech
        return "; say which column has the tags with columns"
    return f"; {found}; say scheme: {found.scheme}"


def read_token_corpus(
    folder: str | Path,
    task: str,
    labels: LabelSet,
    form: TokenFormat | None = None,
    types: TypeMap | None = None,
    splits: Mapping[Split, str] | None = None,
    within: str | None = None,
    shares: Mapping[Split, Share] = HELD_OUT,
    seed: int = 0,
) -> Corpus:
    """A task's corpus from token files in a folder.

    Args:
        folder: The folder.
        task: Name of the corpus, which is a language's in most data sets.
        labels: Label set of the sentences.
        form: How the files are written.
        types: What the files' types are called in ``labels``.
        splits: Where each split's file is in the folder, with ``{task}`` (or ``{language}``) and ``{split}`` for their
            names; by default ``{task}/{split}.conll``. A split without a file is held out of train.
        within: What stands for ``{task}``, if not its name.
        shares: Which part of the training sentences is held out for a split without a file; or ``train``.
        seed: Seed of the choice of these sentences.

    Raises:
        DataError: The folder or a file is missing, or malformed.
    """
    form = form or TokenFormat()
    if form.is_usual and types is None and splits is None:
        return read_conll_corpus(folder, task, labels, within)
    paths = token_paths(folder, task, splits, within)
    files = {split: read_token_file(path, labels, form, types) for split, path in paths.items()}
    notes = [note for file in files.values() for note in file.notes]
    found: dict[Split, Sequence[Sentence]] = {split: file.sentences for split, file in files.items()}
    lacking = {split: shares[split] for split in SPLITS if split not in files}
    if lacking:
        parts, more = held_out(found["train"], lacking, seed, shown(paths["train"]))
        found, notes = {**found, **parts}, [*notes, *more]
    return Corpus(task, labels, *(list(found[split]) for split in SPLITS), notes=tuple(notes))


def token_paths(
    folder: str | Path, task: str, splits: Mapping[Split, str] | None = None, within: str | None = None
) -> dict[Split, Path]:
    """The files of a task's corpus, as :func:`read_token_corpus` reads them.

    Raises:
        DataError: The folder is missing, or all files are.
    """
    folder = as_path(folder)
    if not is_folder(folder):
        raise DataError(f"there is no folder {shown(folder)}; expected the one that data.splits starts from")
    templates = dict.fromkeys(SPLITS, DEFAULT) if splits is None else splits
    paths = {split: folder / place(template, within or task, split) for split, template in templates.items()}
    if not any(path.exists() for path in paths.values()):
        known = tasks_in(folder, templates["train"], "train")
        raise DataError(f"{unknown_name('language', task, known)}; expected a file {shown(paths['train'])}")
    return paths
