"""CoNLL files: ``word<TAB>tag`` lines, a blank line after each sentence, UTF-8, IOB2."""

from __future__ import annotations

import os
from pathlib import Path

from pemeta.data.conll_advice import KEYED, MARKER, about_bytes, about_line, about_tag, is_tag
from pemeta.data.sentences import SPLITS, Corpus, LabelSet, Sentence, checked_labels
from pemeta.errors import DataError, excerpt, reason, unknown_name

BYTE_ORDER_MARK = "\ufeff"


def read_conll(path: str | Path, labels: LabelSet) -> list[Sentence]:
    """The sentences of one file.

    Before the first word of a sentence, document markers (``-DOCSTART-``) and comments are skipped; a comment is
    ``#``, a blank and text, such as ``# sent_id = 1``. A line that is a word, a tab and a tag is a word, even if it
    begins with ``#``; only ``-DOCSTART-`` with the tag ``O`` is not. Where files were joined, the byte-order mark at
    the beginning of each is dropped.

    Raises:
        DataError: The file is missing, empty or not UTF-8, a line is not a word, one tab and a tag, a tag is not in
            the label set, or an entity does not start with ``B-``. The message names the file, the line and its
            content, and, for columns and schemes that are known, a command that converts the file.
        ConfigError: ``labels`` is not a label set.
    """
    checked_labels(labels)
    path = _path(path)
    text = _text(path)
    sentences: list[Sentence] = []
    words: list[str] = []
    tags: list[str] = []
    # Not splitlines(): words of real data contain characters at which it splits (U+0085, U+2028).
    for number, line in enumerate([*text.split("\n"), ""], start=1):
        line = line.removesuffix("\r")
        if line.startswith(BYTE_ORDER_MARK):
            line = _without_mark(line, f"{_shown(path)}, line {number}", bool(words))
        if not line.strip():
            if words:
                sentences.append(Sentence(tuple(words), tuple(tags)))
                words, tags = [], []
            continue
        if not words and is_remark(line, labels):
            continue
        word, _, tag = line.partition("\t")
        marker = word.startswith("-DOC") and tag == "O" and MARKER.match(word)  # within a sentence
        if not word.strip() or not tag.strip() or "\t" in tag or "\0" in line or marker:
            advice = about_line(path, text, labels, line)
            raise DataError(f"{_shown(path)}, line {number}: expected word<TAB>tag; found {line[:80]!r}; {advice}")
        problem = labels.problem(tags[-1] if tags else "O", tag)
        if problem:
            advice = about_tag(path, text, labels, word, tag)
            raise DataError(f"{_shown(path)}, line {number}: {problem}; the line is {line[:80]!r}; {advice}")
        words.append(word)
        tags.append(tag)
    if not sentences:
        raise DataError(f"{_shown(path)} holds no sentence; expected word<TAB>tag lines")
    return sentences


def _text(path: Path) -> str:
    """A file as text; not by ``read_text()``, which splits lines at a carriage return alone."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {_shown(path)}: {error.strerror}; check the path") from None
    except ValueError as error:  # a NUL in the path
        raise DataError(f"cannot read {_shown(path)}: {reason(error)}; check the path") from None
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        advice = about_bytes(path, raw)
        raise DataError(
            f"{_shown(path)}: not UTF-8 at byte {error.start}; convert the file to UTF-8; {advice}"
        ) from None


def _without_mark(line: str, where: str, within: bool) -> str:
    """A line without the byte-order mark that a file begins with, whether alone or joined to others."""
    line = line.lstrip(BYTE_ORDER_MARK)
    if within and line.strip():
        raise DataError(
            f"{where}: found a byte-order mark within a sentence, before {line[:80]!r}; put a blank line before it if "
            "another file begins there, or else remove it"
        )
    return line


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


def _path(path: object) -> Path:
    try:
        return Path(os.fspath(path))  # type: ignore[call-overload]
    except TypeError:
        raise DataError(f"expected the path of a file; found {excerpt(path)}; give a string or a Path") from None


def _shown(path: Path) -> str:
    """A path in a message, on one line."""
    return str(path) if str(path).isprintable() else repr(str(path))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that is too long for a file
        return False


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
    folder = _path(folder)
    for name in (language, language if within is None else within):
        if not isinstance(name, str):
            raise DataError(f"expected the name of a language; found {excerpt(name)}; give a string")
    if not _is_folder(folder):
        raise DataError(f"there is no folder {_shown(folder)}; expected one with a folder per language in it")
    own = folder / (within or language)
    if not _is_folder(own) and within is not None:
        raise DataError(f"there is no folder {_shown(own)} for the language {language!r}; check data.folders")
    if not _is_folder(own):
        known = [child.name for child in folder.iterdir() if (child / "train.conll").is_file()]
        raise DataError(f"{unknown_name('language', language, known)}; expected a folder {_shown(own)}")
    return Corpus(language, labels, *(read_conll(own / f"{split}.conll", labels) for split in SPLITS))
