"""A row for each kind of task: examples of three tiny tasks as rows of a table, and the backbone that they need."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from conftest import LANGUAGES, SIZES, make_sentence


@dataclass(frozen=True)
class Kind:
    """What the tests need to know of a kind of task.

    Attributes:
        task: the kind, as a configuration has it.
        row: an example of a task, which can be learned from.
        causal: whether its backbone is a causal language model.
        seen: a training example that stands among the test examples too, of which as many are then unseen less; None
            where the kind does not tell.
    """

    task: str | dict[str, Any]
    row: Callable[[np.random.Generator, str], Mapping[str, Any]]
    causal: bool = False
    seen: bool = True

    @property
    def name(self) -> str:
        return self.task if isinstance(self.task, str) else self.task["name"]


def tagged(rng: np.random.Generator, language: str) -> Mapping[str, Any]:
    words, tags = zip(*make_sentence(rng, language), strict=True)
    return {"tokens": words, "tags": tags}


def labelled(rng: np.random.Generator, language: str) -> Mapping[str, Any]:
    """Words, of which one is a name: a person's or a place's."""
    people, _, places, common = (words.split() for words in LANGUAGES[language])
    label = ("person", "place")[int(rng.integers(2))]
    name = str(rng.choice(people if label == "person" else places))
    return {"text": " ".join([*map(str, rng.choice(common, 3)), name]), "label": label}


def numbered(rng: np.random.Generator, language: str) -> Mapping[str, Any]:
    row = labelled(rng, language)
    return {"text": row["text"], "label": 1.0 if row["label"] == "place" else -1.0}


def several(rng: np.random.Generator, language: str) -> Mapping[str, Any]:
    one, other = labelled(rng, language), labelled(rng, language)
    return {"text": f"{one['text']} {other['text']}", "labels": sorted({one["label"], other["label"]})}


def completed(rng: np.random.Generator, language: str) -> Mapping[str, Any]:
    """After a name comes the language's first common word or its last one."""
    row, common = labelled(rng, language), LANGUAGES[language][-1].split()
    return {"prompt": row["text"], "completion": f" {common[0] if row['label'] == 'person' else common[-1]}"}


def written(rng: np.random.Generator, language: str) -> Mapping[str, Any]:
    return {"text": " ".join(word for word, _ in make_sentence(rng, language))}


FEW = {"name": "completion", "max_new_tokens": 3}
KINDS = {
    "token_classification": Kind("token_classification", tagged),
    "sequence_classification": Kind("sequence_classification", labelled),
    "several-labels": Kind({"name": "sequence_classification", "problem": "multi_label"}, several),
    "regression": Kind({"name": "sequence_classification", "problem": "regression", "metrics": ["mse"]}, numbered),
    "completion": Kind(FEW, completed, causal=True),
    "choice": Kind({"name": "completion", "answers": "candidates"}, completed, causal=True),
    "language_model": Kind("language_model", written, causal=True, seen=False),
    "masked_language_model": Kind("masked_language_model", written, seen=False),
}
FIRST_OF_TEST, FIRST_OF_TRAIN = 0, 0


def write_rows(folder: Path, kind: Kind) -> Path:
    """Files of JSON lines with the rows of three tasks, whose first test example is also one of training."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[str]] = {split: [] for split in SIZES}
    for number, language in enumerate(LANGUAGES):
        rng = np.random.default_rng(number)
        rows = {split: [kind.row(rng, language) for _ in range(size)] for split, size in SIZES.items()}
        rows["test"][FIRST_OF_TEST] = rows["train"][FIRST_OF_TRAIN]
        for split, own in rows.items():
            found[split] += [json.dumps({"task": language, **row}, ensure_ascii=False) for row in own]
    for split, lines in found.items():
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
