"""Whether what was found about a batch's sentences, and its rows of them, still are of the inputs that it has."""

from __future__ import annotations

from weakref import ref

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from pemeta.backbone.layer_reuse import PACKED, inputs_of
from pemeta.backbone.packing import LENGTHS, PLACE
from pemeta.errors import ModelError
from pemeta.typing import Batch

_origins: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""By the tensor of lengths, the inputs that these are of, and their versions."""


def note_origin(batch: Batch) -> None:
    """Remember that a batch's facts and rows are of its inputs."""
    _origins[batch[LENGTHS]] = {key: (ref(value), _version(value)) for key, value in inputs_of(batch).items()}


def is_unchanged(batch: Batch) -> bool:
    """Whether a batch has facts, and its inputs are known to be those that these are of."""
    noted = _origins.get(batch[LENGTHS], {}) if LENGTHS in batch else {}
    inputs = inputs_of(batch)
    return noted.keys() == inputs.keys() and all(
        noted[key][0]() is value and noted[key][1] == _version(value) for key, value in inputs.items()
    )


def check_rows(batch: Batch) -> None:
    """Refuse rows of other inputs than the batch has: a pass over them would not see what was changed.

    Tensors that are not the very ones, such as copies, are compared.

    Raises:
        ModelError: an input was replaced or changed.
    """
    if LENGTHS not in batch or is_unchanged(batch):
        return
    for key, value in inputs_of(batch).items():
        if not _has_rows(batch, key, value):
            raise ModelError(
                f"the {key} of a batch are not those of its rows, of which a pass is; change them before the batch is "
                "given to placed()"
            )
    note_origin(batch)


def _has_rows(batch: Batch, key: str, value: Tensor) -> bool:
    place = batch[PLACE]
    if value.shape != place.shape:
        return False
    if key == "attention_mask":
        return bool(((value != 0) == (place >= 0)).all())
    if key not in ("input_ids", "token_type_ids") or PACKED + key not in batch:
        return False
    rows = batch[PACKED + key].flatten()
    return bool(((rows[place.clamp(min=0)] == value) | (place < 0)).all())


def _version(value: Tensor) -> int:
    return 0 if value.is_inference() else value._version
