"""Where each architecture keeps the parts of its layers: the table that in-layer methods read."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from torch import nn

from pemeta.errors import ModelError, counted, unknown_name

Part: TypeAlias = Literal["query", "key", "value", "attention_output", "ffn_up", "ffn_down"]
"""A linear map of a layer: the three projections into attention, the one out of it, and the two of the FFN."""

PARTS: tuple[Part, ...] = ("query", "key", "value", "attention_output", "ffn_up", "ffn_down")


@dataclass(frozen=True)
class Architecture:
    """Names of the parts of an architecture's layers, relative to a layer.

    Attributes:
        layers: Path of the list of layers in the backbone.
        attention: Module that computes attention and passes itself to transformers' attention interface.
        query: Query projection; query, key and value have the same name if they are one fused map.
        key: Key projection.
        value: Value projection.
        attention_output: Projection out of attention, whose output is added to the residual stream.
        ffn: Feed-forward block, called with the block's input; or, if ``ffn_residual``, its last module, called with
            the inner activation and the block's input, which it adds.
        ffn_up: Map(s) from the hidden width to the inner width; a gated block has two.
        ffn_down: Map from the inner width back to the hidden width.
        ffn_residual: Whether ``ffn`` is called as ``ffn(inner, input)`` and adds the input itself, as in BERT.
        output: What a layer returns. ``states``: its hidden states; ``pair``: these and None; with both, a pass that
            knows the output of the lower layers may skip them. ``more``: later layers need other outputs too, or the
            output is unknown.
    """

    layers: str
    attention: str
    query: str
    key: str
    value: str
    attention_output: str
    ffn: str
    ffn_up: tuple[str, ...]
    ffn_down: str
    ffn_residual: bool = False
    output: Literal["states", "pair", "more"] = "more"

    def part(self, part: Part) -> tuple[str, ...]:
        """Names of a part."""
        found = getattr(self, part)
        return found if isinstance(found, tuple) else (found,)

    @property
    def fused(self) -> bool:
        """Whether query, key and value are one map."""
        return self.query == self.key


_BERT = Architecture(
    layers="encoder.layer",
    attention="attention.self",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_output="attention.output.dense",
    ffn="output",
    ffn_up=("intermediate.dense",),
    ffn_down="output.dense",
    ffn_residual=True,
    output="states",
)
_LLAMA = Architecture(
    layers="layers",
    attention="self_attn",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    attention_output="self_attn.o_proj",
    ffn="mlp",
    ffn_up=("mlp.gate_proj", "mlp.up_proj"),
    ffn_down="mlp.down_proj",
    output="states",
)
_T5 = Architecture(
    layers="encoder.block",
    attention="layer.0.SelfAttention",
    query="layer.0.SelfAttention.q",
    key="layer.0.SelfAttention.k",
    value="layer.0.SelfAttention.v",
    attention_output="layer.0.SelfAttention.o",
    ffn="layer.1.DenseReluDense",
    ffn_up=("layer.1.DenseReluDense.wi",),
    ffn_down="layer.1.DenseReluDense.wo",
    output="more",  # the position bias of the first layer, which all others use
)

ARCHITECTURES: dict[str, Architecture] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), _BERT),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), _LLAMA),
    **dict.fromkeys(("t5", "mt5"), _T5),
    "distilbert": Architecture(
        layers="transformer.layer",
        attention="attention",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attention_output="attention.out_lin",
        ffn="ffn",
        ffn_up=("ffn.lin1",),
        ffn_down="ffn.lin2",
        output="states",
    ),
    "deberta-v2": replace(
        _BERT,
        query="attention.self.query_proj",
        key="attention.self.key_proj",
        value="attention.self.value_proj",
        output="pair",
    ),
    "modernbert": Architecture(
        layers="layers",
        attention="attn",
        query="attn.Wqkv",
        key="attn.Wqkv",
        value="attn.Wqkv",
        attention_output="attn.Wo",
        ffn="mlp",
        ffn_up=("mlp.Wi",),
        ffn_down="mlp.Wo",
        output="states",
    ),
    "gpt2": Architecture(
        layers="h",
        attention="attn",
        query="attn.c_attn",
        key="attn.c_attn",
        value="attn.c_attn",
        attention_output="attn.c_proj",
        ffn="mlp",
        ffn_up=("mlp.c_fc",),
        ffn_down="mlp.c_proj",
        output="states",
    ),
    "vit": Architecture(
        layers="layers",
        attention="attention",
        query="attention.q_proj",
        key="attention.k_proj",
        value="attention.v_proj",
        attention_output="attention.o_proj",
        ffn="mlp",
        ffn_up=("mlp.fc1",),
        ffn_down="mlp.fc2",
        output="states",
    ),
}
"""Architectures by transformers' ``config.model_type``. Add an entry to use in-layer methods on another one."""

_GATED_T5 = replace(_T5, ffn_up=("layer.1.DenseReluDense.wi_0", "layer.1.DenseReluDense.wi_1"))


def architecture_of(backbone: nn.Module) -> Architecture:
    """The table's entry for a backbone.

    Raises:
        ModelError: There is no entry for its ``config.model_type``, or the backbone does not match the entry.
    """
    config = getattr(backbone, "config", None)
    kind = str(getattr(config, "model_type", type(backbone).__name__))
    if kind not in ARCHITECTURES:
        raise ModelError(
            f"{unknown_name('architecture', kind, ARCHITECTURES)}; add the names of its parts to "
            "pemeta.backbone.architectures.ARCHITECTURES, or use a method that needs no entry: adapter with "
            "placement output, bitfit, layer_norm, prompt, full, head_only"
        )
    found = ARCHITECTURES[kind]
    if found == _T5 and getattr(config, "is_gated_act", False):  # T5 1.1 and mT5
        found = _GATED_T5
    try:
        layer = backbone.get_submodule(found.layers)[0]  # type: ignore[index] # a ModuleList
        for name in {found.attention, found.ffn, *(name for part in PARTS for name in found.part(part))}:
            layer.get_submodule(name)
    except (AttributeError, IndexError) as error:
        raise ModelError(
            f"{type(backbone).__name__} does not match the entry {kind!r} of "
            f"pemeta.backbone.architectures.ARCHITECTURES ({error}); correct the entry for this version of transformers"
        ) from None
    return found


def layer_names(backbone: nn.Module, top: int | None = None) -> Sequence[str]:
    """Names of the backbone's layers, from the lowest to the highest.

    Args:
        backbone: A backbone with an entry in the table.
        top: Number of layers to name, counted from the highest; None for all.

    Raises:
        ModelError: The backbone has fewer than ``top`` layers, or no entry.
    """
    where = architecture_of(backbone).layers
    number = len(backbone.get_submodule(where))  # type: ignore[arg-type] # a ModuleList
    if top is not None and top > number:
        layers = counted(number, "layer")
        raise ModelError(f"top_layers is {top}, but the backbone has {layers}; choose from 1 to {number}")
    return [f"{where}.{i}" for i in range(number - (number if top is None else top), number)]


def first_layer(backbone: nn.Module, names: Collection[str]) -> int:
    """Index of the lowest layer that contains one of the named parameters, under any of its names.

    Zero if a parameter is outside the layers, or if the layers are unknown.
    """
    try:
        prefixes = [f"{layer}." for layer in layer_names(backbone)]
    except ModelError:
        return 0
    every = list(backbone.named_parameters(remove_duplicate=False))
    declared = set(names)
    wanted = {id(parameter) for name, parameter in every if name in declared}
    lowest = len(prefixes) - 1
    for name in (name for name, parameter in every if id(parameter) in wanted):
        lowest = min(lowest, next((i for i, prefix in enumerate(prefixes) if name.startswith(prefix)), 0))
    return lowest


def linear_sizes(linear: nn.Module) -> tuple[int, int]:
    """Input and output width of a linear map: ``nn.Linear``, or the transposed ``Conv1D`` of GPT-2.

    Raises:
        ModelError: The module is neither; it is quantised, for example.
    """
    weight = getattr(linear, "weight", None)
    if weight is None or weight.ndim != 2 or not weight.is_floating_point():
        raise ModelError(
            f"{type(linear).__name__} is not a plain linear map; load the backbone unquantised, in floating point"
        )
    rows, columns = weight.shape
    return (rows, columns) if transposed(linear) else (columns, rows)


def key_width(backbone: nn.Module, layer: str) -> int:
    """Width of a layer's keys, and of its values, over all heads; less than that of its queries if queries share them.

    Args:
        backbone: A backbone with an entry in the table.
        layer: Name of the layer.

    Raises:
        ModelError: One map makes queries and keys, and its width is not that of whole heads.
    """
    parts = architecture_of(backbone)
    out = linear_sizes(backbone.get_submodule(f"{layer}.{parts.key}"))[1]
    both = 2 if parts.value == parts.key else 1  # keys and values
    if not parts.fused:
        return out // both
    attention, config = backbone.get_submodule(f"{layer}.{parts.attention}"), backbone.config
    heads: int = config.num_attention_heads  # type: ignore[union-attr,assignment]
    sizes = (getattr(where, "head_dim", None) for where in (attention, config))
    size = next((size for size in sizes if isinstance(size, int)), int(config.hidden_size) // heads)  # type: ignore[union-attr,arg-type]
    rest = out - heads * size
    if rest <= 0 or rest % (both * size):
        raise ModelError(
            f"{parts.key} of {type(backbone).__name__} has {out} outputs, which are not {heads} queries of {size} and "
            "whole heads of keys and values; use lora, adapter or prompt"
        )
    return rest // both


def transposed(linear: nn.Module) -> bool:
    """Whether the weight is (in, out), as in transformers' ``Conv1D``, rather than (out, in)."""
    return type(linear).__name__ == "Conv1D"


def attention_of(backbone: nn.Module) -> str:
    """The attention implementation of a backbone: ``eager``, ``sdpa`` etc., whether or not it has a prefix."""
    name = getattr(getattr(backbone, "config", None), "_attn_implementation", None)
    return str(name or "eager").removeprefix(PREFIXED)


PREFIXED = "pemeta_prefix_"
"""Start of the names, in transformers' attention interface, of attention with learned prefix keys and values."""
