"""How a backbone takes rows of sentences, found by running some both ways; or that it gives something else then."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pemeta.backbone.attention import attention_of
from pemeta.backbone.awake import awake
from pemeta.backbone.layer_reuse import PACKED
from pemeta.backbone.packing import PADS, Plan, first_fit, pack, trial_batch, unpacked
from pemeta.backbone.positions import first_position, position_limit
from pemeta.backbone.row_masks import Form, has_mixed_layers, reaches, row_masks, windows
from pemeta.typing import Batch
from pemeta.utils.hub import quiet
from pemeta.utils.precision import HALF

_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
"""Of an error, relative to the size of a vector; in float64 some architectures compute a softmax in float32."""
_TOLERANCE_OF_HALF = 5e-2
_SHARE = 1e-2
"""Largest error as a share of what comes of sentences that see each other, and of tokens in another order: a trial that
could not tell the right rows from wrong ones, as where weights are near zero at first, does not count; our choice."""


@dataclass(frozen=True)
class Sizes:
    """What a trial has shown holds for: sentences and rows of up to these numbers of positions.

    Some backbones change how they attend from some length on.
    """

    sentence: int
    row: int

    @classmethod
    def least(cls) -> Sizes:
        """The smallest that are tried."""
        return cls(_rounded(0), _rounded(0))

    @classmethod
    def of(cls, planned: Plan, backbone: nn.Module) -> Sizes:
        """The sizes of a plan, rounded up to one below a power of two, so that few trials are enough.

        A sentence that a window in the backbone does not hold is tried at more than twice its length, so that many
        tokens are out of others' sight.
        """
        longest, row, wide = max(planned.lengths), planned.length, min(windows(backbone), default=None)
        if wide is not None and longest + planned.room > wide // 2:
            longest, row = 2 * longest, max(row, 2 * longest)
        return cls(_rounded(longest), _rounded(row))


def _rounded(length: int) -> int:
    return int(2 ** max(4, length.bit_length()) - 1)


@dataclass(frozen=True)
class Content:
    """What the sentences of a batch consist of, as far as rows may depend on it.

    Attributes:
        types: whether token types are given.
        pads: whether the token that pads is also one of a sentence: some backbones number its position differently.
    """

    types: bool = False
    pads: bool = False

    @classmethod
    def of(cls, batch: Batch) -> Content:
        """That of a batch with its facts (:func:`~pemeta.backbone.packing.facts_of`)."""
        return cls("token_type_ids" in batch, bool(batch[PADS].any()))


def found_form(
    backbone: nn.Module,
    sizes: Sizes,
    room: int,
    content: Content,
    states: Callable[[Batch], Tensor],
    autocast: Callable[[], AbstractContextManager[object]],
    compared: Callable[[nn.Module], AbstractContextManager[None]],
) -> Form | None:
    """The way in which rows of sentences give the hidden states of padded ones; None if there is none.

    That of a backbone in half precision is found in float32, because its own rounding hides what a window leaves out,
    or what positions do; then it has to work in half precision, too.

    Args:
        backbone: the backbone, with its methods.
        sizes: of the longest sentence and the longest row to come.
        room: number of places that a prompt takes in each sentence.
        content: of the sentences.
        states: the last hidden states of a batch: (B, T, D), or (R, L, D) of a packed one.
        autocast: lower precision, which the comparison uses only if passes need it.
        compared: passes that leave no trace.
    """
    vocabulary = _vocabulary(backbone)
    if vocabulary < 2 or attention_of(backbone) not in ("eager", "sdpa") or _averages(backbone):
        return None
    pad = getattr(backbone.config, "pad_token_id", None)
    device = next(backbone.parameters()).device
    planned = _trial_plan(sizes, room, longest_row(backbone))
    types = max(1, getattr(backbone.config, "type_vocab_size", None) or 1) if content.types else 0
    batch = trial_batch(planned.lengths, vocabulary, pad, types=types, pads=content.pads)
    batch = {key: value.to(device) for key, value in batch.items()}
    trial = partial(_best_form, backbone, batch, planned, states, pad or 0)
    dtypes = {parameter.dtype for parameter in backbone.parameters()}
    with compared(backbone), awake(backbone), quiet():
        try:
            with _in_float32(backbone):
                form = trial(_forms(backbone))
        except (MemoryError, RuntimeError):  # there is no room for that
            return None
        if form is None or dtypes.isdisjoint(HALF):
            return form
        # Attention runs in lower precision only where types differ, as those of a layer in float32 amid others do.
        with autocast() if len(dtypes) > 1 else nullcontext():
            return trial([form])


def _best_form(
    backbone: nn.Module, batch: Batch, planned: Plan, states: Callable[[Batch], Tensor], pad: int, forms: Iterable[Form]
) -> Form | None:
    """The first form that gives the hidden states of a padded batch; where there are windows, the most exact."""
    try:
        expected = states(batch)
    except Exception:  # it takes more than sentences
        return None
    if expected.shape[:2] != batch["input_ids"].shape:
        return None
    dtype, turned = next(backbone.parameters()).dtype, _turned(batch)
    ids = batch["input_ids"].gather(1, turned)
    other = states({**batch, "input_ids": ids}).gather(1, turned[..., None].expand_as(expected))
    order, best = _error(other, expected, batch), None
    for form in forms:
        error = _error_of(expected, order, batch, planned, form, states, dtype, pad)
        if error is not None and (best is None or error < best[0]):
            best = error, form
        if best is not None and not windows(backbone):  # of which one, a little too wide, is wrong by little
            break
    return None if best is None else best[1]


def _turned(batch: Batch) -> Tensor:
    """The place (B, T) of each token in its sentence from behind; padding stays where it is."""
    mask = batch["attention_mask"]
    columns = torch.arange(mask.shape[1], device=mask.device)
    return torch.where(mask != 0, mask.sum(1, keepdim=True) - 1 - columns, columns)


def _error_of(
    expected: Tensor,
    order: float,
    batch: Batch,
    planned: Plan,
    form: Form,
    states: Callable[[Batch], Tensor],
    dtype: torch.dtype,
    pad: int,
) -> float | None:
    """The error of rows; None unless they give the expected hidden states, and others if sentences are not kept apart.

    The error also has to be small beside ``order``, that of tokens in another order. In half precision, whose rounding
    may be as large, neither is asked.
    """
    rows = pack(batch, planned, form, dtype, pad)
    one = row_masks(planned.segments().clamp(max=0).to(batch["input_ids"].device), form, dtype)
    together = {**rows, **{PACKED + key: mask for key, mask in one.items()}}
    try:
        found = states(rows)
        if found.shape[:2] != (len(planned.rows), planned.length):
            return None
        error = _error(unpacked(found, rows), expected, batch)
        if not error <= _TOLERANCE.get(dtype, _TOLERANCE_OF_HALF):  # nor if it is no number
            return None
        if dtype in HALF:
            return error
        wrong = _error(unpacked(states(together), rows), expected, batch)
    except Exception:  # of a mask of another form than it takes
        return None
    rounding = max(error, torch.finfo(dtype).eps)
    return error if rounding <= _SHARE * min(wrong, order) else None


def _error(found: Tensor, expected: Tensor, batch: Batch) -> float:
    """The largest error of a token's hidden state, relative to its size."""
    mask = batch["attention_mask"] != 0
    found, expected = found[mask], expected[mask]
    if found.itemsize < 4:
        found, expected = found.float(), expected.float()
    error, size = (found - expected).norm(dim=-1), expected.norm(dim=-1)
    return float((error / size).where(error != 0, 0.0).max())


@contextmanager
def _in_float32(backbone: nn.Module) -> Iterator[None]:
    """Let a backbone hold float32 in place of half precision within the block."""
    before: list[tuple[dict[str, Any], str, Tensor]] = []
    for part in backbone.modules():
        for own in (part._parameters, part._buffers):
            before += [(own, key, value) for key, value in own.items() if value is not None and value.dtype in HALF]
    wide: dict[int, Tensor] = {}  # one for all places of a tied parameter
    try:
        for held, key, value in before:
            if id(value) not in wide:
                made = value.detach().float()
                wide[id(value)] = nn.Parameter(made, requires_grad=False) if isinstance(value, nn.Parameter) else made
            held[key] = wide[id(value)]
        yield
    finally:
        for held, key, value in before:
            held[key] = value


def _averages(backbone: nn.Module) -> bool:
    """Whether there is a norm over all positions of a batch, which padding changes in training, too."""
    return any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in backbone.modules())


def _forms(backbone: nn.Module) -> Iterator[Form]:
    """The ways to try."""
    takes = "position_ids" in inspect.signature(backbone.forward).parameters
    for additive in (True, False):
        for causal in (False, True):
            for positions in (first_position(backbone), None) if takes else (None,):
                yield Form(causal, positions, additive)
    for causal in (False, True):
        for near in reaches(backbone):
            yield Form(causal, first_position(backbone) if takes else None, True, near, has_mixed_layers(backbone))


def _trial_plan(sizes: Sizes, room: int, limit: int | None) -> Plan:
    """Sentences as long as the longest, and short ones, in rows as long as the longest."""
    most = sizes.sentence if limit is None else min(sizes.sentence, limit - room)
    row = max(sizes.row if limit is None else min(sizes.row, limit), most + room)
    short = [min(size, most) for size in (5, 3, 4)]
    lengths = [most] * max(1, (row - 8 - 2 * room) // (most + room)) + short
    widths = [length + room for length in lengths]
    found = first_fit(widths, row)
    return Plan(tuple(lengths), tuple(tuple(one) for one in found), row, room)


def _vocabulary(backbone: nn.Module) -> int:
    try:
        table = backbone.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return 0
    weight = getattr(table, "weight", None)
    return len(weight) if isinstance(weight, Tensor) and weight.ndim == 2 else 0


def longest_row(backbone: nn.Module) -> int | None:
    """Most positions of a row: those of a table of positions, or of the configuration; None if neither says."""
    stated = getattr(getattr(backbone, "config", None), "max_position_embeddings", None)
    limits = [position_limit(backbone), stated if isinstance(stated, int) and stated > 0 else None]
    return min((limit for limit in limits if limit is not None), default=None)


def fits(backbone: nn.Module, lengths: Sequence[int], room: int) -> bool:
    """Whether sentences are within a backbone's positions."""
    limit = longest_row(backbone)
    return limit is None or max(lengths) + room <= limit
