"""Gradients of the word embeddings that cost what the batch's pieces cost, and not the vocabulary."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from pemeta.model import PEModel
from pemeta.partition import parameter_dict


@contextmanager
def sparse_word_gradients(model: PEModel, names: Collection[str]) -> Iterator[None]:
    """Within the block, each backward pass adds to the rows of the word embeddings that it used, and only to these.

    Without it each pass fills a matrix of the vocabulary's size with zeros, and adds it: 367 MB for multilingual BERT,
    once for each task. The gradient is the same dense matrix in ``grad``.

    Args:
        model: the model.
        names: of the parameters whose gradient is accumulated.
    """
    table = model.backbone.get_input_embeddings()
    trained = {id(parameter) for parameter in parameter_dict(model, names).values()}
    if not _suitable(table, trained):
        yield
        return
    assert isinstance(table, nn.Embedding)
    weight = table.weight
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    table.sparse = True
    try:
        yield
    finally:
        table.sparse = False


def _suitable(table: object, trained: Collection[int]) -> bool:
    """A plain table of words that is trained, on a device with sparse tensors."""
    return (
        type(table) is nn.Embedding
        and not table.sparse
        and not table.scale_grad_by_freq
        and id(table.weight) in trained
        and table.weight.device.type in ("cpu", "cuda")
    )
