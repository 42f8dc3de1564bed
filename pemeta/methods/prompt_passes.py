"""Passes of a backbone with a prompt: learned vectors before the embedded tokens, whose hidden states are dropped."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pemeta.backbone.packing import SLOTS
from pemeta.backbone.positions import position_ids, position_limit
from pemeta.errors import ModelError
from pemeta.methods.positions import (
    PaddingLast,
    has_positions,
    keeps_cache,
    named_arguments,
    padding_on_the_left,
    rotated,
)

CHILD = "pemeta_prompt"


class SoftTokens(nn.Module):
    """P learned vectors (P, E), where E is the width of the embeddings."""

    def __init__(self, initial: Tensor) -> None:
        super().__init__()
        self.tokens = nn.Parameter(initial)

    def forward(self, embedded: Tensor) -> Tensor:
        """Map (B, T, E) to (B, P + T, E)."""
        return torch.cat([self.tokens.to(embedded.dtype).expand(len(embedded), -1, -1), embedded], dim=1)


PADDING_LAST = PaddingLast("prompt")
_ALL: ContextVar[bool] = ContextVar("all", default=False)
"""Whether a thread's current pass gives nothing of a prompt's, since it has none, or in places that are not read."""


def embed(backbone: nn.Module, arguments: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Embed the backbone's input, prepend the prompt to it, and extend mask and token types (a forward pre-hook)."""
    given = named_arguments(backbone, arguments, kwargs)
    if given.get(SLOTS) is not None:
        return _embed_rows(backbone, given)
    given.pop(SLOTS, None)
    _check_arguments(given)
    if given.get("past_key_values") is not None and given["past_key_values"].get_seq_length():
        return _continue(backbone, given)
    _ALL.set(False)  # of a pass that failed
    left = None
    if keeps_cache(backbone, given):  # later passes look for a token's keys where it was given
        PADDING_LAST.leave()
        left = padding_on_the_left(given.get("attention_mask"))
    else:
        given = PADDING_LAST.before(given)
    ids, embedded = given.pop("input_ids", None), given.pop("inputs_embeds", None)
    if embedded is None:
        embedded = embedded_tokens(backbone, ids)
    widened = _beside(getattr(backbone, CHILD), embedded, left)
    prompt = widened.shape[1] - embedded.shape[1]
    _check_length(backbone, widened.shape[1], prompt)
    for key, value in given.items():
        if key in ("attention_mask", "token_type_ids") or has_positions(value, embedded.shape[:2]):
            given[key] = _extended(value, prompt, int(key == "attention_mask"), left)
    given["inputs_embeds"] = widened
    mask = given.get("attention_mask")
    if mask is not None:
        given |= position_ids(backbone, mask)
    return (), given


def _continue(backbone: nn.Module, given: dict[str, Any]) -> Any:
    """Continue sentences whose keys and values are given, those of the prompt among them."""
    PADDING_LAST.leave()
    _ALL.set(True)
    mask, prompt = given.get("attention_mask"), len(getattr(backbone, CHILD).tokens)
    if mask is not None:
        own: Tensor = given["inputs_embeds"] if given.get("input_ids") is None else given["input_ids"]
        whole = _extended(mask, prompt, 1, padding_on_the_left(mask))
        assert whole is not None  # as the mask is not
        _check_length(backbone, whole.shape[1], prompt)
        given["attention_mask"] = whole
        given |= {key: value[:, -own.shape[1] :] for key, value in position_ids(backbone, whole).items()}
    return (), given


def _embed_rows(backbone: nn.Module, given: dict[str, Any]) -> Any:
    """Embed rows of several sentences, and put the prompt into the places before each that are left for it."""
    PADDING_LAST.leave()
    slots: Tensor = given.pop(SLOTS)
    embedded = embedded_tokens(backbone, given.pop("input_ids"))
    tokens = getattr(backbone, CHILD).tokens.to(embedded.dtype)
    vectors = tokens.index_select(0, slots.clamp(min=0).flatten()).view(*slots.shape, -1)
    _ALL.set(True)
    return (), {**given, "inputs_embeds": torch.where((slots >= 0)[..., None], vectors, embedded)}


def embedded_tokens(backbone: nn.Module, ids: Tensor) -> Tensor:
    """The embeddings (B, T, E) of token ids."""
    found = backbone.get_input_embeddings()(ids)  # type: ignore[operator]
    if not isinstance(found, tuple):
        return found  # type: ignore[no-any-return]
    if any(other is not None for other in found[1:]):  # I-BERT's, which are integers with a scale
        raise ModelError(
            f"{type(backbone).__name__} embeds tokens as quantised vectors, which a prompt cannot be prepended to; "
            "load it with quant_mode=False"
        )
    return found[0]  # type: ignore[no-any-return]


def _check_arguments(given: dict[str, Any]) -> None:
    """Refuse what a prompt would silently make wrong."""
    if given.get("position_ids") is not None:
        raise ModelError("a prompt shifts positions, so position_ids cannot be given; omit them")
    past = given.get("past_key_values")
    if past is not None and not hasattr(past, "get_seq_length"):
        raise ModelError(
            f"keys and values of earlier passes, the prompt's among them, are a Cache of transformers; found a "
            f"{type(past).__name__}; run the whole sequence in one pass (use_cache=False)"
        )
    mask = given.get("attention_mask")
    if mask is not None and mask.ndim != 2:
        raise ModelError(
            f"a prompt extends the attention mask, which must have one row for each sentence; found the shape "
            f"{tuple(mask.shape)}; give the mask as (sentences, tokens)"
        )


def _extended(value: Tensor | None, prompt: int, fill: int, left: Tensor | None = None) -> Tensor | None:
    """An argument (B, T, ...) with entries for the prompt before a sentence's own, which ``left`` others precede."""
    if value is None:
        return None
    pads = ((0, 0) * (value.ndim - 2)) + (prompt, 0)
    return _beside(lambda own: F.pad(own, pads, value=fill), value, left)


def _beside(prepend: Callable[[Tensor], Tensor], value: Tensor, left: Tensor | None) -> Tensor:
    """What ``prepend`` makes of (B, T, ...), where ``left`` (B) entries of padding stay before what is prepended."""
    return prepend(value) if left is None else rotated(prepend(rotated(value, left)), -left)


def strip(backbone: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
    """Remove the prompt's hidden states from the backbone's output (a forward hook)."""
    holder = backbone if CHILD in backbone._modules else backbone.get_submodule("embeddings")
    if holder is backbone and _ALL.get():  # else it is of another model's pass, which has ended early
        _ALL.set(False)
        return output
    prompt = getattr(holder, CHILD).tokens.shape[0]
    output.last_hidden_state = output.last_hidden_state[:, prompt:]
    return PADDING_LAST.after(output) if holder is backbone else output


def _check_length(backbone: nn.Module, length: int, prompt: int) -> None:
    """Refuse a sequence that exceeds the table of positions, which PyTorch would report as an index error."""
    limit = position_limit(backbone)
    if limit is not None and length > limit:
        room = limit - prompt
        raise ModelError(
            f"{length - prompt} tokens and a prompt of {prompt} do not fit the backbone's {limit} positions; "
            f"{f'lower max_length to {room}' if room > 2 else 'shorten the prompt'}"
        )
