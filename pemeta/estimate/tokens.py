"""How many positions of a batch are tokens, and in which rows a packed batch has them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel

from pemeta.backbone.loading import random_backbone_of
from pemeta.backbone.output_kinds import OutputKind
from pemeta.backbone.packed_passes import Padding, pays
from pemeta.backbone.packing import Plan, plan
from pemeta.errors import PemetaError
from pemeta.experiments.config import GridConfig
from pemeta.methods.base import PEMethod
from pemeta.model.pe_model import PEModel
from pemeta.utils.hub import quiet

ASSUMED = 0.46
"""Share of the positions of a random batch of 16 sentences that are tokens, in WikiAnn's English."""
BATCH = 16
FEW = 1000
"""Tokens that are enough to try rows with."""
READ = 512
"""Most training sentences of each source that are read to find that share."""


@dataclass(frozen=True)
class Layout:
    """Batches whose sentences have different lengths, the longest ``length``, and how they run.

    Attributes:
        length: tokens of the longest sentence.
        share: share of a padded batch's positions that are tokens.
        padding: how batches run.
        backbone: configuration of what they run through.
        limit: most positions of a row.
    """

    length: int
    share: float = 1.0
    padding: Padding = "padded"
    backbone: PreTrainedConfig | None = None
    limit: int | None = None

    def lengths(self, number: int) -> tuple[int, ...]:
        """Tokens of each sentence of a batch: the longest, and others that fall off as a power of their place does."""
        left = max(number, round(self.share * number * self.length)) - self.length
        if number == 1 or left <= number - 1:
            return (self.length, *[1] * (number - 1))
        mean = left / (number - 1) / self.length
        places = (np.arange(number - 1) + 0.5) / (number - 1)
        ends = np.round(np.cumsum(_falling(places, mean) * self.length)).astype(int)
        return (self.length, *(max(1, int(size)) for size in np.diff(ends, prepend=0)))

    def rows(self, number: int) -> Plan | None:
        """The rows of a batch of so many sentences; None if it runs padded."""
        if self.padding == "padded":
            return None
        planned = plan(self.lengths(number), getattr(self.backbone, "hidden_size", None) or 1, limit=self.limit)
        faster = self.backbone is not None and pays(planned, self.length, self.backbone)
        return planned if faster or self.padding == "packed" else None

    def tokens(self, number: int) -> int:
        """Tokens of a batch of so many sentences."""
        return sum(self.lengths(number))

    def positions(self, number: int) -> int:
        """Positions of a batch of so many sentences, as it runs."""
        planned = self.rows(number)
        return number * self.length if planned is None else len(planned.rows) * planned.length

    def examples(self, most: int) -> int:
        """Number of sentences in a batch of at most so many tokens; padding counts where batches are padded."""
        each = self.length * (self.share if self.padding == "packed" else 1.0)
        return max(1, int(most / each))


def _falling(places: np.ndarray, mean: float) -> np.ndarray:
    """Shares that fall from 1 to 0, or less far, and have this mean."""
    values: np.ndarray = (1 - places) ** max(0.0, 1 / mean - 1)
    shares: np.ndarray = np.minimum(1.0, values * (mean / values.mean()))
    return shares


def share_of(config: GridConfig) -> float | None:
    """Share of positions of random batches of the sources that are tokens, counted in words; None if unknown.

    Sentences are read only from files that are at hand.
    """
    if not config.data.at_hand:
        return None
    shares = []
    try:
        for language in config.sources or config.targets:
            read = islice(config.data.streams(language)["train"].read(), READ)
            shares.append(_share([len(sentence.words) for sentence in read], config.max_length))
    except PemetaError:  # a run tells what is wrong
        return None
    return float(np.mean(shares)) if shares else None


def _share(words: Sequence[int], limit: int | None) -> float:
    lengths = np.random.default_rng(0).permutation(np.minimum(np.array(words) + 2, limit or 10**9))
    batches = [lengths[start : start + BATCH] for start in range(0, len(lengths), BATCH)]
    return float(lengths.sum() / sum(len(batch) * batch.max() for batch in batches))


def packs(backbone: PreTrainedConfig, attention: str | None, methods: Sequence[PEMethod]) -> bool:
    """Whether a backbone computes the same on rows of sentences, tried with a small vocabulary and random weights."""
    with torch.random.fork_rng(), quiet():
        made = _with_few_tokens(backbone, attention)
        model = PEModel(made, methods[0])
        for method in methods[1:]:
            model.attach(method)
        model.padding = "packed"
        return model.packs


def logits_of(backbone: PreTrainedConfig, output: OutputKind | None, method: PEMethod) -> tuple[bool, bool]:
    """Whether a language model's logits are a product, and nothing else, tried with random weights in one layer.

    Taken to be so where no such model can be made.
    """
    small = copy.deepcopy(backbone)
    text = small.get_text_config()
    text.vocab_size, text.num_hidden_layers = min(FEW, text.vocab_size), 1
    if isinstance(getattr(text, "layer_types", None), list):
        text.layer_types = text.layer_types[:1]
    try:
        with torch.random.fork_rng(), quiet():
            found = PEModel(random_backbone_of(small, type(backbone).__name__, output=output), method).output
    except Exception:  # of whatever kind its code raises
        found = None
    return (True, True) if found is None else (found.factored, found.plain)


def _with_few_tokens(backbone: PreTrainedConfig, attention: str | None) -> PreTrainedModel:
    """A backbone with random weights, and a small vocabulary unless it needs its own, as for a token that pads."""
    small, where = copy.deepcopy(backbone), type(backbone).__name__
    try:
        small.vocab_size = min(FEW, backbone.vocab_size)
        return random_backbone_of(small, where, attention)
    except Exception:  # of whatever kind its code raises
        return random_backbone_of(backbone, where, attention)
