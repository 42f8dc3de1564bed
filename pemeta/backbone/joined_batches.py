"""Several batches as one, where this changes nothing: what a backbone computes can depend on padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pemeta.backbone.awake import awake
from pemeta.backbone.checks import note_joined
from pemeta.backbone.layer_reuse import inputs_of
from pemeta.backbone.masks import note_joined_masks
from pemeta.typing import Batch
from pemeta.utils.modules import modes_kept
from pemeta.utils.seeding import generators_kept


def concatenate(batches: Sequence[Batch], padding: int) -> Batch | None:
    """The inputs of several batches as one batch, padded to the longest; None if they do not fit together.

    Args:
        batches: Batches with equal keys and, except for lengths that an attention mask covers, equal shapes.
        padding: Token id that pads shorter examples.
    """
    inputs = [inputs_of(batch) for batch in batches]
    keys = inputs[0].keys()
    if any(one.keys() != keys for one in inputs) or any(_size(one) is None for one in inputs):
        return None
    masked = "attention_mask" in keys
    lengths = [_length(one) for one in inputs]
    whole: Batch = {}
    for key in keys:
        tensors = [one[key] for one in inputs]
        if masked and all(t.ndim == 2 and t.shape[1] == n for t, n in zip(tensors, lengths, strict=True)):
            value = padding if key == "input_ids" else 0
            tensors = [F.pad(t, (0, max(lengths) - t.shape[1]), value=value) for t in tensors]
        if any(t.shape[1:] != tensors[0].shape[1:] or t.dtype != tensors[0].dtype for t in tensors):
            return None
        whole[key] = torch.cat(tensors)
        if key == "input_ids":
            note_joined(whole[key], [one[key] for one in inputs], padding)
        elif key == "attention_mask":
            note_joined_masks(whole[key], [one[key] for one in inputs])
    return whole


def with_states(whole: Batch, batches: Sequence[Batch]) -> Batch:
    """Batches that are joined, together with the hidden states that each of them holds, padded as they are."""
    longest = max(map(_length, batches))
    kept: Batch = {}
    for key in batches[0].keys() - inputs_of(batches[0]).keys() - {"labels"}:
        missing = [longest - _length(one) for one in batches]
        parts = [F.pad(one[key], (0, 0, 0, n)) if n else one[key] for one, n in zip(batches, missing, strict=True)]
        kept[key] = torch.cat(parts)
    return {**whole, **kept}


def _size(inputs: Batch) -> int | None:
    """Number of examples, or None if the tensors differ in their number of rows."""
    sizes = {value.shape[0] if value.ndim else None for value in inputs.values()}
    return sizes.pop() if len(sizes) == 1 else None


def _length(batch: Batch) -> int:
    """Number of positions that an attention mask covers, or 0."""
    return batch["attention_mask"].shape[-1] if "attention_mask" in batch else 0


def split_hidden(hidden: Tensor, batches: Sequence[Batch]) -> list[Tensor]:
    """Split the hidden states of batches joined by :func:`concatenate`, without the padding to the longest batch.

    A prompt before the sequences is kept.
    """
    sizes = [next(iter(inputs_of(batch).values())).shape[0] for batch in batches]  # as _size, never None here
    lengths = [_length(batch) for batch in batches]
    parts = zip(hidden.split(sizes), lengths, strict=True)
    return [part[:, : max(0, part.shape[1] - (max(lengths) - length))] for part, length in parts]


class JoinedPasses:
    """What was found about the hidden states of batches that run as one: whether they are those of each by itself.

    They are not if padding changes what a backbone computes, as it does with pooling, convolutions and Fourier
    transforms over positions, if its hidden states are not one for each position of the mask, or if a sentence's depend
    on the others in its batch. This is found by comparing, on the first use of each kind and length; the comparison
    draws no random numbers, is in evaluation mode, and moves what methods have added: it may be zero before training.
    """

    def __init__(self) -> None:
        self._found: list[tuple[object, bool]] = []

    def same(
        self,
        model: nn.Module,
        batches: Sequence[Batch],
        whole: Batch,
        *,
        states: Callable[[Batch], Tensor],
        autocast: Callable[[], AbstractContextManager[object]],
        kind: object,
    ) -> bool:
        """Whether the hidden states of batches are the same if they run as one, up to rounding.

        Args:
            model: What computes them.
            batches: The batches.
            whole: The same, concatenated.
            states: The hidden states (B, T, D) of a batch.
            autocast: Lower precision, which is used only if the passes need it.
            kind: What else the answer depends on.
        """
        if any(type(value) is not Tensor for value in whole.values()):
            return True  # tensors without values, when cost is counted
        case = (kind, *lengths_of(batches))
        for known, answer in self._found:
            if known == case:
                return answer
        dtypes = {value.dtype for value in (*model.parameters(), *whole.values()) if value.is_floating_point()}
        with compared(model), awake(model), autocast() if len(dtypes) > 1 else nullcontext():
            apart = [states(batch) for batch in batches]
            parts = split_hidden(states(whole), batches)
            tolerance = 1e-3 if min(dtype.itemsize for dtype in dtypes) >= 4 else 5e-2
            answer = all(
                agree(part, one, batch, tolerance) for part, one, batch in zip(parts, apart, batches, strict=True)
            )
        self._found.append((case, answer))
        return answer


def lengths_of(batches: Sequence[Batch]) -> tuple[bool, int]:
    """What an answer depends on: whether lengths differ, and the size of the longest.

    Some backbones change how they attend from some length on, so a longer batch is compared once more.
    """
    lengths = [_length(batch) for batch in batches]
    return len(set(lengths)) > 1, max(lengths).bit_length()


@contextmanager
def compared(model: nn.Module) -> Iterator[None]:
    """Passes without a graph, dropout or autocast, which leave no trace."""
    device = next(model.parameters()).device
    with (
        torch.no_grad(),
        modes_kept(model),
        generators_kept(device),
        torch.autocast(device.type, enabled=False),
    ):
        model.eval()
        yield


def agree(found: Tensor, expected: Tensor, batch: Batch, tolerance: float) -> bool:
    """Whether hidden states have equal shapes and, where there is no padding, values that are equal up to rounding."""
    if found.shape != expected.shape:
        return False
    mask = batch.get("attention_mask")
    if mask is not None and mask.shape == found.shape[:2]:
        found, expected = found[mask != 0], expected[mask != 0]
    if found.itemsize < 4:
        found, expected = found.float(), expected.float()
    found, expected = found.nan_to_num(), expected.nan_to_num()  # where a row attends to nothing, in both
    error, size = (found - expected).norm(dim=-1), expected.norm(dim=-1)
    return not bool((error > tolerance * size).any())
