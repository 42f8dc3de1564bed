"""Whether the passes of a backbone run on rows of sentences, and batches with such rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Literal

from torch import Tensor, nn

from pemeta.backbone.joined_batches import compared
from pemeta.backbone.packing import LENGTHS, ORIGINS, Plan, cost, pack, plan
from pemeta.backbone.packing_trial import Content, Sizes, fits, found_form, longest_row
from pemeta.backbone.row_masks import ALONE, Form
from pemeta.typing import Batch

Padding = Literal["auto", "packed", "padded"]
"""How sentences of different lengths run: ``padded`` to the longest of their batch, each in its row; ``packed`` behind
each other in rows, with the same results up to rounding, where the backbone gives these (and padded where not); or
``auto``, packed where that is so much less work that it is faster."""

PAYS = 0.9
"""Most work of a packed batch, as a share of the padded one's, for which ``auto`` packs; our choice."""
LEAST_SAVED = 2**25
"""Least multiplications of a forward pass that rows have to save for ``auto`` to pack; our choice: to make them takes
about 2 ms, in which a core multiplies that often. No trial is made for batches that do not save it, so that tiny models
run as ever. It depends on the batch alone, so that an interrupted run goes on the same way."""


class PackedPasses:
    """What was found about rows of sentences: whether the backbone computes with them what it does with padding.

    Not if it has something else between tokens than attention with a mask, as convolutions, pooling and state spaces
    are, or takes no mask for each pair of them, like DeBERTa-v2. This is found by comparing both on made-up sentences,
    on the first use of each kind and size; the comparison draws no random numbers.

    Attributes:
        padding: how batches are to run.
        made: number of batches that were packed so far.
    """

    def __init__(self) -> None:
        self.padding: Padding = "padded"
        self.made = 0
        self._found: list[tuple[object, Sizes, Form | None]] = []

    def packed(
        self,
        backbone: nn.Module,
        batch: Batch,
        *,
        room: int,
        width: int,
        states: Callable[[Batch], Tensor],
        autocast: Callable[[], AbstractContextManager[object]],
        kind: object,
    ) -> Batch | None:
        """The batch with rows of its sentences; None if it is to run padded.

        Sentences that are parts of a batch's rows, as documents in blocks are, always get rows: of one each, where they
        would run padded.

        Args:
            backbone: what runs.
            batch: on the backbone's device, with what :func:`~pemeta.backbone.packing.facts_of` says of it.
            room: number of places that a prompt takes before each.
            width: D.
            states: the hidden states of a batch, as they come out of the backbone.
            autocast: lower precision, which the comparison uses only if passes need it.
            kind: what else the answer depends on.
        """
        lengths: list[int] = batch[LENGTHS].tolist()
        planned, form = self._planned(backbone, batch, lengths, room, width, states, autocast, kind)
        if ORIGINS in batch:
            longest = max(lengths) + room
            planned = planned or Plan(tuple(lengths), tuple((i,) for i in range(len(lengths))), longest, room)
            planned = replace(planned, origins=tuple(map(tuple, batch[ORIGINS].tolist())))
        if planned is None:
            return None
        self.made += form is not None
        dtype, pad = next(backbone.parameters()).dtype, getattr(backbone.config, "pad_token_id", None) or 0
        return pack(batch, planned, form or ALONE, dtype, pad)

    def _planned(
        self,
        backbone: nn.Module,
        batch: Batch,
        lengths: Sequence[int],
        room: int,
        width: int,
        states: Callable[[Batch], Tensor],
        autocast: Callable[[], AbstractContextManager[object]],
        kind: object,
    ) -> tuple[Plan, Form] | tuple[None, None]:
        """Rows of several sentences, and how the backbone takes them; nothing where sentences are to run padded."""
        if self.padding == "padded" or not fits(backbone, lengths, room):
            return None, None
        aligned = next(backbone.parameters()).device.type != "cpu"
        planned = plan(lengths, width, room=room, limit=longest_row(backbone), align=aligned)
        longest = max(lengths) if ORIGINS in batch else len(batch["input_ids"][0])
        if self.padding == "auto" and not pays(planned, longest, backbone.config):
            return None, None
        sizes = Sizes.of(planned, backbone)
        form = self._form(backbone, sizes, room, Content.of(batch), states, autocast, kind)
        return (None, None) if form is None else (planned, form)

    def _form(
        self,
        backbone: nn.Module,
        sizes: Sizes,
        room: int,
        content: Content,
        states: Callable[[Batch], Tensor],
        autocast: Callable[[], AbstractContextManager[object]],
        kind: object,
    ) -> Form | None:
        """How the backbone takes rows; None if it gives something else with them, or with shorter ones."""
        case = kind, room, content
        for known, tried, answer in self._found:
            if (known, tried) == (case, sizes):
                return answer
        least = Sizes.least()  # what fails there is not tried with each size to come
        if sizes != least and self._form(backbone, least, room, content, states, autocast, kind) is None:
            return None
        answer = found_form(backbone, sizes, room, content, states, autocast, compared)
        told = any(known == case and other is None for known, _, other in self._found)
        self._found.append((case, sizes, answer))
        if answer is None and self.padding == "packed" and not told:
            warnings.warn(
                f"{type(backbone).__name__} gives other hidden states for sentences in one row than for padded ones, "
                "so its batches are padded; set padding: padded or auto",
                stacklevel=2,
            )
        return answer


def pays(planned: Plan, longest: int, config: object) -> bool:
    """Whether rows are faster than sentences padded to the longest, in a backbone of this size."""
    width, layers = (getattr(config, name, None) or 1 for name in ("hidden_size", "num_hidden_layers"))
    padded = cost(len(planned.lengths), longest + planned.room, width)
    packed = cost(len(planned.rows), planned.length, width)
    return packed < PAYS * padded and (padded - packed) * width * layers >= LEAST_SAVED
