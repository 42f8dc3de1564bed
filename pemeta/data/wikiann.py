"""WikiAnn, the data of the paper, from the Hugging Face hub."""

from __future__ import annotations

from functools import partial

from pemeta.data.corpus import Corpus
from pemeta.data.sentences import SPLITS
from pemeta.data.tables.arrow_files import dataset_table
from pemeta.data.tables.columns import TokenColumns
from pemeta.data.tables.hub import hub_splits
from pemeta.data.tables.reading import TableReading
from pemeta.data.tables.table import Table
from pemeta.errors import DataError

REPOSITORY = "unimelb-nlp/wikiann"
"""Repository of Parquet files with the splits of Rahimi et al. (2019), as in the paper (§4.1)."""

READING = TableReading(columns=TokenColumns(tokens="tokens", tags="ner_tags"), types=("PER", "ORG", "LOC"))
"""How its rows are read."""


def read_wikiann(language: str, repository: str = REPOSITORY, revision: str | None = None) -> Corpus:
    """The corpus of one WikiAnn language.

    Args:
        language: WikiAnn code of the language, such as ``af``.
        repository: Data set on the hub, or a folder with the same layout.
        revision: Commit, branch or tag of the repository; the newest if None.

    Raises:
        DataError: The hub cannot be reached, the language is unknown, or a row is not as WikiAnn's.
    """
    where = f"{repository} ({language})"
    found = hub_splits(repository, language, revision, None)
    lacking = [split for split in SPLITS if split not in found]
    if lacking:
        raise DataError(f"{where} lacks the split {lacking[0]!r}; found {', '.join(found)}")
    tables = {split: partial(_tables, found[split], f"{where}, {split}") for split in SPLITS}
    parts = READING.parts(language, tables, where)
    return Corpus(language, parts.labels, *(parts.splits[split] for split in SPLITS))


def _tables(rows: object, where: str) -> list[Table]:
    return [dataset_table(rows, where).not_empty()]
