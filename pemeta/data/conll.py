"""CoNLL files: ``word<TAB>tag`` lines, a blank line after each sentence, UTF-8, IOB2."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from pemeta.data.conll_advice import about_line, about_tag, is_tag
from pemeta.data.corpus import Corpus
from pemeta.data.sentences import SPLITS, LabelSet, Sentence, Split, checked_labels
from pemeta.data.tables.text_files import raw_lines
from pemeta.data.token_files.lines import (
    BYTE_ORDER_MARK,
    KEYED,
    MARKER,
    Documents,
    as_path,
    is_folder,
    not_utf8,
    numbered_lines,
    shown,
    without_mark,
)
from pemeta.errors import DataError, excerpt, unknown_name


def read_conll(path: str | Path, labels: LabelSet) -> list[Sentence]:
    """The sentences of one file.

    Before the first word of a sentence, document markers (``-DOCSTART-``) and comments are skipped; a comment is
    ``#``, a blank and text, such as ``# sent_id = 1``. A line that is a word, a tab and a tag is a word, even if it
    begins with ``#``; only ``-DOCSTART-`` with the tag ``O`` is not. Where files were joined, the byte-order mark at
    the beginning of each is dropped.

    Raises:
        DataError: The file is missing, empty or not UTF-8, a line is not a word, one tab and a tag, a tag is not in
            the label set, or an entity does not start with ``B-``. The message names the file, the line and its
            content, and, for columns and schemes that are known, the setting that reads the file.
        ConfigError: ``labels`` is not a label set.
    """
    checked_labels(labels)
    path = as_path(path)
    text = _text(path)
    # Not splitlines(): words of real data contain characters at which it splits (U+0085, U+2028).
    return list(_sentences(path, enumerate(text.split("\n"), start=1), labels))


def stream_conll(path: str | Path, labels: LabelSet) -> Iterator[Sentence]:
    """The sentences of one file, which :func:`read_conll` would read, one by one, for a file that memory cannot hold.

    Raises:
        DataError: As :func:`read_conll`, when the wrong line is reached.
        ConfigError: ``labels`` is not a label set.
    """
    checked_labels(labels)
    path = as_path(path)
    yield from _sentences(path, numbered_lines(path), labels)


def _sentences(path: Path, lines: Iterable[tuple[int, str]], labels: LabelSet) -> Iterator[Sentence]:
    found = False
    words: list[str] = []
    tags: list[str] = []
    documents, document = Documents(), None
    for number, line in chain(lines, [(0, "")]):
        line = line.removesuffix("\r")
        if line.startswith(BYTE_ORDER_MARK):
            line = without_mark(line, f"{shown(path)}, line {number}", bool(words))
        if not line.strip():
            if words:
                yield Sentence(tuple(words), tuple(tags), document)
                found, words, tags = True, [], []
            continue
        if not words and is_remark(line, labels):
            documents.mark(line)
            continue
        word, _, tag = line.partition("\t")
        marker = word.startswith("-DOC") and tag == "O" and MARKER.match(word)  # within a sentence
        if not word.strip() or not tag.strip() or "\t" in tag or "\0" in line or marker:
            advice = about_line(path, _text(path), labels, line)
            raise DataError(f"{shown(path)}, line {number}: expected word<TAB>tag; found {line[:80]!r}; {advice}")
        problem = labels.problem(tags[-1] if tags else "O", tag)
        if problem:
            advice = about_tag(path, _text(path), labels, word, tag)
            raise DataError(f"{shown(path)}, line {number}: {problem}; the line is {line[:80]!r}; {advice}")
        if not words:
            document = documents.current()
        words.append(word)
        tags.append(tag)
    if not found:
        raise DataError(f"{shown(path)} holds no sentence; expected word<TAB>tag lines")


def _text(path: Path) -> str:
    """A file as text; not by ``read_text()``, which splits lines at a carriage return alone."""
    raw = b"".join(raw_lines(path))
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise not_utf8(path, error.start) from None


def is_remark(line: str, labels: LabelSet) -> bool:
    r"""Whether a line before the first word of a sentence is a document marker or a comment, and so no word.

    >>> labels = LabelSet(("PER",))
    >>> [is_remark(line, labels) for line in ("# sent_id = 1", "-DOCSTART- -X- O O", "-DOCSTART-\tO")]
    [True, True, True]
    >>> [is_remark(line, labels) for line in ("#\tO", "# Ada\tB-PER", "# O", "#ada", "-DOCSTART-\tB-PER")]
    [False, False, False, False, False]
    """
    tag, fields = line.partition("\t")[2], line.split()
    if MARKER.match(line):
        return not any(field in labels.index and field != "O" for field in fields[1:])
    if not line.startswith("# ") or tag in labels.index:
        return False
    if KEYED.match(line):
        return True
    # Two columns may be a word and its tag, with a blank in place of the tab.
    return not tag and (len(fields) > 2 or (len(fields) == 2 and not is_tag(fields[1], labels)))


def read_conll_corpus(folder: str | Path, language: str, labels: LabelSet, within: str | None = None) -> Corpus:
    """A language's corpus from ``folder/language/{train,validation,test}.conll``.

    Args:
        folder: Folder of all languages.
        language: Name of the corpus.
        labels: Allowed tags.
        within: Folder of the language in ``folder``, if its name differs from the language's.

    Raises:
        DataError: The folder or the language's folder is missing, or a file is malformed.
    """
    paths = conll_paths(folder, language, within)
    return Corpus(language, labels, *(read_conll(paths[split], labels) for split in SPLITS))


def conll_paths(folder: str | Path, language: str, within: str | None = None) -> dict[Split, Path]:
    """The files of a language's corpus, as :func:`read_conll_corpus` reads them.

    Raises:
        DataError: The folder or the language's folder is missing.
    """
    folder = as_path(folder)
    for name in (language, language if within is None else within):
        if not isinstance(name, str):
            raise DataError(f"expected the name of a language; found {excerpt(name)}; give a string")
    if not is_folder(folder):
        raise DataError(f"there is no folder {shown(folder)}; expected one with a folder per language in it")
    own = folder / (within or language)
    if not is_folder(own) and within is not None:
        raise DataError(f"there is no folder {shown(own)} for the language {language!r}; check data.folders")
    if not is_folder(own):
        known = [child.name for child in folder.iterdir() if (child / "train.conll").is_file()]
        raise DataError(f"{unknown_name('language', language, known)}; expected a folder {shown(own)}")
    return {split: own / f"{split}.conll" for split in SPLITS}
