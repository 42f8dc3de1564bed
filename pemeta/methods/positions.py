"""Positions that do not depend on padding, for methods that prepend something to the sequence."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from pemeta.errors import ModelError


class PaddingLast:
    """A pass of a backbone on sentences that are padded on the left, with their padding moved to the right.

    What a method prepends is then next to a sentence's first token, whatever a backbone takes distances from:
    positions, tables of relative ones, a sliding window. Padding is moved before a pass, and the hidden states are
    moved back after it. Batches that are padded on the right only are left as they are.

    Args:
        name: Name of the method that prepends.
    """

    def __init__(self, name: str) -> None:
        # Of a thread's current pass, which hooks before and after it share.
        self._moved: ContextVar[tuple[Tensor, int] | None] = ContextVar(name, default=None)

    def before(self, given: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a pass, with the padding of all that has positions on the right."""
        mask = given.get("attention_mask")
        left = _padding_on_the_left(mask)
        if mask is None or left is None:
            self.leave()
            return given
        self._moved.set((left, mask.shape[1]))
        moved = {key: _rotated(value, left) for key, value in given.items() if has_positions(value, mask.shape)}
        return given | moved

    def leave(self) -> None:
        """Let a pass be as it is."""
        self._moved.set(None)

    def after(self, output: Any) -> Any:
        """The output of the pass, with its last hidden states where they belong.

        Raises:
            ModelError: There is not one hidden state for each token.
        """
        moved = self._moved.get()
        self._moved.set(None)
        if moved is not None:
            left, length = moved
            hidden = output.last_hidden_state
            if hidden.shape[1] != length:
                raise ModelError(
                    f"sentences of {length} tokens, padded on the left, have {hidden.shape[1]} hidden states, so that "
                    "padding cannot be told from them; set the tokenizer's padding_side to 'right'"
                )
            output.last_hidden_state = _rotated(hidden, -left)
        return output


def _padding_on_the_left(mask: object) -> Tensor | None:
    """Number of padded positions before each sentence; None if there are none, or if the mask is not (B, T)."""
    if type(mask) is not Tensor or mask.ndim != 2 or not mask.numel():
        return None  # subclasses of Tensor need not have values
    padded = mask == 0
    return padded.long().cumprod(1).sum(1) if bool(padded[:, 0].any()) else None


def has_positions(value: object, size: Sequence[int]) -> bool:
    """Whether an argument of a pass has an entry (or several) for each position of sentences of the size (B, T)."""
    if not isinstance(value, Tensor) or value.ndim < 2 or value.shape[1] != size[1]:
        return False
    return len(value) == size[0] or 1 in (len(value), size[0])


def _rotated(value: Tensor, by: Tensor) -> Tensor:
    """Each row of (B, T, ...) moved to the left by its number (B), where what leaves it comes back on the right."""
    rows = torch.arange(len(value), device=value.device)[:, None]
    columns = torch.arange(value.shape[1], device=value.device) + by[:, None].to(value.device)
    return value[rows, columns % value.shape[1]]


def named_arguments(backbone: nn.Module, arguments: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a pass of the backbone by name."""
    if not arguments:
        return dict(kwargs)
    signature = inspect.signature(backbone.forward)
    given: dict[str, Any] = dict(signature.bind_partial(*arguments, **kwargs).arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            given |= given.pop(name, {})  # arguments that the signature does not name
    return given


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
