"""How a model generates: with keys and values of earlier steps or without, and with prompts padded or not.

Both are faster, and neither need be right: a method may act on a whole sequence, a backbone may count padding, or keep
something else than keys and values. So the first use compares a few steps with passes of whole sequences.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from pemeta.backbone.attention import attention_of
from pemeta.errors import ModelError
from pemeta.model.pe_model import PEModel

STEPS = 3
"""Steps that are compared: that of the prompt, and two after it."""
TOLERANCE = {8: 1e-6, 4: 1e-4}
"""Difference of logits that rounding explains, of the largest one, by the bytes of a number; 0.1 for 16 bits."""


@dataclass(frozen=True)
class Way:
    """A way to generate.

    Attributes:
        cache: whether keys and values of earlier steps are kept.
        padded: whether prompts of different lengths run together, padded on the left.
    """

    cache: bool
    padded: bool


WAYS = (Way(True, True), Way(True, False), Way(False, True), Way(False, False))
"""Fastest first."""


class Steps(Protocol):
    """What is tried."""

    model: PEModel

    @property
    def room(self) -> int | None:
        """Most tokens that a sequence can have; None without a limit."""

    def steps(self, prompts: Sequence[Tensor], count: int, cache: bool) -> tuple[Tensor, Tensor]:
        """The next tokens (B, S) of prompts that run together, and the logits (B, S, V) of each step."""

    def logits_of(self, prompt: Tensor, tokens: Tensor) -> Tensor:
        """The logits (S, V) of tokens (S,) after a prompt, by one pass of the model."""


_found: WeakKeyDictionary[PEModel, dict[Hashable, tuple[int, Way]]] = WeakKeyDictionary()
"""By model and by all that matters: the longest prompt that was tried, and the way that was found."""


def way_for(generator: Steps, prompts: Sequence[Tensor], cache: bool = True) -> Way:
    """The fastest way that gives each prompt the logits that it has by itself.

    It is tried on the shortest and the longest prompt, once for the model with its methods, and again for prompts of
    more than twice the length.

    Args:
        generator: what generates.
        prompts: token ids, (T,) each.
        cache: whether keys and values may be kept.

    Raises:
        ModelError: there is none.
    """
    model = generator.model
    shortest, longest = min(prompts, key=len), max(prompts, key=len)
    tried = [shortest, longest] if len(shortest) < len(longest) else [longest]
    key = (repr(model.attached), attention_of(model.backbone), model.compute_dtype, len(tried), cache)
    known = _found.setdefault(model, {})
    if key in known and len(longest) <= 2 * known[key][0]:
        return known[key][1]
    count = STEPS if generator.room is None else min(STEPS, generator.room - len(longest))
    ways = [way for way in WAYS if (cache or not way.cache) and (way.padded or len(tried) > 1)]
    way = next((way for way in ways if count < 1 or _agrees(generator, tried, count, way)), None)
    if way is None:
        raise ModelError(
            f"{type(model.backbone).__name__} gives other logits in transformers' generate than in a pass of the "
            "model, so that it cannot generate here; use a backbone of another architecture"
        )
    if count == STEPS:
        known[key] = (len(longest), way)
    return way


def _agrees(generator: Steps, prompts: Sequence[Tensor], count: int, way: Way) -> bool:
    """Whether logits are those of passes of whole sequences, but for rounding."""
    for part in [prompts] if way.padded else [[prompt] for prompt in prompts]:
        try:
            tokens, logits = generator.steps(part, count, way.cache)
        except ModelError:
            raise
        except Exception:  # such as a class that needs keys and values, or cannot have any
            return False
        for prompt, own, found in zip(part, tokens, logits, strict=True):
            if not alike(found, generator.logits_of(prompt, own), generator.model.compute_dtype):
                return False
    return True


def alike(found: Tensor, expected: Tensor, computed_in: torch.dtype) -> bool:
    """Whether logits are equal but for rounding."""
    tolerance = TOLERANCE.get(computed_in.itemsize, 0.1) * max(1.0, float(expected.abs().max()))
    return bool(torch.allclose(found.double(), expected.double(), rtol=0, atol=tolerance))
