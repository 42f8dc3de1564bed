"""How a model runs its backbone: whole or in part, in lower precision, with layers checkpointed."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from typing_extensions import Self

from pemeta.backbone.checks import check_token_ids
from pemeta.backbone.gradient_checkpointing import checkpoint_layers
from pemeta.backbone.layer_reuse import (
    INPUT_OF_LAYER,
    concatenate,
    has_states,
    inputs_of,
    is_stochastic,
    run_below,
    separable,
    skip_layers_below,
    split_hidden,
)
from pemeta.errors import ModelError
from pemeta.methods.base import PEMethod
from pemeta.typing import Batch
from pemeta.utils.devices import to_device
from pemeta.utils.modules import parameter_dict


class BackboneForward(nn.Module):
    """A backbone and the ways to run it; what :class:`~pemeta.PEModel` is without methods' transforms and heads."""

    method: PEMethod

    def __init__(self, backbone: PreTrainedModel) -> None:
        super().__init__()
        self.backbone = backbone
        self.autocast_dtype: torch.dtype | None = None
        self._checkpoints = False
        self._looked_at: list[PEMethod] = []  # of which the layers below θ_a were seen not to depend on it
        self._keeps_keys = "use_cache" in inspect.signature(backbone.forward).parameters

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def placed(self, batch: Batch) -> Batch:
        """A batch on the model's device.

        Raises:
            ModelError: a word piece is not in the vocabulary: on CUDA only waiting for the device would show it.
        """
        check_token_ids(self.backbone, batch)
        return to_device(batch, self.device)

    def trunk(self, batch: Batch) -> Tensor:
        """The backbone's last hidden states (B, T, D), before any method transforms them."""
        if "trunk" in batch:
            return batch["trunk"]
        with self._autocast(), skip_layers_below(self.backbone, batch):
            return self.backbone(**self._inputs(batch)).last_hidden_state  # type: ignore[no-any-return]

    def _inputs(self, batch: Batch) -> dict[str, Any]:
        check_token_ids(self.backbone, batch)
        # A decoder would keep keys and values for text to come.
        return {**inputs_of(batch), **({"use_cache": False} if self._keeps_keys else {})}

    def reuses_trunk(self, method: PEMethod | None = None) -> bool:
        """Whether moving the θ_a of ``method`` (by default the fine-tuning method) leaves :meth:`trunk` as it is."""
        return (method or self.method).output_only

    def first_layer(self, method: PEMethod | None = None) -> int:
        """Number of layers, from the lowest, that a pass may leave out when its batch has what they end with.

        These give the same when the θ_a of ``method`` (by default the fine-tuning method) moves. Zero where the
        architecture's layers cannot be left out, and for a method of which :meth:`reuses_trunk` holds.
        """
        method = method or self.method
        if method.output_only:
            return 0
        first = method.first_layer(self.backbone)
        return first if separable(self.backbone, first) else 0

    def unchanging(self, method: PEMethod | None = None) -> str | None:
        """What a batch calls the hidden states that stay when the θ_a of ``method`` moves; None where all change."""
        return self._key_of_states(self.first_layer(method), method)

    def _key_of_states(self, first: int, method: PEMethod | None) -> str | None:
        if self.reuses_trunk(method):
            return "trunk"
        return f"{INPUT_OF_LAYER}{first}" if first else None

    def reusing(self, batches: Sequence[Batch], method: PEMethod | None = None, *, once: bool = False) -> list[Batch]:
        """The batches, with the hidden states that stay the same when only θ_a and the heads move.

        Passes over what this returns run only the part of the backbone that θ_a reaches: none for a method that acts on
        the output. The rest runs here, for all batches as one where they go together. Nothing is added where dropout
        would make each pass another, or where θ_a reaches down to the first layer.

        Args:
            batches: on the model's device. Those that have hidden states already stay as they are.
            method: whose θ_a moves; by default the fine-tuning method.
            once: each batch is passed only once, so that dropout may be in it.
        """
        method = method or self.method
        if (is_stochastic(self.backbone) and not once) or all(map(has_states, batches)):
            return list(batches)
        first = self.first_layer(method)
        key = self._key_of_states(first, method)
        if key is None:
            return list(batches)
        padding = getattr(self.backbone.config, "pad_token_id", None) or 0
        whole = concatenate(batches, padding) if len(batches) > 1 else None
        if whole is None:
            return [{**batch, key: self._lower(batch, first, method)} for batch in batches]
        parts = split_hidden(self._lower(whole, first, method), batches)
        return [{**batch, key: part} for batch, part in zip(batches, parts, strict=True)]

    def _lower(self, batch: Batch, first: int, method: PEMethod) -> Tensor:
        """The hidden states that layer ``first``, the first with θ_a, gets; the last ones where ``first`` is zero.

        Raises:
            ModelError: they depend on θ_a, in spite of what the method says; that is looked at when it is first used.
        """
        graph = torch.is_grad_enabled()
        look = method not in self._looked_at
        with torch.set_grad_enabled(graph or look), self._autocast():
            hidden = run_below(self.backbone, self._inputs(batch), first) if first else self.trunk(batch)
        if look:
            self._refuse_dependence(hidden, first, method)
        return hidden if graph else hidden.detach()

    def _refuse_dependence(self, hidden: Tensor, first: int, method: PEMethod) -> None:
        declared: dict[str, Tensor] = {**parameter_dict(self.backbone, method.theta_a(self.backbone))}
        moved = {name: parameter for name, parameter in declared.items() if parameter.requires_grad}
        if hidden.requires_grad and moved:
            found: tuple[Tensor | None, ...] = torch.autograd.grad(
                hidden, list(moved.values()), torch.ones_like(hidden), retain_graph=True, allow_unused=True
            )
            reached = [name for name, gradient in zip(moved, found, strict=True) if gradient is not None]
            if reached:
                said = f"layers below {first} are" if first else "backbone is"
                raise ModelError(
                    f"{method.name} says that the {said} not touched by its θ_a, but {reached[0]} changes what comes "
                    "of it; override the method's first_layer to return 0, or its output_only to be False"
                )
        if len(moved) == len(declared):
            self._looked_at.append(method)

    def checkpoint_layers(self, enable: bool = True) -> None:
        """Keep only what enters each layer for the backward pass, and run the layer again there: memory for time.

        Also in passes without dropout, unlike transformers' ``gradient_checkpointing_enable``, which acts in training
        mode only; and right in the inner loop and under ``torch.func.functional_call``, where PyTorch's own is not.

        Args:
            enable: or turn it off.
        """
        checkpoint_layers(self.backbone, enable)
        self._checkpoints = enable
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Training or evaluation mode; layers that are checkpointed are so in both."""
        super().train(mode)
        if self._checkpoints:
            for part in self.backbone.modules():
                if isinstance(part, GradientCheckpointingLayer):
                    part.training = True  # by which it knows that it is to be checkpointed; it runs in its parts' mode
        return self

    def _autocast(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.autocast_dtype is None else torch.autocast(self.device.type, self.autocast_dtype)
