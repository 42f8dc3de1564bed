"""WikiAnn, the data of the paper, from the Hugging Face hub."""

from __future__ import annotations

import re
from typing import Any

from pemeta.data.corpus import Corpus
from pemeta.data.sentences import SPLITS, LabelSet, Sentence
from pemeta.errors import DataError, counted, excerpt, reason, unknown_name
from pemeta.utils.hub import quiet

REPOSITORY = "unimelb-nlp/wikiann"
"""Repository of Parquet files with the splits of Rahimi et al. (2019), as in the paper (§4.1)."""

LABELS = LabelSet(("PER", "ORG", "LOC"))


def read_wikiann(language: str, repository: str = REPOSITORY, revision: str | None = None) -> Corpus:
    """The corpus of one WikiAnn language.

    Args:
        language: WikiAnn code of the language, such as ``af``.
        repository: Data set on the hub, or a folder with the same layout.
        revision: Commit, branch or tag of the repository; the newest if None.

    Raises:
        DataError: The hub cannot be reached, the language is unknown, or the labels are not WikiAnn's.
    """
    import datasets  # here, because importing it takes a second and CoNLL files do not need it

    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        with quiet():
            loaded = datasets.load_dataset(repository, language, revision=revision)
    except Exception as error:  # the hub, pyarrow and datasets raise nearly anything here
        raise _unloadable(repository, language, error) from None
    finally:
        if bars:
            datasets.enable_progress_bars()
    missing = [split for split in SPLITS if split not in loaded]
    if missing:
        raise DataError(f"{repository} ({language}) lacks the split {missing[0]!r}; found {', '.join(loaded)}")
    return Corpus(
        language, LABELS, *(_sentences(loaded[split], f"{repository} ({language}, {split})") for split in SPLITS)
    )


def _sentences(rows: Any, where: str) -> list[Sentence]:
    feature = getattr(rows.features.get("ner_tags"), "feature", None)
    names = getattr(feature, "names", None)
    if names is None or set(names) != set(LABELS.tags):
        raise DataError(f"{where}: expected ner_tags with the labels {', '.join(LABELS.tags)}; found {names}")
    sentences = []
    for number, row in enumerate(rows):
        words, indices = row["tokens"] or [], row["ner_tags"] or []
        problem = _problem(words, indices, names)
        if problem:
            raise DataError(f"{where}, row {number}: {problem}; the words are {excerpt(' '.join(map(str, words)))}")
        if words:
            sentences.append(Sentence(tuple(words), tuple(names[index] for index in indices)))
    if not sentences:
        raise DataError(f"{where} holds no sentence")
    return sentences


def _problem(words: list[str], indices: list[int], names: list[str]) -> str | None:
    """The reason why a row is not a labelled sentence, or None if it is one."""
    if len(words) != len(indices):
        return f"{counted(len(words), 'word')} but {counted(len(indices), 'tag')}"
    if not all(words):
        return f"word {[bool(word) for word in words].index(False) + 1} of {len(words)} is missing or empty"
    if not all(index in range(len(names)) for index in indices):  # -1 means a missing label
        return f"a tag's index is not from 0 to {len(names) - 1}: {indices}"
    tags = [names[index] for index in indices]
    pairs = zip(["O", *tags], tags, strict=False)
    return next(filter(None, (LABELS.problem(previous, tag) for previous, tag in pairs)), None)


def _unloadable(repository: str, language: str, error: Exception) -> DataError:
    available = re.search(r"Available: \[(.*)\]", str(error), flags=re.DOTALL)
    if available:
        known = re.findall(r"[\w-]+", available[1])
        return DataError(f"{unknown_name('language', language, known)} in {repository}")
    return DataError(
        f"cannot load {repository!r} ({language}): {reason(error)}; check the network, or read CoNLL files from a "
        "folder with data: {name: conll, path: ...}"
    )
