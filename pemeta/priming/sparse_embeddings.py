"""Sparse word-embedding gradients: cost proportional to the tokens in the batch, not to the vocabulary."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from pemeta.backbone.layer_reuse import is_compiled
from pemeta.model.pe_model import PEModel
from pemeta.utils.modules import parameter_dict


@contextmanager
def sparse_word_gradients(model: PEModel, names: Collection[str]) -> Iterator[None]:
    """Make each backward pass in the block update only the rows of the word embeddings' gradient that it used.

    Otherwise each pass fills a matrix of the vocabulary's size with zeros, and adds it: 367 MB for multilingual BERT,
    once for each task. The result is the same dense gradient in ``grad``.

    Args:
        model: the model.
        names: names of the parameters whose gradient is accumulated.
    """
    table = _table(model)
    trained = {id(parameter) for parameter in parameter_dict(model, names).values()}
    if table is None or id(table.weight) not in trained:
        yield
        return
    weight, new = table.weight, table.weight.grad is None
    reached: list[torch.Tensor] = []
    if new:
        weight.grad = torch.zeros_like(weight)
    hook = weight.register_post_accumulate_grad_hook(reached.append)
    table.sparse = True
    try:
        # The graph of a compiled backbone would not notice hooks.
        with nullcontext() if is_compiled(model.backbone) else _padding_by_zeros(table):
            yield
    finally:
        table.sparse = False
        hook.remove()
        if new and not reached:  # so that the optimiser skips it, as without this block
            weight.grad = None


@contextmanager
def _padding_by_zeros(table: nn.Embedding) -> Iterator[None]:
    """Give the row of padding no gradient by zeros, where PyTorch's sparse gradient leaves its positions out.

    For that it would wait for the device twice in each backward pass, to know how many positions are left.
    """
    padding = table.padding_idx
    if padding is None:
        yield
        return

    def before(_: nn.Module, arguments: object) -> None:
        table.padding_idx = None

    def after(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: object) -> None:
        table.padding_idx = padding
        if isinstance(output, torch.Tensor) and output.requires_grad:
            ids = arguments[0] if arguments else named["input"]
            padded = (ids == padding)[..., None]
            output.register_hook(lambda gradient: gradient.masked_fill(padded, 0))

    # The first after a pass, because other hooks may add what padding does give a gradient to.
    first = table.register_forward_hook(after, prepend=True, with_kwargs=True, always_call=True)
    hooks = [table.register_forward_pre_hook(before), first]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _table(model: PEModel) -> nn.Embedding | None:
    """The word embeddings; None if they are not a plain table, are frozen, or must be summed deterministically."""
    try:
        table = model.backbone.get_input_embeddings()
    except (AttributeError, NotImplementedError):  # e.g. speech models
        return None
    if type(table) is not nn.Embedding or table.sparse or table.scale_grad_by_freq:
        return None
    if not table.weight.requires_grad or torch.are_deterministic_algorithms_enabled():
        return None
    return table if table.weight.device.type in ("cpu", "cuda") else None
