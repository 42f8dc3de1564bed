"""The positions that a backbone gives to the tokens of a sentence, and how many there may be."""

from __future__ import annotations

import inspect
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn


def position_ids(backbone: nn.Module, mask: Tensor) -> dict[str, Any]:
    """``position_ids`` that skip padding, as a keyword argument of the backbone; nothing if it takes none.

    By default a backbone counts padding too; padding on the left would then separate the sequence from the prefix or
    prompt before it.

    Args:
        backbone: the backbone.
        mask: attention mask (B, T), 0 at padding and 1 elsewhere.
    """
    if not takes_positions(backbone):
        return {}
    mask = mask.long()
    return {"position_ids": (mask.cumsum(1) - 1).clamp(min=0) * mask + first_position(backbone) * mask}


def takes_positions(backbone: nn.Module) -> bool:
    """Whether all positions that the backbone uses follow from its argument ``position_ids``."""
    return "position_ids" in inspect.signature(backbone.forward).parameters and not _relative(backbone)


def first_position(backbone: nn.Module) -> int:
    """Position of a sequence's first token: 0, 2 in Nyströmformer's kin, one after the padding index in RoBERTa's."""
    embeddings = getattr(backbone, "embeddings", None)
    if hasattr(embeddings, "create_position_ids_from_inputs_embeds"):
        padding: int = embeddings.padding_idx  # type: ignore[union-attr]
        return padding + 1
    own = getattr(embeddings, "position_ids", None)
    if not isinstance(embeddings, nn.Module) or type(own) is not Tensor or own.is_meta or not own.numel():
        return 0
    if embeddings not in _first:
        _first[embeddings] = int(own.flatten()[0])
    return _first[embeddings]


_first: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
"""The first position of embeddings that keep theirs in a buffer, read once: a device would be waited for."""


def padding_tokens(backbone: nn.Module) -> set[int]:
    """The tokens that pad, by the configuration and by the table of positions; some skip these when they count."""
    own = getattr(getattr(backbone, "embeddings", None), "padding_idx", None)
    found = (getattr(getattr(backbone, "config", None), "pad_token_id", None), own)
    return {token for token in found if isinstance(token, int)}


def position_limit(backbone: nn.Module) -> int | None:
    """Most positions that a sequence may have, by the backbone's tables of positions; None if it has no table."""
    limits = []
    for name, weight in backbone.named_parameters():
        path, _, kind = name.rpartition(".")
        table = path.rpartition(".")[2]
        if kind == "weight" and (table == "wpe" or ("position" in table and "relative" not in table)):
            module = backbone.get_submodule(path)
            if "Embedding" in type(module).__name__:
                # OPT's table has an offset of its own, which its positions do not include.
                limits.append(weight.shape[0] - (getattr(module, "offset", None) or first_position(backbone)))
    return min(limits, default=None)


def rotary(backbone: nn.Module) -> bool:
    """Whether the backbone rotates queries and keys by their positions."""
    return getattr(getattr(backbone, "config", None), "rope_parameters", None) is not None


def _relative(backbone: nn.Module) -> bool:
    """Whether the backbone also uses relative positions that ``position_ids`` do not affect, like DeBERTa."""
    return bool(getattr(getattr(backbone, "config", None), "relative_attention", False))
