"""Files as the hub has them for WikiAnn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, Features, Sequence, Value

TAGS = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"]


SPLITS = ("train", "validation", "test")


def rows_to_parquet(path: Path, rows: list[tuple[list[str], list[int]]], names: list[str]) -> None:
    features = Features(
        {
            "tokens": Sequence(Value("string")),
            "ner_tags": Sequence(ClassLabel(names=names)),
            "langs": Sequence(Value("string")),
            "spans": Sequence(Value("string")),
        }
    )
    columns: dict[str, list[Any]] = {
        "tokens": [tokens for tokens, _ in rows],
        "ner_tags": [tags for _, tags in rows],
        "langs": [["af"] * len(tokens or ()) for tokens, _ in rows],
        "spans": [[] for _ in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_dict(columns, features=features).to_parquet(path)
