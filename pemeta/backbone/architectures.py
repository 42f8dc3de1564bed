"""Where the parts of a Transformer layer are in each architecture: the one table that in-layer methods read."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from torch import nn

from pemeta.errors import ModelError, unknown_name

Part: TypeAlias = Literal["query", "key", "value", "attention_output", "ffn_up", "ffn_down"]
"""A linear map of a layer: three projections into attention and one out of it, and the feed-forward block's two."""

PARTS: tuple[Part, ...] = ("query", "key", "value", "attention_output", "ffn_up", "ffn_down")


@dataclass(frozen=True)
class Architecture:
    """Names of the parts of an architecture's layers, relative to a layer.

    Attributes:
        layers: where the list of layers is in the backbone.
        attention: the module that computes attention, and hands itself to transformers' attention interface.
        query: the query projection; one name for query, key and value where they are one fused map.
        key: the key projection.
        value: the value projection.
        attention_output: the projection out of attention, whose output joins the residual stream.
        ffn: the feed-forward block, called with the block's input; or, where ``ffn_residual``, its last module,
            called with the inner activation and the block's input, which it adds.
        ffn_up: the map(s) from the hidden width to the inner width; a gated block has two.
        ffn_down: the map back.
        ffn_residual: whether ``ffn`` is called as ``ffn(inner, input)`` and adds the input itself, as in BERT.
        output: what a layer returns: its hidden ``states``, or these in a ``pair`` with None; then layers may be left
            out of a pass that knows what they end with. ``more`` is for what later layers need too, or is not known.
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
        """Whether one map makes query, key and value."""
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
    output="more",  # the first layer's position bias, for all others
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
"""By transformers' ``config.model_type``. Add an entry to use in-layer methods on another architecture."""

_GATED_T5 = replace(_T5, ffn_up=("layer.1.DenseReluDense.wi_0", "layer.1.DenseReluDense.wi_1"))


def architecture_of(backbone: nn.Module) -> Architecture:
    """The table's entry for a backbone.

    Raises:
        ModelError: there is none for its ``config.model_type``, or the backbone is not built as the entry says.
    """
    config = getattr(backbone, "config", None)
    kind = str(getattr(config, "model_type", type(backbone).__name__))
    if kind not in ARCHITECTURES:
        raise ModelError(
            f"{unknown_name('architecture', kind, ARCHITECTURES)}; add its layers' names to "
            "pemeta.backbone.architectures.ARCHITECTURES, or "
            "take a method that needs none: adapter with placement output, bitfit, layer_norm, prompt, full, head_only"
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
            f"{type(backbone).__name__} is not built as pemeta.backbone.architectures expects of {kind!r} ({error}); "
            "correct the entry in pemeta.backbone.architectures.ARCHITECTURES for this version of transformers"
        ) from None
    return found


def layer_names(backbone: nn.Module, top: int | None = None) -> Sequence[str]:
    """Names of the backbone's layers, from the lowest to the highest.

    Args:
        backbone: with an entry in the table.
        top: only the last ``top`` layers; all of them where None.

    Raises:
        ModelError: the backbone has fewer than ``top`` layers, or no entry.
    """
    where = architecture_of(backbone).layers
    number = len(backbone.get_submodule(where))  # type: ignore[arg-type] # a ModuleList
    if top is not None and top > number:
        raise ModelError(f"top_layers is {top}, but the backbone has {number} layers; choose from 1 to {number}")
    return [f"{where}.{i}" for i in range(number - (number if top is None else top), number)]


def first_layer(backbone: nn.Module, names: Collection[str]) -> int:
    """Index of the lowest layer that one of the named parameters is in, under any of its names.

    Zero where a parameter is in no layer, or where the layers cannot be told.
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
        ModelError: it is neither, such as a quantised one.
    """
    weight = getattr(linear, "weight", None)
    if weight is None or weight.ndim != 2 or not weight.is_floating_point():
        raise ModelError(
            f"{type(linear).__name__} is not a plain linear map; load the backbone unquantised, in floating point"
        )
    rows, columns = weight.shape
    return (rows, columns) if transposed(linear) else (columns, rows)


def transposed(linear: nn.Module) -> bool:
    """Whether the weight is (in, out), as in transformers' ``Conv1D``, and not (out, in)."""
    return type(linear).__name__ == "Conv1D"


def attention_of(backbone: nn.Module) -> str:
    """Which attention a backbone computes: ``eager``, ``sdpa`` ..., also where a prefix stands before it."""
    name = getattr(getattr(backbone, "config", None), "_attn_implementation", None)
    return str(name or "eager").removeprefix(PREFIXED)


PREFIXED = "pemeta_prefix_"
"""Names, in transformers' attention interface, of attention with learned keys and values before the sequence's."""
