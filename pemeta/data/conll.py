"""CoNLL files: ``word<TAB>tag`` lines, a blank line after each sentence, UTF-8, IOB2."""

from __future__ import annotations

from pathlib import Path

from pemeta.data.sentences import SPLITS, Corpus, LabelSet, Sentence
from pemeta.errors import DataError, unknown_name


def read_conll(path: str | Path, labels: LabelSet) -> list[Sentence]:
    """The sentences of one file.

    Raises:
        DataError: The file is missing, empty or not UTF-8, a line is not a word, one tab and a tag, a tag is not in
            the label set, or an entity does not start with ``B-``. The message names the file, the line and its
            content.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")  # not read_text(), which splits at a lone carriage return
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; convert the file to UTF-8") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; check the path") from None
    sentences: list[Sentence] = []
    words: list[str] = []
    tags: list[str] = []
    # Not splitlines() either: words of real data contain characters at which it splits (U+0085, U+2028).
    for number, line in enumerate([*text.split("\n"), ""], start=1):
        line = line.removesuffix("\r")
        if not line.strip():
            if words:
                sentences.append(Sentence(tuple(words), tuple(tags)))
                words, tags = [], []
            continue
        word, _, tag = line.partition("\t")
        if not word.strip() or not tag.strip() or "\t" in tag:
            raise DataError(f"{path}, line {number}: expected word<TAB>tag; found {line[:80]!r}")
        problem = labels.problem(tags[-1] if tags else "O", tag)
        if problem:
            raise DataError(f"{path}, line {number}: {problem}; the line is {line[:80]!r}")
        words.append(word)
        tags.append(tag)
    if not sentences:
        raise DataError(f"{path} holds no sentence; expected word<TAB>tag lines")
    return sentences


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
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; expected one with a folder per language in it")
    own = folder / (within or language)
    if not own.is_dir() and within is not None:
        raise DataError(f"there is no folder {own} for the language {language!r}; check data.folders")
    if not own.is_dir():
        known = [child.name for child in folder.iterdir() if (child / "train.conll").is_file()]
        raise DataError(f"{unknown_name('language', language, known)}; expected a folder {own}")
    return Corpus(language, labels, *(read_conll(own / f"{split}.conll", labels) for split in SPLITS))
