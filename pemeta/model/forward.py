"""Running a model's backbone: as a whole or in part, in lower precision, with checkpointed layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from typing_extensions import Self

from pemeta.backbone.attention import attention_of
from pemeta.backbone.gradient_checkpointing import checkpoint_layers
from pemeta.backbone.joined_batches import JoinedPasses, concatenate, split_hidden
from pemeta.backbone.layer_reuse import (
    INPUT_OF_LAYER,
    has_states,
    is_stochastic,
    run_below,
    separable,
)
from pemeta.backbone.packing import as_rows, is_packed, joined_facts, unpacked
from pemeta.backbone.row_origin import is_unchanged
from pemeta.errors import ModelError
from pemeta.methods.base import PEMethod
from pemeta.model.whole_passes import WholePasses
from pemeta.typing import Batch
from pemeta.utils.modules import parameter_dict
from pemeta.utils.seeding import generator_states
from pemeta.utils.signatures import checked


class BackboneForward(WholePasses):
    """A backbone and the ways to run it: a :class:`~pemeta.PEModel` without the methods' transforms and the heads."""

    method: PEMethod

    def __init__(self, backbone: PreTrainedModel) -> None:
        super().__init__(backbone)
        self._checkpoints = False
        self._verified: list[PEMethod] = []  # methods whose θ_a was seen not to affect the layers below it
        self._joined = JoinedPasses()
        self._draws: bool | None = None  # whether a pass was seen to draw random numbers without dropout

    @checked()
    def reuses_hidden_states(self, method: PEMethod | None = None) -> bool:
        """Whether :meth:`hidden_states` do not depend on the θ_a of ``method`` (by default the fine-tuning method)."""
        return (method or self.method).output_only

    @checked()
    def first_layer(self, method: PEMethod | None = None) -> int:
        """Number of layers, from the lowest, that a pass may skip if its batch has their output.

        Their output does not depend on the θ_a of ``method`` (by default the fine-tuning method). Zero if the
        architecture's layers cannot be skipped, if the backbone is compiled, and for a method for which
        :meth:`reuses_hidden_states` is true.
        """
        method = method or self.method
        if method.output_only:
            return 0
        first = method.first_layer(self.backbone)
        return first if separable(self.backbone, first) else 0

    @checked()
    def unchanging(self, method: PEMethod | None = None) -> str | None:
        """A batch's key for the hidden states that do not depend on the θ_a of ``method``; None if all do."""
        return self._hidden_states_key(self.first_layer(method), method)

    def _hidden_states_key(self, first: int, method: PEMethod | None) -> str | None:
        if self.reuses_hidden_states(method):
            return "trunk"
        return f"{INPUT_OF_LAYER}{first}" if first else None

    @checked()
    def reusing(self, batches: Sequence[Batch], method: PEMethod | None = None, *, once: bool = False) -> list[Batch]:
        """The batches, together with the hidden states that do not change as long as only θ_a and the heads do.

        Passes over the returned batches run only the part of the backbone that θ_a affects: none of it for a method
        that acts on the output. The rest runs here, for all batches at once if they can be concatenated and
        :meth:`joins` finds that this changes nothing. Nothing is added if each pass would be different, through dropout
        or other random numbers, or if θ_a affects the first layer.

        Args:
            batches: batches on the model's device; those that already have hidden states are returned unchanged.
            method: the method whose θ_a changes; by default the fine-tuning method.
            once: whether each batch is used for one pass only, so that the hidden states may include dropout.
        """
        method = method or self.method
        if ((self._draws or is_stochastic(self.backbone)) and not once) or all(map(has_states, batches)):
            return list(batches)
        first = self.first_layer(method)
        key = self._hidden_states_key(first, method)
        if key is None:
            return list(batches)
        whole = self._whole(batches, first) if len(batches) > 1 else None
        if whole is None:
            parts = [self._below(batch, first, method) for batch in batches]
        else:
            below = self._below(whole, first, method)
            parts = split_hidden(unpacked(below, whole) if first else below, batches)
            parts = [as_rows(part, batch) for part, batch in zip(parts, batches, strict=True)] if first else parts
        if self._draws and not once:
            return list(batches)
        return [{**batch, key: part} for batch, part in zip(batches, parts, strict=True)]

    @checked()
    def joins(self, batches: Sequence[Batch], method: PEMethod | None = None) -> bool:
        """Whether batches can run as one, padded to the longest, with the hidden states that each has by itself.

        This is verified by comparing the two, once for the backbone with its methods, for equal and different lengths,
        and again for batches twice as long. It fails if padding changes what a backbone computes, or if its hidden
        states are not one for each position of the attention mask.

        Args:
            batches: batches on the model's device.
            method: the method whose θ_a changes; by default the fine-tuning method.
        """
        return len(batches) < 2 or self._whole(batches, self.first_layer(method)) is not None

    def _whole(self, batches: Sequence[Batch], first: int) -> Batch | None:
        """The batches as one, if they can run so up to layer ``first``, or as a whole if that is zero."""
        whole = concatenate(batches, getattr(self.backbone.config, "pad_token_id", None) or 0)
        if whole is None:
            return None
        if any(map(is_packed, batches)):
            whole = self._joined_rows(whole, batches)
            if whole is None:
                return None
        kind = (first, self.attached, attention_of(self.backbone), self.backbone.dtype, is_packed(whole))
        states = partial(self._run, first=first)
        same = self._joined.same(self, batches, whole, states=states, autocast=self._autocast, kind=kind)
        return whole if same else None

    def _joined_rows(self, whole: Batch, batches: Sequence[Batch]) -> Batch | None:
        """Packed batches as one, in rows of all their sentences; None if they cannot run so."""
        facts = joined_facts(batches) if all(map(is_unchanged, batches)) else None
        if facts is None or any(method.extra_positions for method in self.attached):
            return None  # each batch's rows have places for a prompt, whose hidden states would be lost
        return self._rows({**whole, **facts})

    def _run(self, batch: Batch, first: int) -> Tensor:
        """The input of layer ``first``, or the last hidden states if it is zero, of each sentence."""
        if first:
            return unpacked(run_below(self.backbone, self._inputs(batch), first), batch)
        return unpacked(self._states(batch), batch)

    def _below(self, batch: Batch, first: int, method: PEMethod) -> Tensor:
        """The input of layer ``first``, the lowest that θ_a affects; the last hidden states if ``first`` is zero.

        Raises:
            ModelError: it depends on θ_a, contrary to what the method declares; this is verified on first use.
        """
        graph = torch.is_grad_enabled()
        verify = method not in self._verified
        with self._seen_drawing(batch), torch.set_grad_enabled(graph or verify), self._autocast():
            hidden = run_below(self.backbone, self._inputs(batch), first) if first else self.hidden_states(batch)
        if verify:
            self._refuse_dependence(hidden, first, method)
        return hidden if graph else hidden.detach()

    @contextmanager
    def _seen_drawing(self, batch: Batch) -> Iterator[None]:
        """Find out, in the first pass without dropout, whether passes draw random numbers all the same.

        They do in masked autoencoders and with attention by random hashes.
        """
        counts = any(type(value) is not Tensor for value in batch.values())  # tensors without values
        if self._draws is not None or counts or is_stochastic(self.backbone):
            yield
            return
        before = generator_states(self.device)
        yield
        after = generator_states(self.device)
        self._draws = any(not torch.equal(state, after[kind]) for kind, state in before.items())

    def _refuse_dependence(self, hidden: Tensor, first: int, method: PEMethod) -> None:
        declared: dict[str, Tensor] = {**parameter_dict(self.backbone, method.theta_a(self.backbone))}
        trained = {name: parameter for name, parameter in declared.items() if parameter.requires_grad}
        if hidden.requires_grad and trained:
            found: tuple[Tensor | None, ...] = torch.autograd.grad(
                hidden, list(trained.values()), torch.ones_like(hidden), retain_graph=True, allow_unused=True
            )
            reached = [name for name, gradient in zip(trained, found, strict=True) if gradient is not None]
            if reached:
                where = f"layers below {first}" if first else "the backbone"
                raise ModelError(
                    f"{method.name} declares that θ_a does not affect {where}, but it does by {reached[0]}; "
                    "override the method's first_layer to return 0, or its output_only to return False"
                )
        if len(trained) == len(declared):
            self._verified.append(method)

    @checked()
    def checkpoint_layers(self, enable: bool = True) -> None:
        """Keep only the input of each layer for the backward pass, and recompute the layer there: memory for time.

        Unlike transformers' ``gradient_checkpointing_enable``, which acts in training mode only, this also applies to
        passes in evaluation mode; and its gradients are correct in the inner loop and under
        ``torch.func.functional_call``, where those of PyTorch's own checkpointing are not.

        Args:
            enable: False to turn it off.
        """
        checkpoint_layers(self.backbone, enable)
        self._checkpoints = enable
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; layers are checkpointed in both."""
        super().train(mode)
        if self._checkpoints:
            for part in self.backbone.modules():
                if isinstance(part, GradientCheckpointingLayer):
                    part.training = True  # makes transformers checkpoint it; its submodules keep their own mode
        return self
