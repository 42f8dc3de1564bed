"""Positions that do not depend on padding, for methods that prepend something to the sequence."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from pemeta.errors import ModelError


def position_ids(backbone: nn.Module, mask: Tensor) -> dict[str, Any]:
    """``position_ids`` that skip padding, as a keyword argument of the backbone.

    By default a backbone counts padding too; padding on the left would then separate the sequence from the prefix or
    prompt before it.

    Args:
        backbone: the backbone.
        mask: attention mask (B, T), 0 at padding and 1 elsewhere.

    Raises:
        ModelError: the backbone takes no ``position_ids``, and there is padding on the left.
    """
    mask = mask.long()
    if "position_ids" not in inspect.signature(backbone.forward).parameters or _relative(backbone):
        if bool((mask[:, -1:] > mask).any()):
            raise ModelError(
                f"{type(backbone).__name__} counts padding as positions, so this method needs padding on the right; "
                "set the tokenizer's padding_side to 'right'"
            )
        return {}
    return {"position_ids": (mask.cumsum(1) - 1).clamp(min=0) * mask + first_position(backbone) * mask}


def first_position(backbone: nn.Module) -> int:
    """Position of a sequence's first token: one after the padding index in RoBERTa and its kin, otherwise 0."""
    embeddings = getattr(backbone, "embeddings", None)
    if hasattr(embeddings, "create_position_ids_from_inputs_embeds"):
        padding: int = embeddings.padding_idx  # type: ignore[union-attr]
        return padding + 1
    return 0


def rotary(backbone: nn.Module) -> bool:
    """Whether the backbone rotates queries and keys by their positions."""
    return getattr(getattr(backbone, "config", None), "rope_parameters", None) is not None


def _relative(backbone: nn.Module) -> bool:
    """Whether the backbone also uses relative positions that ``position_ids`` do not affect, like DeBERTa."""
    return bool(getattr(getattr(backbone, "config", None), "relative_attention", False))
