"""WikiAnn, the paper's data, from the Hugging Face hub."""

from __future__ import annotations

import re
from typing import Any

from pemeta.data.sentences import SPLITS, Corpus, LabelSet, Sentence
from pemeta.errors import DataError, unknown_name

REPOSITORY = "unimelb-nlp/wikiann"
"""Parquet files with the splits of Rahimi et al. (2019), as in the paper (§4.1)."""

LABELS = LabelSet(("PER", "ORG", "LOC"))


def read_wikiann(language: str, repository: str = REPOSITORY, revision: str | None = None) -> Corpus:
    """One language of WikiAnn.

    Args:
        language: WikiAnn's code, such as ``af``.
        repository: a data set on the hub, or a folder of the same layout.
        revision: a commit, branch or tag of the repository; by default its newest.

    Raises:
        DataError: the hub cannot be reached, the language is unknown, or the labels are not WikiAnn's.
    """
    import datasets  # here, because it takes a second to import and CoNLL files do not need it

    try:
        loaded = datasets.load_dataset(repository, language, revision=revision)
    except Exception as error:  # the hub, pyarrow and datasets raise nearly anything here
        raise _unloadable(repository, language, error) from None
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
        tags = tuple(names[index] for index in row["ner_tags"])
        for previous, tag in zip(("O", *tags), tags, strict=False):
            problem = LABELS.problem(previous, tag)
            if problem:
                raise DataError(f"{where}, row {number}: {problem}; the words are {' '.join(row['tokens'])[:80]!r}")
        if tags:
            sentences.append(Sentence(tuple(row["tokens"]), tags))
    if not sentences:
        raise DataError(f"{where} holds no sentence")
    return sentences


def _unloadable(repository: str, language: str, error: Exception) -> DataError:
    available = re.search(r"Available: \[(.*)\]", str(error), flags=re.DOTALL)
    if available:
        known = re.findall(r"[\w-]+", available[1])
        return DataError(f"{unknown_name('language', language, known)} in {repository}")
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return DataError(
        f"cannot load {repository!r} ({language}): {reason}; check the network, or read CoNLL files from a folder "
        "with data: {name: conll, path: ...}"
    )
