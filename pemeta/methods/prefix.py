"""Prefix tuning: learned keys and values, prepended to those of the sequence in each layer's attention."""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from pemeta.backbone.architectures import key_width, layer_names, parts_of
from pemeta.backbone.attention import PREFIXED, attention_of
from pemeta.backbone.positions import position_ids, rotary, takes_positions
from pemeta.errors import ModelError
from pemeta.methods.inserted import HookFunction, Inserted, Insertion
from pemeta.methods.positions import PaddingLast, keeps_cache, named_arguments

CHILD = "pemeta_prefix"


class KeysValues(nn.Module):
    """P learned keys and values (P, W) for one layer, where W is the width of its keys over all heads."""

    def __init__(self, length: int, width: int, init_std: float) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.randn(length, width) * init_std)
        self.values = nn.Parameter(torch.randn(length, width) * init_std)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return keys and values, (P, W) each."""
        return self.keys, self.values


class SharedEmbeddings(nn.Module):
    """The part of a reparametrised prefix that all layers share: embeddings (P, D) and the network's first map."""

    def __init__(self, length: int, width: int, units: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(length, width))
        self.down = nn.Linear(width, units)

    def forward(self) -> Tensor:
        """Compute the hidden units (P, H)."""
        return torch.tanh(self.down(self.embedding))


class Reparametrised(nn.Module):
    """Keys and values as in :class:`KeysValues`, computed from shared embeddings by a network with one hidden layer.

    The network's last map, which serves all layers, is split into one part per layer.
    """

    def __init__(self, shared: SharedEmbeddings, width: int, units: int) -> None:
        super().__init__()
        self.shared = shared
        self.up = nn.Linear(units, 2 * width)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Compute keys and values, (P, W) each."""
        keys, values = self.up(self.shared()).chunk(2, dim=-1)
        return keys, values


def _prefixed(
    attend: HookFunction,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    **kwargs: Any,
) -> Any:
    """Compute attention with the module's prefix prepended to keys and values, visible from every position.

    Args:
        attend: transformers' attention function, with the same arguments.
        module: the attention module; without a prefix, plain attention is computed.
        query: (B, heads, T, d).
        key: (B, key-value heads, S, d).
        value: like ``key``.
        mask: (B or 1, heads or 1, T, S), True or 0 at visible positions; None if ``attend`` needs none.
        kwargs: other arguments of ``attend``.
    """
    if CHILD not in module._modules:
        return attend(module, query, key, value, mask, **kwargs)
    keys, values = getattr(module, CHILD)()
    prefix, length = keys.shape[-2], key.shape[2]
    key = torch.cat([_as_heads(module, keys, key), key], dim=2)
    value = torch.cat([_as_heads(module, values, value), value], dim=2)
    causal = kwargs.get("is_causal")
    if mask is None and (getattr(module, "is_causal", True) if causal is None else causal) and query.shape[2] > 1:
        # The causal mask that `attend` would apply by a flag, which does not account for a prefix.
        positions = torch.arange(length, device=key.device)
        mask = (positions <= positions[length - query.shape[2] :, None])[None, None]
    if mask is not None:
        mask = F.pad(mask, (prefix, 0), value=mask.dtype == torch.bool)
    if kwargs.get("position_bias") is not None:  # T5 adds it to the scores
        kwargs["position_bias"] = F.pad(kwargs["position_bias"], (prefix, 0))
    return attend(module, query, key, value, mask, **kwargs)


def _as_heads(module: nn.Module, vectors: Tensor, like: Tensor) -> Tensor:
    """A prefix's keys or values (P, W) as those of the sequence, (B, heads, P, d).

    Those of several tasks, (G, P, W), go to as many groups of sentences.

    Raises:
        ModelError: attention has keys or values of another width than W.
    """
    batch, heads, _, size = like.shape
    if vectors.shape[-1] != heads * size:  # a view as that many heads could have another length
        raise ModelError(
            f"{type(module).__name__} attends to keys and values of width {heads * size} ({heads} heads of {size}), "
            f"but by the maps that make them the prefix has a width of {vectors.shape[-1]}; use lora, adapter or prompt"
        )
    split = vectors.view(*vectors.shape[:-1], heads, size).transpose(-3, -2).to(like.dtype)
    if split.ndim == 3:
        return split.expand(batch, -1, -1, -1)
    return split[:, None].expand(-1, batch // len(split), -1, -1, -1).flatten(0, 1)


def _prefixed_sdpa(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    query, key, value, mask, kwargs = _arguments(*args, **kwargs)
    return _prefixed(sdpa_attention_forward, module, query, key, value, mask, **kwargs)


def _prefixed_eager(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    query, key, value, mask, kwargs = _arguments(*args, **kwargs)
    return _prefixed(_eager(module), module, query, key, value, mask, **kwargs)


def _arguments(query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any) -> Any:
    """The arguments of an attention function as a tuple, whether or not the mask is given by keyword."""
    return query, key, value, attention_mask, kwargs


def _eager(module: nn.Module) -> HookFunction:
    """The eager attention function of the module's architecture; each architecture has its own."""
    return sys.modules[type(module).__module__].eager_attention_forward  # type: ignore[no-any-return]


for _name, _function, _mask in (("sdpa", _prefixed_sdpa, sdpa_mask), ("eager", _prefixed_eager, eager_mask)):
    AttentionInterface.register(PREFIXED + _name, _function)
    AttentionMaskInterface.register(PREFIXED + _name, _mask)


class Prefix(Inserted):
    """Prefix tuning: P learned keys and values in each layer, which every position attends to.

    They are inserted through transformers' attention interface, so that no architecture needs code of its own.
    θ_a has ``2 P W`` parameters per layer, where W is the width of a layer's keys over all heads; reparametrised,
    ``P D + (D + 1) H``, and ``2 W (H + 1)`` per layer.

    Attributes:
        length: P; 16, our choice (Li and Liang use 10 to 200).
        reparametrize: number of hidden units H of the network that computes keys and values (Li and Liang, 2021,
            §4.3); null (our choice) for no such network.
        init_std: initial standard deviation of keys and values without reparametrisation; 0.02, our choice.
        top_layers: number of layers to adapt, counted from the top; null for all.

    >>> Prefix(length=4).identity_at_start
    False
    """

    name: ClassVar[str] = "prefix"
    paper: ClassVar[str] = "Li and Liang (2021), Prefix-Tuning: Optimizing Continuous Prompts for Generation"

    length: int = Field(16, gt=0)
    reparametrize: int | None = Field(None, gt=0)
    init_std: float = Field(0.02, ge=0)
    top_layers: int | None = Field(None, gt=0)

    @property
    def child(self) -> str:
        """Name of the added modules."""
        return CHILD

    @property
    def by_example(self) -> bool:
        """True: keys and values of a task go to its own sentences."""
        return True

    @property
    def identity_at_start(self) -> bool:
        """False: even zero keys and values receive attention weight."""
        return False

    def unsupported(self, backbone: nn.Module) -> str | None:
        """The reason; also if attention bypasses transformers' interface, or is neither eager nor SDPA."""
        reason = super().unsupported(backbone)
        if reason is not None:
            return reason
        attention = backbone.get_submodule(self.insertions(backbone)[0].path)
        if not hasattr(sys.modules[type(attention).__module__], "ALL_ATTENTION_FUNCTIONS"):
            return (
                f"{type(attention).__name__} does not use transformers' attention interface, so keys and values "
                "cannot be prepended to its own; use lora, adapter or prompt"
            )
        if attention_of(backbone) not in ("eager", "sdpa"):
            return (
                f"a prefix needs eager or sdpa attention; found {attention_of(backbone)!r}; load the backbone with "
                "attention: sdpa"
            )
        return None

    def insertions(self, backbone: nn.Module) -> Sequence[Insertion]:
        """Keys and values in each layer's attention."""
        shared: list[SharedEmbeddings] = []  # filled on first use: describing the insertions must draw no numbers

        def make(width: int) -> nn.Module:
            if self.reparametrize is None:
                return KeysValues(self.length, width, self.init_std)
            if not shared:
                shared.append(SharedEmbeddings(self.length, backbone.config.hidden_size, self.reparametrize))  # type: ignore[union-attr,arg-type]
            return Reparametrised(shared[0], width, self.reparametrize)

        found = []
        for layer in layer_names(backbone, self.top_layers):
            path = f"{layer}.{parts_of(backbone, layer).one('attention')}"
            found.append(Insertion(path, partial(make, key_width(backbone, layer))))
        return found

    def attach(self, backbone: nn.Module) -> None:
        """Insert the keys and values, and make the backbone attend to them."""
        super().attach(backbone)
        _own_configuration(backbone)
        _set_attention(backbone, PREFIXED + attention_of(backbone))
        backbone.register_forward_pre_hook(_before, with_kwargs=True)
        backbone.register_forward_hook(_after)

    def detach(self, backbone: nn.Module) -> None:
        """Remove the keys and values, and restore the backbone's attention."""
        super().detach(backbone)
        _set_attention(backbone, attention_of(backbone))
        for hooks, own in ((backbone._forward_hooks, _after), (backbone._forward_pre_hooks, _before)):
            for key in [key for key, hook in hooks.items() if hook is own]:
                del hooks[key]
                backbone._forward_pre_hooks_with_kwargs.pop(key, None)


PADDING_LAST = PaddingLast("prefix")


def _before(backbone: nn.Module, arguments: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Refuse attention that would silently ignore the prefix, and keep padding from coming between it and a sentence.

    Keys of a prefix have no position. Where positions rotate keys, those of the sentence must be what they are without
    padding: by ``position_ids`` that skip it, or by moving it to the right.
    """
    if not str(backbone.config._attn_implementation).startswith(PREFIXED):  # type: ignore[union-attr]
        raise ModelError(
            f"the backbone's attention was set to {attention_of(backbone)!r} after a prefix was attached, and ignores "
            "the prefix; detach the prefix, set the attention, and attach it again"
        )
    PADDING_LAST.leave()
    given = named_arguments(backbone, arguments, kwargs)
    mask = given.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        return None
    if rotary(backbone) and takes_positions(backbone):
        if given.get("position_ids") is not None:
            return None
        own = next(given[key] for key in ("input_ids", "inputs_embeds") if given.get(key) is not None)
        # Of a later pass, the mask has a place for all that went before.
        return (), {**given, **{key: every[:, -own.shape[1] :] for key, every in position_ids(backbone, mask).items()}}
    if given.get("past_key_values") is not None:
        return None
    moved = PADDING_LAST.before(given)
    if moved is given:
        return None
    if keeps_cache(backbone, given):  # later passes would not find the keys where they were moved to
        PADDING_LAST.leave()
        return None
    return (), moved


def _after(backbone: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
    """Move hidden states back, if padding was moved."""
    return PADDING_LAST.after(output)


def _own_configuration(backbone: nn.Module) -> None:
    """Give a backbone its own configuration, so that setting its attention does not affect another backbone."""
    shared = backbone.config
    own = copy.deepcopy(shared)
    for module in backbone.modules():
        if getattr(module, "config", None) is shared:
            module.config = own


def _set_attention(backbone: nn.Module, name: str) -> None:
    assert isinstance(backbone, PreTrainedModel)  # because it has an attention interface
    backbone.set_attn_implementation(name)
