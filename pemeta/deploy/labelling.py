"""Labels for texts by a task that is in place in a model: for each word, or for each text or pair of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from pemeta.data.words import tokenize_words
from pemeta.deploy.predictions import Classified, Estimated, Labelled, Tagged, tagged
from pemeta.deploy.windows import windows
from pemeta.errors import DataError
from pemeta.heads import SequenceClassification, TokenClassification
from pemeta.model.pe_model import PEModel
from pemeta.model.task_files import TaskManifest
from pemeta.typing import Batch

LENGTH = 128
"""Most tokens of a text if the task does not say, as in :func:`pemeta.encode` and :func:`pemeta.encode_texts`."""


@dataclass(frozen=True)
class InPlace:
    """A task whose θ_a and head are in a model.

    Attributes:
        model: the model.
        tokenizer: its tokenizer.
        task: name of the task in the model.
        manifest: what its folder says of it.
        batch_size: number of texts in a batch.
    """

    model: PEModel
    tokenizer: PreTrainedTokenizerBase
    task: str
    manifest: TaskManifest
    batch_size: int

    @property
    def length(self) -> int:
        """Most tokens of a text, or of a window of one."""
        return min(self.manifest.max_length or LENGTH, self.tokenizer.model_max_length)


def tag(place: InPlace, texts: Sequence[tuple[str, ...]], spec: TokenClassification, stride: int) -> list[Tagged]:
    """Labels for each word of each text, which is cut into windows where it is too long."""
    tokens = iter(tokenize_words([words for words in texts if words], place.tokenizer))
    cut = [windows(next(tokens), place.length, stride) if words else [] for words in texts]
    ids = [window.ids for text in cut for window in text]
    rows = iter(row.softmax(-1) for row in _logits(place, ids))
    return [
        tagged(
            words,
            {word: row[i] for window, row in zip(text, rows, strict=False) for word, i in window.first_tokens.items()},
            spec,
        )
        for words, text in zip(texts, cut, strict=True)
    ]


def classify(
    place: InPlace, texts: Sequence[str | tuple[str, str]], spec: SequenceClassification
) -> list[Classified] | list[Labelled] | list[Estimated]:
    """A label, labels or numbers for each text, or pair of texts.

    Raises:
        DataError: a text has no token.
    """
    if not texts:
        return []
    options: dict[str, Any] = {"truncation": True, "max_length": place.length}
    first = [text if isinstance(text, str) else text[0] for text in texts]
    if spec.pairs:
        options["text_pair"] = [text[1] for text in texts]
    encoded = place.tokenizer(first, **options)
    unknown = [i for i, ids in enumerate(encoded["input_ids"]) if not ids]
    if unknown:
        raise DataError(f"text {unknown[0] + 1} of {len(texts)} has no token in this vocabulary; remove it")
    types = encoded.get("token_type_ids") if spec.pairs else None
    rows = _logits(place, encoded["input_ids"], types)
    return [_ANSWERS[spec.problem](text, row, spec.labels) for text, row in zip(texts, rows, strict=True)]


def _one(text: str | tuple[str, str], logits: Tensor, labels: Sequence[str]) -> Classified:
    """The most probable label."""
    scores = logits.softmax(-1)
    best = int(scores.argmax())
    return Classified(text, labels[best], float(scores[best]))


def _several(text: str | tuple[str, str], logits: Tensor, labels: Sequence[str]) -> Labelled:
    """Every label that is more probable than not."""
    scores = dict(zip(labels, logits.sigmoid().tolist(), strict=True))
    chosen = tuple(label for label, value in zip(labels, logits.tolist(), strict=True) if value > 0)
    return Labelled(text, chosen, scores)


def _numbers(text: str | tuple[str, str], logits: Tensor, labels: Sequence[str]) -> Estimated:
    """A number for each target."""
    return Estimated(text, dict(zip(labels, logits.tolist(), strict=True)))


_ANSWERS: dict[str, Any] = {"single_label": _one, "multi_label": _several, "regression": _numbers}


def _logits(place: InPlace, ids: Sequence[list[int]], types: Sequence[list[int]] | None = None) -> list[Tensor]:
    """Logits in float32, on the CPU: (T, C) or (C) for each text."""
    found: list[Tensor] = [torch.empty(0)] * len(ids)
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    for start in range(0, len(order), place.batch_size):
        chosen = order[start : start + place.batch_size]
        batch = _batch(place, [ids[i] for i in chosen], None if types is None else [types[i] for i in chosen])
        for i, row in zip(chosen, place.model(batch, place.task).float().cpu(), strict=True):
            found[i] = row
    return found


def _batch(place: InPlace, ids: list[list[int]], types: list[list[int]] | None) -> Batch:
    rows = [torch.tensor(row) for row in ids]
    pad = place.tokenizer.pad_token_id or 0
    batch = {
        "input_ids": pad_sequence(rows, batch_first=True, padding_value=pad),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
    }
    if types is not None:
        batch["token_type_ids"] = pad_sequence([torch.tensor(row) for row in types], batch_first=True)
    return place.model.placed(batch)
