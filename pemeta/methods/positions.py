"""Positions that do not depend on padding, for methods that prepend something to the sequence."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

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
        left = padding_on_the_left(mask)
        if mask is None or left is None:
            self.leave()
            return given
        self._moved.set((left, mask.shape[1]))
        moved = {key: rotated(value, left) for key, value in given.items() if has_positions(value, mask.shape)}
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
            output.last_hidden_state = rotated(hidden, -left)
        return output


def padding_on_the_left(mask: object) -> Tensor | None:
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


def rotated(value: Tensor, by: Tensor) -> Tensor:
    """Each row of (B, T, ...) moved to the left by its number (B), where what leaves it comes back on the right."""
    rows = torch.arange(len(value), device=value.device)[:, None]
    columns = torch.arange(value.shape[1], device=value.device) + by[:, None].to(value.device)
    return value[rows, columns % value.shape[1]]


def keeps_cache(backbone: nn.Module, given: dict[str, Any]) -> bool:
    """Whether a pass keeps its keys and values for later passes, or has those of earlier ones."""
    if given.get("past_key_values") is not None:
        return True
    takes = "use_cache" in inspect.signature(backbone.forward).parameters
    return takes and bool(given.get("use_cache", getattr(backbone.config, "use_cache", False)))


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
