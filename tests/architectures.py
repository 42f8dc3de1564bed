"""The sixteen architectures of the contract suite, tiny and random, in float64, and their batches."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
import transformers as t
from zoo.fields import BERT, DISENTANGLED, GPT2, LLAMA, MODERNBERT, ROBERTA, T5, VIT, D, F, L
from zoo.row import Row

_SHORT = {"max_position_embeddings": 20}
_BERT = BERT | _SHORT
_ROBERTA = ROBERTA | {"max_position_embeddings": 22}
_LLAMA = LLAMA | _SHORT
ARCHITECTURES = {
    "bert": Row("bert", "BertModel", _BERT),
    "xlm-roberta": Row("xlm_roberta", "XLMRobertaModel", _ROBERTA),
    "roberta": Row("roberta", "RobertaModel", _ROBERTA),
    "camembert": Row("camembert", "CamembertModel", _ROBERTA),
    "distilbert": Row(
        "distilbert",
        "DistilBertModel",
        {"dim": D, "n_layers": L, "n_heads": 2, "hidden_dim": F, "vocab_size": 30, "dropout": 0.0}
        | {"attention_dropout": 0.0}
        | _SHORT,
    ),
    "electra": Row("electra", "ElectraModel", _BERT | {"embedding_size": 6}),
    "deberta-v2": Row("deberta_v2", "DebertaV2Model", _BERT | DISENTANGLED),
    "modernbert": Row("modernbert", "ModernBertModel", MODERNBERT | _SHORT),
    "t5": Row("t5", "T5EncoderModel", T5),
    "mt5": Row("mt5", "MT5EncoderModel", T5),
    "gpt2": Row("gpt2", "GPT2Model", GPT2 | {"n_positions": 20}),
    "llama": Row("llama", "LlamaModel", _LLAMA),
    "qwen2": Row("qwen2", "Qwen2Model", _LLAMA),
    "mistral": Row("mistral", "MistralModel", _LLAMA),
    "qwen3": Row("qwen3", "Qwen3Model", _LLAMA | {"head_dim": 4}),
    "vit": Row("vit", "ViTModel", VIT, "image"),
}
ALIKE = {"roberta", "camembert", "mt5", "qwen2", "mistral"}
"""Architectures whose layers are those of another one above: where all are looked at, they are among the long tests."""


def each_architecture(values: Iterable[Any], architecture: Callable[[Any], str] = str) -> list[Any]:
    """Values of a parametrised test, those of architectures that are like another one as long tests."""
    return [pytest.param(*as_tuple(v), marks=[pytest.mark.long] if architecture(v) in ALIKE else []) for v in values]


def as_tuple(value: Any) -> tuple[Any, ...]:
    """A tuple as it is, and anything else as one of it alone."""
    return value if isinstance(value, tuple) else (value,)


@dataclass(frozen=True)
class Shape:
    """What the formulas of θ_a's size are made of, counted by hand.

    Attributes:
        qkv: output widths of the query, key and value maps; of the one fused map where there is one.
        biases: scalars in biases.
        norms: scalars in normalisation layers.
        ups: maps from the width to the inner width.
        inner: output width of each of these.
        embedding: width of the token embeddings.
    """

    qkv: tuple[int, ...] = (D, D, D)
    # Per layer query, key, value, attention output, both norms: 6 D; feed-forward F + D; and the embeddings' norm.
    biases: int = L * (6 * D + F + D) + D
    norms: int = 2 * D * (2 * L + 1)
    ups: int = 1
    inner: int = F
    embedding: int = D

    @property
    def query_and_value(self) -> tuple[int, ...]:
        """Output widths of the maps that make queries and values."""
        return self.qkv[::2]  # the first and the last of three, or the one

    @property
    def kv(self) -> int:
        """Width of the keys."""
        return self.qkv[0] // 3 if len(self.qkv) == 1 else self.qkv[1]


_RMS = D * (2 * L + 1)  # no biases, and a final norm instead of the embeddings'
SHAPES = {
    **dict.fromkeys(("bert", "xlm-roberta", "roberta", "camembert", "distilbert"), Shape()),
    # Embeddings of width 6, so that its norm has 6 biases and not D, and a map with D biases leads to the width.
    "electra": Shape(biases=L * (6 * D + F + D) + 6 + D, norms=2 * D * 2 * L + 2 * 6, embedding=6),
    # Two more maps a layer, for relative positions.
    "deberta-v2": Shape(biases=L * (8 * D + F + D) + D),
    # No norm before the first layer's attention, but one after the embeddings and one at the end; a gated block.
    "modernbert": Shape(qkv=(3 * D,), biases=0, norms=_RMS, inner=2 * F),
    "t5": Shape(biases=0, norms=_RMS),
    "mt5": Shape(biases=0, norms=_RMS, ups=2),  # a gated block
    "gpt2": Shape(qkv=(3 * D,)),
    **dict.fromkeys(("llama", "mistral"), Shape(qkv=(D, 4, 4), biases=0, norms=_RMS, ups=2)),
    "qwen2": Shape(qkv=(D, 4, 4), biases=L * 16, norms=_RMS, ups=2),
    # Queries and keys are normalised too, over a head's 4 features.
    "qwen3": Shape(qkv=(D, 4, 4), biases=0, norms=_RMS + L * 2 * 4, ups=2),
    "vit": Shape(biases=L * (6 * D + F + D) + 2 * D),  # the patches' map and the final norm
}


def backbone(architecture: str, attention: str = "eager") -> t.PreTrainedModel:
    """A new backbone in evaluation mode; the same values each time."""
    attention = "eager" if architecture == "deberta-v2" else attention  # it has no other
    return copy.deepcopy(untouched(architecture, attention))


@cache
def untouched(architecture: str, attention: str = "eager") -> t.PreTrainedModel:
    """The one that the others are copies of, for what leaves it as it is."""
    return ARCHITECTURES[architecture].backbone(attention)


def batch(architecture: str, seed: int = 0, padded: bool = True) -> dict[str, torch.Tensor]:
    """Two sequences of six pieces, the second with two of padding; or two images of four patches."""
    generator = torch.Generator().manual_seed(seed)
    if architecture == "vit":
        labels = torch.randint(0, 3, (2, 5), generator=generator)
        return {"pixel_values": torch.randn(2, 3, 8, 8, generator=generator).double(), "labels": labels}
    ids = torch.randint(3, 30, (2, 6), generator=generator)
    labels = torch.randint(0, 3, (2, 6), generator=generator)
    mask = torch.ones_like(ids)
    if padded:
        pad = ARCHITECTURES[architecture].fields.get("pad_token_id", 0)
        ids[1, 4:], mask[1, 4:], labels[1, 4:] = pad, 0, -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
