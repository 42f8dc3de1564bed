"""All architectures by name: the sixteen of the full contract suite, those that must work, and others."""

from __future__ import annotations

import copy
from functools import cache

import architectures
import torch
import transformers as t
from torch import Tensor
from zoo.named import NAMED
from zoo.unnamed import UNNAMED

ROWS = {name: row for name, row in {**NAMED, **UNNAMED}.items() if row.model_class is not None}
LACKING = tuple(name for name in (*NAMED, *UNNAMED) if name not in ROWS)
"""What the installed version of transformers does not have."""
SIXTEEN = tuple(architectures.ARCHITECTURES)
PROMISED = (*SIXTEEN, *(name for name in NAMED if name in ROWS))
ALL = (*SIXTEEN, *ROWS)


def backbone(name: str) -> t.PreTrainedModel:
    """A new backbone in float64, eager attention and evaluation mode; the same values each time."""
    return copy.deepcopy(untouched(name))


@cache
def untouched(name: str) -> t.PreTrainedModel:
    """The one that the others are copies of; some (BigBird) replace parts of themselves in their first pass."""
    made = architectures.backbone(name) if name in SIXTEEN else ROWS[name].backbone()
    with torch.no_grad():
        made(**inputs(name))
    return made


def inputs(name: str, seed: int = 0) -> dict[str, Tensor]:
    """Two padded sentences, two images, or two recordings, of one size whatever the seed."""
    if name in SIXTEEN:
        return {key: value for key, value in architectures.batch(name, seed).items() if key != "labels"}
    return ROWS[name].inputs(seed)


def batch(name: str, seed: int = 0) -> dict[str, Tensor]:
    """The inputs, with a label for each hidden state, except those of padding."""
    found, generator = inputs(name, seed), torch.Generator().manual_seed(100 + seed)
    labels = torch.randint(0, 3, (2, positions(name)), generator=generator)
    mask = found.get("attention_mask")
    if mask is not None:
        every = mask.shape[1] // labels.shape[1]  # of a recording, a hidden state covers several samples
        labels[mask[:, ::every][:, : labels.shape[1]] == 0] = -100
    return {**found, "labels": labels}


@cache
def positions(name: str) -> int:
    """Number of hidden states of a sequence; 1 if the backbone gives something else than a sequence of them."""
    hidden = plain_states(name)
    return hidden.shape[1] if hidden is not None else 1


@cache
def plain_states(name: str) -> Tensor | None:
    """The last hidden states of the inputs without any method; None if they are no sequence (B, T, D)."""
    whole = untouched(name)
    with torch.no_grad():
        hidden = getattr(whole(**inputs(name)), "last_hidden_state", None)
    return hidden if isinstance(hidden, Tensor) and hidden.ndim == 3 else None
