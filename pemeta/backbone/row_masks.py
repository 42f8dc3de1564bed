"""Masks that keep the sentences in a row apart, for each kind of layer that a backbone has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

NEAR = "near_attention_mask"
"""Name of the mask of layers with a sliding window, among the inputs of a pass, where other layers have none."""


@dataclass(frozen=True)
class Form:
    """How a backbone takes rows of sentences.

    Attributes:
        causal: whether a token attends to the tokens before it only.
        positions: number of a sentence's first position where positions are given; None if the backbone takes none.
        additive: whether the mask (R, 1, L, L) is added to the scores, 0 or the lowest number; else it is (R, L, L), 1
            or 0.
        near: how far apart tokens are at most that attend to each other in layers with a sliding window; None without.
        mixed: whether other layers have no window.
        alone: whether each row holds one sentence, which the ordinary mask (R, L) of padding is for.
    """

    causal: bool
    positions: int | None
    additive: bool = True
    near: int | None = None
    mixed: bool = False
    alone: bool = False


ALONE = Form(causal=False, positions=None, alone=True)
"""Rows of one sentence each, as any backbone takes them."""


def row_masks(segments: Tensor, form: Form, dtype: torch.dtype) -> dict[str, Tensor]:
    """The masks of a pass by name, from the sentence at each place (R, L)."""
    if form.alone:
        return {"attention_mask": (segments >= 0).long()}
    if not form.mixed:
        return {"attention_mask": mask_of(segments, form, dtype, form.near)}
    return {"attention_mask": mask_of(segments, form, dtype), NEAR: mask_of(segments, form, dtype, form.near)}


def mask_of(segments: Tensor, form: Form, dtype: torch.dtype, near: int | None = None) -> Tensor:
    """The mask that lets tokens attend to those of their own sentence, from the sentence at each place (R, L).

    What is in no sentence attends to its like, because a softmax over nothing is not defined.
    """
    seen = segments[:, :, None] == segments[:, None, :]
    if form.causal:
        seen = seen.tril()
    if near is not None:
        seen = seen.tril(near).triu(-near)
    if not form.additive:
        return seen.long()
    lowest = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=segments.device)
    return torch.where(seen, lowest.new_zeros(()), lowest)[:, None]


def by_kind_of_layer(inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs of a pass, with masks in the form in which transformers takes one for each kind of layer."""
    if NEAR not in inputs:
        return inputs
    inputs = dict(inputs)
    masks = {"full_attention": inputs["attention_mask"], "sliding_attention": inputs.pop(NEAR)}
    return {**inputs, "attention_mask": masks}


def has_mixed_layers(backbone: nn.Module) -> bool:
    """Whether the configuration says that some layers have a sliding window and the others none."""
    kinds = getattr(getattr(backbone, "config", None), "layer_types", None) or ()
    return set(kinds) == {"full_attention", "sliding_attention"}


def windows(backbone: nn.Module) -> list[int]:
    """Numbers in the configuration that by their names say how wide attention in some layers is."""
    config = getattr(backbone, "config", None)
    return sorted(set(_windows(config.to_dict()))) if config is not None else []


def _windows(config: Mapping[str, Any]) -> Iterator[int]:
    for key, value in config.items():
        name = str(key)
        if isinstance(value, Mapping):
            yield from _windows(value)
        elif any(word in name for word in _LOCAL) and "layer" not in name:
            found = value if isinstance(value, list | tuple) else [value]
            yield from (size for size in found if type(size) is int and size > 1)


_LOCAL = ("window", "local_attention", "chunk_size", "local_radius", "block_size")


def reaches(backbone: nn.Module) -> list[int]:
    """How far a window may let a token see: some count both sides of it, and the token itself or not."""
    return list(dict.fromkeys(reach for n in windows(backbone) for reach in (n - 1, n // 2, n, n // 2 - 1) if reach))
