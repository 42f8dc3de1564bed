"""Blocks of several documents, of which a token sees its own alone.

A batch of blocks may say which document of its block each token is of. A pass then takes the documents as the sentences
of rows (:mod:`~pemeta.backbone.packing`): several in a row with a mask that keeps them apart, where the backbone
computes the same with it and that is faster, and otherwise one in each row, which any backbone takes.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from pemeta.backbone.layer_reuse import PACKED, inputs_of
from pemeta.backbone.packing import LENGTHS, ORIGINS, PADS
from pemeta.errors import DataError
from pemeta.typing import Batch

DOCUMENTS = f"{PACKED}documents"
"""Key of the number of each token's document in its block (B, T), from 0 in each block; -1 at padding."""


def has_documents(batch: Batch) -> bool:
    """Whether a batch consists of blocks of documents."""
    return DOCUMENTS in batch


def document_facts(batch: Batch, padding: Collection[int]) -> Batch:
    """What rows of a batch's documents are made from, as :func:`~pemeta.backbone.packing.facts_of` says of sentences.

    Args:
        batch: where it was made, because a device would be waited for.
        padding: tokens that pad.

    Raises:
        DataError: the numbers of documents do not have the shape of the tokens, or a document is in two pieces.
    """
    documents, inputs = batch[DOCUMENTS], inputs_of(batch)
    ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
    if ids is None or mask is None or documents.shape != ids.shape or not inputs.keys() <= _TAKEN:
        raise DataError(
            f"blocks of documents need input_ids and attention_mask of one shape, and no other input; found "
            f"{', '.join(f'{key} {tuple(value.shape)}' for key, value in batch.items())}"
        )
    if bool(((documents >= 0) != (mask != 0)).any()):
        raise DataError("each token that attention_mask marks must be of a document, and no other; number them from 0")
    changes = torch.ones_like(documents, dtype=torch.bool)
    changes[:, 1:] = documents[:, 1:] != documents[:, :-1]
    places = (changes & (documents >= 0)).nonzero()  # (N, 2), block and column of each first token
    return {
        LENGTHS: _lengths(documents, places).cpu(),
        ORIGINS: places.cpu(),
        PADS: _with_padding(documents, places, ids, padding).cpu(),
    }


_TAKEN = {"input_ids", "attention_mask"}


def _lengths(documents: Tensor, places: Tensor) -> Tensor:
    """Number of tokens of each document (N,), given its first place."""
    return torch.bincount(_segments(documents, places), minlength=len(places))


def _segments(documents: Tensor, places: Tensor) -> Tensor:
    """For each token of the batch, which of its N documents it is of."""
    first = torch.zeros_like(documents)
    first[places[:, 0], places[:, 1]] = 1
    return (first.flatten().cumsum(0) - 1)[(documents >= 0).flatten()]


def _with_padding(documents: Tensor, places: Tensor, ids: Tensor, padding: Collection[int]) -> Tensor:
    """Whether each document has the token that pads among its own (N,)."""
    pads = torch.zeros(len(places), dtype=torch.long, device=ids.device)
    own = ids.flatten()[(documents >= 0).flatten()]
    found = torch.isin(own, torch.tensor(sorted(padding), device=ids.device)) if padding else torch.zeros_like(own)
    return pads.index_add(0, _segments(documents, places), found.long()) > 0
