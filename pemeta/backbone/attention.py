"""The attention implementation that a backbone was loaded with."""

from __future__ import annotations

from torch import nn

PREFIXED = "pemeta_prefix_"
"""Start of the names, in transformers' attention interface, of attention with learned prefix keys and values."""


def attention_of(backbone: nn.Module) -> str:
    """The attention implementation of a backbone: ``eager``, ``sdpa`` etc., whether or not it has a prefix."""
    name = getattr(getattr(backbone, "config", None), "_attn_implementation", None)
    return str(name or "eager").removeprefix(PREFIXED)
