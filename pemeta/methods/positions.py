"""Positions that do not depend on padding, for methods that put something before the sequence."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from pemeta.errors import ModelError


def position_ids(backbone: nn.Module, mask: Tensor) -> dict[str, Any]:
    """``position_ids`` that count only what is not padding, as a keyword argument of the backbone.

    Left to itself, a backbone counts padding too: padding on the left would then stand between what a method put
    before the sequence and the sequence.

    Args:
        backbone: the backbone.
        mask: (B, T), 1 where there is no padding.

    Raises:
        ModelError: the backbone takes no ``position_ids``, and there is padding on the left.
    """
    mask = mask.long()
    if "position_ids" not in inspect.signature(backbone.forward).parameters or _relative(backbone):
        if bool((mask[:, -1:] > mask).any()):
            raise ModelError(
                f"{type(backbone).__name__} counts padding as positions, so with this method it must be on the right; "
                "set padding_side to right on the tokenizer"
            )
        return {}
    return {"position_ids": (mask.cumsum(1) - 1).clamp(min=0) * mask + first_position(backbone) * mask}


def first_position(backbone: nn.Module) -> int:
    """The position of a sequence's first piece: behind the padding index in RoBERTa and its kin, else 0."""
    embeddings = getattr(backbone, "embeddings", None)
    if hasattr(embeddings, "create_position_ids_from_inputs_embeds"):
        padding: int = embeddings.padding_idx  # type: ignore[union-attr]
        return padding + 1
    return 0


def rotary(backbone: nn.Module) -> bool:
    """Whether the backbone rotates queries and keys by their positions."""
    return getattr(getattr(backbone, "config", None), "rope_parameters", None) is not None


def _relative(backbone: nn.Module) -> bool:
    """Whether the backbone has ways of its own to count, beside ``position_ids``, as DeBERTa."""
    return bool(getattr(getattr(backbone, "config", None), "relative_attention", False))
