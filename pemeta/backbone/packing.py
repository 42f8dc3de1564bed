"""Sentences of a batch behind each other in rows, in place of one padded row for each: half of all work is padding.

A batch that is *packed* has, beside what it had, entries whose names start with ``packed.``: the backbone's inputs as
rows (R, L) of several sentences, with a mask that keeps these apart and positions that begin anew with each, and
``packed.place`` (B, T), where in the rows each token is. A pass takes the rows, and gives hidden states (B, T, D) as if
they had been padded; the input of a layer (``input_of_layer_K``) stays in rows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pemeta.backbone.layer_reuse import INPUT_OF_LAYER, PACKED, inputs_of
from pemeta.backbone.row_masks import Form, row_masks
from pemeta.typing import Batch
from pemeta.utils.devices import to_device

PLACE = f"{PACKED}place"
"""Key of each token's index into the rows' R L positions, (B, T); -1 at padding."""
LENGTHS = f"{PACKED}lengths"
"""Key of each sentence's number of tokens, (B,); it stays on the CPU, so that a device is not waited for."""
ORIGINS = f"{PACKED}origins"
"""Key of the row and the column (N, 2) in the padded batch of each sentence's first token, where sentences are parts of
its rows; it stays on the CPU, too. Without it, each sentence is a row."""
PADS = f"{PACKED}pads"
"""Key of whether each sentence has the token that pads among its own, (B,); it stays on the CPU, too."""
SOURCE = f"{PACKED}source"
"""Key of the index of each place in the rows into the padded batch's B T positions, (R, L); -1 where there is none."""
ROOM = f"{PACKED}room"
"""Key of the number of places before each sentence's tokens, for a prompt; a scalar on the CPU."""
OWN = (PLACE, SOURCE, LENGTHS, PADS, ROOM, ORIGINS, f"{PACKED}documents")
"""Keys that are no inputs of a pass."""
SLOTS = "prompt_slots"
"""Name of the input (R, L) that says which of a prompt's vectors belongs where; -1 at tokens."""
_ALIGNED = 8
"""Rows on an accelerator are a multiple of this, as fast kernels for attention with a mask want it."""


@dataclass(frozen=True)
class Plan:
    """Which sentence is in which row.

    Attributes:
        lengths: number of tokens of each sentence.
        rows: the sentences of each row, in their order.
        length: L.
        room: number of places before the tokens of each sentence, for a prompt.
        origins: row and column in the padded batch of each sentence's first token; None if each is a row.
    """

    lengths: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]
    length: int
    room: int = 0
    origins: tuple[tuple[int, int], ...] | None = None

    def _origins(self, width: int) -> np.ndarray:
        """Where in a padded batch (B, ``width``) each sentence's first token is."""
        if self.origins is None:
            return np.arange(len(self.lengths)) * width
        found: np.ndarray = np.array(self.origins).reshape(-1, 2) @ np.array([width, 1])
        return found

    @cached_property
    def starts(self) -> np.ndarray:
        """Index of each sentence's first place, its room included, into the rows' R L positions; -1 if it is empty."""
        found = np.full(len(self.lengths), -1, np.int64)
        for number, row in enumerate(self.rows):
            at = number * self.length
            for sentence in row:
                found[sentence], at = at, at + self.room + self.lengths[sentence]
        return found

    @cached_property
    def _laid(self) -> np.ndarray:
        """Sentence and offset, from the start of its room, of each place (2, R L); -1 where there is none."""
        laid = np.full((2, len(self.rows) * self.length), -1, np.int64)
        for sentence, start in enumerate(self.starts):
            if start >= 0:
                width = self.room + self.lengths[sentence]
                laid[0, start : start + width], laid[1, start : start + width] = sentence, np.arange(width)
        return laid

    def _as_rows(self, flat: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(flat).reshape(len(self.rows), self.length))

    def segments(self) -> Tensor:
        """The sentence at each place (R, L); -1 where there is none."""
        return self._as_rows(self._laid[0])

    def offsets(self) -> Tensor:
        """How far each place is from the start of its sentence, its room included (R, L); 0 where there is none."""
        return self._as_rows(self._laid[1].clip(0))

    def slots(self) -> Tensor:
        """Which vector of a prompt belongs where (R, L); -1 elsewhere."""
        return self._as_rows(np.where(self._laid[1] < self.room, self._laid[1], -1))

    def sources(self, width: int) -> Tensor:
        """Where in a padded batch (B, ``width``) the token of each place is (R, L); -1 where there is no token."""
        return self._as_rows(self._sources(width))

    def _sources(self, width: int) -> np.ndarray:
        sentence, offset = self._laid
        places = self._origins(width)[sentence] + offset - self.room
        found: np.ndarray = np.where(offset >= self.room, places, -1)
        return found

    def places(self, width: int, number: int | None = None) -> Tensor:
        """Where in the rows each token of a padded batch is (B, ``width``); -1 at padding.

        Args:
            width: the padded batch's number of columns.
            number: B; by default one for each sentence.
        """
        number = len(self.lengths) if number is None else number
        sources = self._sources(width)
        places = np.full(number * width, -1, np.int64)
        places[sources[sources >= 0]] = np.flatnonzero(sources >= 0)
        return torch.from_numpy(places.reshape(number, width))


def first_fit(sizes: Sequence[int], length: int) -> list[list[int]]:
    """Indices of sizes in rows of at most ``length``: the largest first, each in the first row that has room for it.

    >>> first_fit([3, 9, 4, 2], 9)
    [[1], [2, 0, 3]]
    """
    rows: list[list[int]] = []
    left: list[int] = []
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        row = next((number for number, room in enumerate(left) if room >= sizes[index]), len(rows))
        if row == len(rows):
            rows.append([])
            left.append(length)
        rows[row].append(index)
        left[row] -= sizes[index]
    return rows


def cost(rows: int, length: int, width: int) -> int:
    """What a layer of width D costs on rows: 12 D² for each position, and 2 L D for what it attends to.

    The latter counts three times, our choice: its products are small, and a softmax is between them.
    """
    return rows * length * (12 * width + 6 * length)


def plan(lengths: Sequence[int], width: int, *, room: int = 0, limit: int | None = None, align: bool = False) -> Plan:
    """The cheapest rows for sentences, by :func:`cost`.

    Args:
        lengths: number of tokens of each sentence, one of them at least above 0.
        width: D.
        room: places before each sentence.
        limit: most positions that a row may have.
        align: whether the length of rows is to be a multiple of eight.
    """
    full = [index for index, length in enumerate(lengths) if length]
    sizes = [room + lengths[index] for index in full]
    longest, total, best = max(sizes), sum(sizes), None
    for parts in range(1, min(len(sizes), -(-total // longest)) + 1):
        length = max(longest, -(-total // parts))
        if limit is not None and length > max(limit, longest):
            continue
        for found in {length, max(longest, min(length + length // 16, limit or length * 2))}:
            rows = first_fit(sizes, found)
            filled = max(sum(sizes[i] for i in row) for row in rows)
            aligned = -(-filled // _ALIGNED) * _ALIGNED
            if align and (limit is None or aligned <= limit):
                filled = aligned
            price = cost(len(rows), filled, width)
            if best is None or (price, filled) < best[:2]:
                best = price, filled, rows
    if best is None:  # one sentence a row is more than the limit allows in several
        best = 0, longest, [[i] for i in range(len(sizes))]
    laid = tuple(tuple(full[i] for i in row) for row in best[2])
    return Plan(tuple(lengths), laid, best[1], room)


def pack(batch: Batch, planned: Plan, form: Form, dtype: torch.dtype, padding: int = 0) -> Batch:
    """The batch, with rows of its sentences.

    Args:
        batch: with inputs (B, T), padded on the right, and perhaps the input (B, T, D) of a layer; what
            :func:`facts_of` says of it is kept.
        planned: the rows.
        form: how the backbone takes them.
        dtype: of the backbone.
        padding: token id where there is no sentence.
    """
    inputs = inputs_of(batch)
    number, width = inputs["input_ids"].shape
    index = {SOURCE: planned.sources(width), PLACE: planned.places(width, number), "segments": planned.segments()}
    if form.positions is not None:
        index["position_ids"] = planned.offsets() + form.positions
    if planned.room:
        index[SLOTS] = planned.slots()
    index = to_device(index, inputs["input_ids"].device)
    rows = {key: index[key] for key in ("position_ids", SLOTS) if key in index}
    rows |= row_masks(index["segments"], form, dtype)
    for key, value in inputs.items():
        if key != "attention_mask":
            rows[key] = taken(value[..., None], index[SOURCE], padding if key == "input_ids" else 0)[..., 0]
    states = {key: taken(value, index[SOURCE]) for key, value in batch.items() if key.startswith(INPUT_OF_LAYER)}
    packed = {PACKED + key: value for key, value in rows.items()}
    own = {PLACE: index[PLACE], SOURCE: index[SOURCE], ROOM: torch.tensor(planned.room)}
    return {**batch, **states, **packed, **own}


def taken(vectors: Tensor, index: Tensor, fill: float = 0) -> Tensor:
    """The vectors of (.., .., D) at an index (X, Y) into its first two dimensions; ``fill`` where it is -1.

    >>> taken(torch.arange(4.0).view(2, 2, 1), torch.tensor([[3, -1]]))[..., 0]
    tensor([[3., 0.]])
    """
    found = vectors.flatten(0, 1).index_select(0, index.clamp(min=0).flatten())
    return found.masked_fill((index < 0).flatten()[:, None], fill).view(*index.shape, vectors.shape[-1])


def is_packed(batch: Batch) -> bool:
    """Whether a batch has rows."""
    return PLACE in batch


def without_rows(batch: Batch) -> Batch:
    """The batch, padded: for passes that take none of its rows, because it has the last hidden states."""
    return {key: value for key, value in batch.items() if not key.startswith(PACKED)}


def packed_inputs(batch: Batch) -> Batch:
    """The backbone's inputs in a pass: the rows of a batch that has them, or its padded inputs."""
    if not is_packed(batch):
        return inputs_of(batch)
    return {key.removeprefix(PACKED): v for key, v in batch.items() if key.startswith(PACKED) and key not in OWN}


def unpacked(hidden: Tensor, batch: Batch) -> Tensor:
    """Hidden states of rows (R, L, D) as those of sentences (B, T, D), zero at padding; others as they are."""
    return taken(hidden, batch[PLACE]) if is_packed(batch) else hidden


def as_rows(hidden: Tensor, batch: Batch) -> Tensor:
    """Hidden states of sentences (B, T, D) as those of a packed batch's rows (R, L, D); others as they are."""
    return taken(hidden, batch[SOURCE]) if is_packed(batch) else hidden


def facts_of(batch: Batch, padding: Collection[int]) -> Batch | None:
    """Lengths of the sentences and :data:`PADS`; None if this is no batch of sentences padded on the right only.

    Its inputs are ``input_ids``, ``attention_mask`` and perhaps ``token_type_ids``, of the shape (B, T); what others
    mean once sentences are in rows is not known. A sentence without a token has no place in rows.

    Args:
        batch: where it was made, because a device would be waited for.
        padding: tokens that pad.
    """
    inputs = inputs_of(batch)
    mask, ids = inputs.get("attention_mask"), inputs.get("input_ids")
    if mask is None or ids is None or ids.ndim != 2 or not inputs.keys() <= _TAKEN:
        return None
    if any(type(value) is not Tensor or value.shape != ids.shape or value.is_meta for value in inputs.values()):
        return None  # tensors without values, when cost is counted, among others
    lengths = (mask != 0).sum(1)
    if not bool(((torch.arange(mask.shape[1], device=mask.device) < lengths[:, None]) == mask).all()):
        return None
    if not len(lengths) or not bool(lengths.all()):
        return None
    pads = torch.zeros_like(lengths, dtype=torch.bool)
    for token in padding:
        pads |= ((ids == token) & (mask != 0)).any(1)
    return {LENGTHS: lengths.cpu(), PADS: pads.cpu()}


_TAKEN = {"input_ids", "attention_mask", "token_type_ids"}


def joined_facts(batches: Sequence[Batch]) -> Batch | None:
    """What :func:`facts_of` says of several batches as one; None if it is not known of each, or not in the same way."""
    if not all(LENGTHS in batch for batch in batches) or len({ORIGINS in batch for batch in batches}) > 1:
        return None
    found = {key: torch.cat([batch[key] for batch in batches]) for key in (LENGTHS, PADS)}
    if ORIGINS in batches[0]:
        rows = np.cumsum([0, *(len(batch["input_ids"]) for batch in batches)])
        moved = (batch[ORIGINS] + torch.tensor([int(row), 0]) for batch, row in zip(batches, rows, strict=False))
        found[ORIGINS] = torch.cat(list(moved))
    return found


def trial_batch(
    lengths: Sequence[int], vocabulary: int, padding: int | None, *, types: int = 0, pads: bool = False
) -> Batch:
    """Made-up sentences, padded on the right.

    Args:
        lengths: number of tokens of each sentence.
        vocabulary: V.
        padding: the token that pads.
        types: number of token types; none are given where it is 0.
        pads: whether the token that pads is among those of the sentences, too.
    """
    ids = [number for number in range(vocabulary) if number != padding][-997:]
    rows = [
        torch.tensor([ids[(7 * place + 3 * sentence + place * place) % len(ids)] for place in range(length)])
        for sentence, length in enumerate(lengths)
    ]
    if pads:
        for row in rows:
            row[len(row) // 3] = padding or 0
    batch = {
        "input_ids": pad_sequence(rows, batch_first=True, padding_value=padding or 0),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
    }
    if types:
        columns = torch.arange(batch["input_ids"].shape[1]) // 2 % types
        batch["token_type_ids"] = columns * batch["attention_mask"]
    return batch
