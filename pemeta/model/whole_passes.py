"""Passes of a whole backbone: in lower precision, and on rows of sentences or padded ones."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, get_args

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pemeta.backbone.attention import attention_of
from pemeta.backbone.checks import check_batch, check_token_ids
from pemeta.backbone.documents import document_facts, has_documents
from pemeta.backbone.finite_masks import finite_masks
from pemeta.backbone.given import require_sequence
from pemeta.backbone.layer_reuse import has_states, skip_layers_below
from pemeta.backbone.masks import note_moved
from pemeta.backbone.packed_passes import PackedPasses, Padding
from pemeta.backbone.packing import (
    LENGTHS,
    ORIGINS,
    PADS,
    ROOM,
    facts_of,
    is_packed,
    packed_inputs,
    trial_batch,
    unpacked,
)
from pemeta.backbone.positions import padding_tokens
from pemeta.backbone.row_masks import by_kind_of_layer
from pemeta.backbone.row_origin import check_rows, is_unchanged, note_origin
from pemeta.errors import ConfigError, DataError, ModelError, excerpt
from pemeta.heads.base import has_labels
from pemeta.methods.base import PEMethod
from pemeta.model.ownership import require_own
from pemeta.typing import Batch
from pemeta.utils.devices import to_device
from pemeta.utils.precision import as_held


class WholePasses(nn.Module):
    """A backbone, and its passes as a whole."""

    attached: tuple[PEMethod, ...]

    def __init__(self, backbone: PreTrainedModel) -> None:
        super().__init__()
        self.backbone = backbone
        self.autocast_dtype: torch.dtype | None = None
        self._packed = PackedPasses()
        self._has_cache = "use_cache" in inspect.signature(backbone.forward).parameters

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device

    @property
    def compute_dtype(self) -> torch.dtype:
        """The type that the backbone computes in, which is autocast's, or that of its parameters."""
        return self.autocast_dtype or next(self.backbone.parameters()).dtype

    @property
    def padding(self) -> Padding:
        """How sentences of different lengths run.

        ``padded`` (the start) to the longest of their batch; ``packed`` behind each other in rows, without the work of
        padding, if the backbone then gives the same hidden states; or ``auto``, packed where that is enough less work
        to be faster. Priming and fine-tuning set it to what their settings say, while they run.
        """
        return self._packed.padding

    @padding.setter
    def padding(self, padding: Padding) -> None:
        if padding not in get_args(Padding):
            raise ConfigError(f"padding is one of {', '.join(get_args(Padding))}; found {excerpt(padding)}")
        self._packed.padding = padding

    @property
    def packs(self) -> bool:
        """Whether :attr:`padding` asks for rows of sentences, and the backbone computes the same in these."""
        if self.padding == "padded":
            return False
        batch = trial_batch((3, 2), 2, None)
        facts = {LENGTHS: torch.tensor((3, 2)), PADS: torch.zeros(2, dtype=torch.bool)}
        before = self._packed.made
        with self.padded_as("packed"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a batch's own trial tells
            rows = self._rows({**to_device(batch, self.device), **facts})
        self._packed.made = before
        return rows is not None

    @property
    def packed_batches(self) -> int:
        """Number of batches so far that were packed."""
        return self._packed.made

    def padding_identity(self) -> dict[str, Any]:
        """What a checkpoint says about rows of sentences: nothing if :attr:`padding` does not ask for any."""
        return {} if self.padding == "padded" else {"packed": self.packs}

    @contextmanager
    def padded_as(self, padding: Padding) -> Iterator[None]:
        """Set :attr:`padding` within the block."""
        before = self.padding
        self.padding = padding
        try:
            yield
        finally:
            self.padding = before

    def placed(self, batch: Batch) -> Batch:
        """Move a batch to the model's device, and pack it as :attr:`padding` says.

        Rows are of the inputs that the batch has by now; where these are changed later, a pass refuses the batch.

        Raises:
            ModelError: a token is not in the vocabulary, which is checked before the move because CUDA would report
                it late and unclearly; or the batch has rows of other inputs.
        """
        check_batch(batch)
        check_token_ids(self.backbone, batch)
        if "labels" in batch and type(batch["labels"]) is Tensor and self.device.type == "cpu":
            has_labels(batch["labels"])  # remembered, so that no loss asks in the passes
        placed = to_device(batch, self.device)
        note_moved(batch.get("attention_mask"), placed.get("attention_mask"))
        if (self.padding == "padded" and not has_documents(batch)) or "trunk" in batch:
            return placed
        known = {key: batch[key] for key in (LENGTHS, PADS, ORIGINS, ROOM) if key in batch}
        if is_packed(batch):
            check_rows(batch)
            return {**placed, **known}
        find = document_facts if has_documents(batch) else facts_of
        facts = known if known and is_unchanged(batch) else find(batch, padding_tokens(self.backbone))
        if facts is None:
            return placed
        placed.update(facts)  # as they are: where values decide what runs, a device would be waited for
        note_origin(placed)
        return self._rows(placed) or placed

    def _rows(self, batch: Batch) -> Batch | None:
        """The batch with rows of its sentences; None if it is to run padded."""
        room = self._room
        if room and has_states(batch):
            return None  # they would lack the prompt's
        rows = self._packed.packed(
            self.backbone,
            batch,
            room=room,
            width=getattr(self.backbone.config, "hidden_size", None) or 1,
            states=self._states,
            autocast=self._autocast,
            kind=(self.attached, attention_of(self.backbone), self.backbone.dtype),
        )
        if rows is not None:
            note_origin(rows)
        return rows

    @property
    def _room(self) -> int:
        """Number of places before a sentence that a prompt takes."""
        return sum(method.extra_positions for method in self.attached)

    def hidden_states(self, batch: Batch) -> Tensor:
        """The backbone's last hidden states (B, T, D), before any method transforms them.

        Raises:
            ModelError: the backbone gives something else.
        """
        check_batch(batch)
        if "trunk" in batch:
            return batch["trunk"]
        with self._autocast(), skip_layers_below(self.backbone, batch), finite_masks(self.backbone):
            found: Any = getattr(self.backbone(**self._inputs(batch)), "last_hidden_state", None)
        return unpacked(require_sequence(self.backbone, found), batch)

    def _inputs(self, batch: Batch) -> dict[str, Any]:
        require_own(self.backbone, self)
        check_token_ids(self.backbone, batch)
        if is_packed(batch) and int(batch[ROOM]) != self._room:
            raise ModelError(
                f"a batch's rows have places for a prompt of {int(batch[ROOM])} vectors, but the attached methods "
                f"prepend {self._room}; give the batch to placed() again, as it was before"
            )
        if is_packed(batch):
            check_rows(batch)
        elif has_documents(batch):
            raise ModelError(
                "a batch of blocks of documents runs in rows of these, which it does not have; give it to placed() "
                "first"
            )
        inputs = {
            key: as_held(value, next(self.backbone.parameters())) if value.is_floating_point() else value
            for key, value in packed_inputs(batch).items()
        }
        if not inputs:
            raise DataError(f"a batch needs inputs of the backbone, such as input_ids; found {excerpt(list(batch))}")
        # A decoder would keep its keys and values for generation.
        inputs = by_kind_of_layer(inputs)
        return {**inputs, **({"use_cache": False} if self._has_cache else {})}

    def _states(self, batch: Batch) -> Tensor:
        """The last hidden states, in rows if the batch has them."""
        with finite_masks(self.backbone):
            return self.backbone(**self._inputs(batch)).last_hidden_state  # type: ignore[no-any-return]

    def _autocast(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.autocast_dtype is None else torch.autocast(self.device.type, self.autocast_dtype)
