"""Masks of attention in float64 whose numbers are finite where a backbone rounds them to float32."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from pemeta.backbone.attention import attention_of

_LOWEST = torch.finfo(torch.float32).min


@contextmanager
def finite_masks(backbone: nn.Module) -> Iterator[None]:
    """Have transformers make masks for eager attention in float64 without numbers that float32 takes for infinite.

    Llama's kin and others compute the softmax in float32, in which float64's lowest number is minus infinity. A
    position that attends to nothing, as padding on the left or beyond a window does, is then no number, and from the
    next layer on neither is any token of its sentence. In other types, and in all that a token sees, nothing changes.
    """
    kind = getattr(getattr(backbone, "config", None), "_attn_implementation", None)
    exact = next(backbone.parameters()).dtype is torch.float64
    if not exact or attention_of(backbone) != "eager" or kind is None or kind not in ALL_MASK_ATTENTION_FUNCTIONS:
        yield
        return
    with _lock:
        _used[kind] += 1
        if _used[kind] == 1:
            ALL_MASK_ATTENTION_FUNCTIONS[kind] = _bounded(ALL_MASK_ATTENTION_FUNCTIONS[kind])
    try:
        yield
    finally:
        with _lock:
            _used[kind] -= 1
            if not _used[kind]:
                ALL_MASK_ATTENTION_FUNCTIONS[kind] = ALL_MASK_ATTENTION_FUNCTIONS[kind].__wrapped__


_lock = threading.Lock()
_used: Counter[str] = Counter()  # number of blocks, of all threads, by kind of attention


@functools.cache  # a compiled backbone would be compiled anew for another one
def _bounded(make: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(make)
    def made(*arguments: Any, **given: Any) -> Any:
        mask = make(*arguments, **given)
        return mask.clamp(min=_LOWEST) if isinstance(mask, Tensor) and mask.dtype is torch.float64 else mask

    return made
