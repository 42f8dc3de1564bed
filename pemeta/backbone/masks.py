"""Masks of attention, made once for a batch and not in each pass over it, without waiting for a device.

From the mask (B, T) of a batch, transformers makes another one, of booleans, in each pass, and asks the device before
whether it is needed at all. PyTorch then turns that into numbers to be added, once in each layer. Both depend on the
batch's mask alone, so that within :func:`masks_once` they are kept as long as that mask lives and is not changed. Every
value stays what it was.
"""

from __future__ import annotations

import functools
import inspect
import math
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from pemeta.backbone.attention import PREFIXED
from pemeta.backbone.layer_reuse import is_compiled
from pemeta.utils.remembered import Remembered

_MAKERS = (
    "create_bidirectional_mask",
    "create_bidirectional_sliding_window_mask",
    "create_causal_mask",
    "create_sliding_window_causal_mask",
)
"""Functions of transformers' that make a mask from one (B, T) and nothing else; modules import them by name."""
_SKIPS = ("allow_is_bidirectional_skip", "allow_is_causal_skip")
"""Argument of such a function, which has one of them: whether it may ask if nothing is masked."""
_READ = {"config", "attention_mask", "inputs_embeds"}
"""Arguments that such a function must have, and from which it makes a mask."""
_UNREAD = {"position_ids"}
"""Arguments of which it makes nothing where it has a mask."""

is_full = Remembered(lambda mask: bool(mask.all()))
"""Whether a mask (B, T) masks nothing."""


def note_moved(mask: Tensor | None, moved: Tensor | None) -> None:
    """Find out on the CPU whether a mask masks nothing, before a device would be waited for."""
    if type(mask) is Tensor and type(moved) is Tensor and mask.device.type == "cpu":
        is_full.note(moved, is_full(mask))


def note_joined_masks(whole: Tensor, parts: Sequence[Tensor]) -> None:
    """Keep what is known of masks of which a longer one was made."""
    if all(map(is_full.knows, parts)):
        is_full.note(whole, all(part.shape[1] == whole.shape[1] and is_full(part) for part in parts))


@contextmanager
def masks_once(backbone: nn.Module) -> Iterator[None]:
    """Make masks once within the block; not for a compiled backbone, whose graph makes its own."""
    if is_compiled(backbone):
        yield
        return
    places = {sys.modules[type(part).__module__] for part in backbone.modules()}
    used = [(vars(place), name) for place in places for name in _MAKERS if _is_own(vars(place).get(name))]
    with _lock:
        _install(used)
    try:
        yield
    finally:
        with _lock:
            _remove(used)


_lock = threading.Lock()
_installed: Counter[tuple[int, str]] = Counter()  # number of blocks, of all threads, that an installed function is for


def _is_own(function: object) -> bool:
    return getattr(function, "__module__", "") == "transformers.masking_utils"


def _install(used: Sequence[tuple[dict[str, Any], str]]) -> None:
    for namespace, name in used:
        _installed[id(namespace), name] += 1
        if _installed[id(namespace), name] == 1:
            namespace[name] = _remembering(namespace[name])
    _installed[0, "sdpa"] += 1
    if ALL_ATTENTION_FUNCTIONS["sdpa"] is sdpa_attention_forward:  # and not someone's own
        ALL_ATTENTION_FUNCTIONS["sdpa"] = _attend


def _remove(used: Sequence[tuple[dict[str, Any], str]]) -> None:
    for namespace, name in used:
        _installed[id(namespace), name] -= 1
        if not _installed[id(namespace), name]:
            namespace[name] = namespace[name].__wrapped__
    _installed[0, "sdpa"] -= 1
    if not _installed[0, "sdpa"] and ALL_ATTENTION_FUNCTIONS["sdpa"] is _attend:
        del ALL_ATTENTION_FUNCTIONS["sdpa"]


def _remembering(make: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which remembers what it has made from a mask."""
    known: Remembered[dict[Any, Any]] = Remembered(lambda mask: {})
    parameters = inspect.signature(make).parameters
    skip = next((name for name in _SKIPS if name in parameters), None)

    @functools.wraps(make)
    def made(*arguments: Any, **given: Any) -> Any:
        mask, embeddings = given.get("attention_mask"), given.get("inputs_embeds")
        there = {key for key, value in given.items() if value is not None}
        if arguments or there - _UNREAD != _READ or not _keeps(mask, embeddings):
            return make(*arguments, **given)
        assert mask is not None
        assert embeddings is not None
        mask = _looked_at(mask)
        kind = str(given["config"]._attn_implementation).removeprefix(PREFIXED)
        key = id(given["config"]), kind, embeddings.shape[:2], embeddings.dtype, embeddings.device
        found = known(mask)
        if key not in found or _changes(found[key][1]) != found[key][2]:
            if skip and kind == "sdpa" and is_full.knows(mask):  # transformers would ask the device
                # Without a mask, positions would be asked whether there are several sentences in a row.
                given |= {"attention_mask": None, "position_ids": None} if is_full(mask) else {skip: False}
                given = {key: value for key, value in given.items() if key in parameters}
            result = make(**given)
            if result is mask or not (result is None or isinstance(result, Tensor)):
                return result
            found[key] = given["config"], result, _changes(result)
        return found[key][1]

    return made


def _keeps(mask: object, embeddings: object) -> bool:
    """Whether a mask made from these may be used again."""
    if torch.compiler.is_compiling() or torch.is_inference_mode_enabled():
        return False
    return _is_plain(mask) and isinstance(embeddings, Tensor) and mask.shape == embeddings.shape[:2]


def _is_plain(value: object) -> TypeGuard[Tensor]:
    """Whether a tensor is none of a class of someone's own; those without values count, whose memory is planned."""
    return type(value) in (Tensor, FakeTensor)


def _looked_at(mask: Tensor) -> Tensor:
    """The mask that another one is a view of as a whole: GPT-2 makes a new view in each pass."""
    base = mask._base
    if not _is_plain(base) or base.dtype != mask.dtype or base.storage_offset() != mask.storage_offset():
        return mask
    return base if (base.shape, base.stride()) == (mask.shape, mask.stride()) else mask


def _changes(made: Tensor | None) -> int:
    return 0 if made is None else made._version


_added: Remembered[dict[torch.dtype, Tensor]] = Remembered(lambda mask: {})
"""What is added to the scores for a mask of booleans, by the type of numbers."""


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **others: Any
) -> Any:
    """Attention, with the mask that PyTorch would make from one of booleans in each layer."""
    mask = attention_mask
    plain = _is_plain(mask) and mask.dtype is torch.bool and others.get("position_bias") is None
    if plain and not torch.compiler.is_compiling() and not torch.is_inference_mode_enabled():
        assert mask is not None
        found = _added(mask)
        if query.dtype not in found:
            zero = torch.zeros((), dtype=query.dtype, device=mask.device)
            found[query.dtype] = torch.where(mask, zero, torch.full_like(zero, -math.inf))
        mask = found[query.dtype]
    return sdpa_attention_forward(module, query, key, value, mask, **others)
