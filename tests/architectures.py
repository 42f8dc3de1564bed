"""Tiny random backbones of every architecture that the contract suite covers, in float64, and their batches."""

import inspect
from dataclasses import dataclass

import torch
import transformers as t

from pemeta.utils.hub import quiet

D, L, F = 8, 2, 12  # width, layers, inner width of the feed-forward block
_BERT = {
    "hidden_size": D,
    "num_hidden_layers": L,
    "num_attention_heads": 2,
    "intermediate_size": F,
    "vocab_size": 30,
    "max_position_embeddings": 20,
    "pad_token_id": 0,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
_ROBERTA = _BERT | {"pad_token_id": 1, "max_position_embeddings": 22, "bos_token_id": 0, "eos_token_id": 2}
_LLAMA = {key: _BERT[key] for key in list(_BERT)[:7]} | {"num_key_value_heads": 1, "bos_token_id": 1, "eos_token_id": 2}


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


RMS = D * (2 * L + 1)  # no biases, and a final norm instead of the embeddings'
ARCHITECTURES = {
    "bert": (t.BertConfig, t.BertModel, _BERT, Shape()),
    "xlm-roberta": (t.XLMRobertaConfig, t.XLMRobertaModel, _ROBERTA, Shape()),
    "roberta": (t.RobertaConfig, t.RobertaModel, _ROBERTA, Shape()),
    "camembert": (t.CamembertConfig, t.CamembertModel, _ROBERTA, Shape()),
    "distilbert": (
        t.DistilBertConfig,
        t.DistilBertModel,
        {"dim": D, "n_layers": L, "n_heads": 2, "hidden_dim": F, "vocab_size": 30, "max_position_embeddings": 20}
        | {"dropout": 0.0, "attention_dropout": 0.0},
        Shape(),
    ),
    # Embeddings of width 6, so that its norm has 6 biases and not D, and a map with D biases leads to the width.
    "electra": (
        t.ElectraConfig,
        t.ElectraModel,
        _BERT | {"embedding_size": 6},
        Shape(biases=L * (6 * D + F + D) + 6 + D, norms=2 * D * 2 * L + 2 * 6, embedding=6),
    ),
    # Two more maps a layer, for relative positions.
    "deberta-v2": (
        t.DebertaV2Config,
        t.DebertaV2Model,
        _BERT | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False},
        Shape(biases=L * (8 * D + F + D) + D),
    ),
    # No norm before the first layer's attention, but one after the embeddings and one at the end; a gated block.
    "modernbert": (
        t.ModernBertConfig,
        t.ModernBertModel,
        {key: _BERT[key] for key in list(_BERT)[:7]}
        | {"bos_token_id": 1, "cls_token_id": 1, "eos_token_id": 2, "sep_token_id": 2},
        Shape(qkv=(3 * D,), biases=0, norms=RMS, inner=2 * F),
    ),
    "t5": (
        t.T5Config,
        t.T5EncoderModel,
        {"d_model": D, "d_kv": 4, "d_ff": F, "num_layers": L, "num_heads": 2, "vocab_size": 30, "dropout_rate": 0.0},
        Shape(biases=0, norms=RMS),
    ),
    "mt5": (  # a gated block
        t.MT5Config,
        t.MT5EncoderModel,
        {"d_model": D, "d_kv": 4, "d_ff": F, "num_layers": L, "num_heads": 2, "vocab_size": 30, "dropout_rate": 0.0},
        Shape(biases=0, norms=RMS, ups=2),
    ),
    "gpt2": (
        t.GPT2Config,
        t.GPT2Model,
        {"n_embd": D, "n_layer": L, "n_head": 2, "n_inner": F, "vocab_size": 30, "n_positions": 20}
        | {"bos_token_id": 1, "eos_token_id": 2, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
        Shape(qkv=(3 * D,)),
    ),
    "llama": (t.LlamaConfig, t.LlamaModel, _LLAMA, Shape(qkv=(D, 4, 4), biases=0, norms=RMS, ups=2)),
    "qwen2": (t.Qwen2Config, t.Qwen2Model, _LLAMA, Shape(qkv=(D, 4, 4), biases=L * 16, norms=RMS, ups=2)),
    "mistral": (t.MistralConfig, t.MistralModel, _LLAMA, Shape(qkv=(D, 4, 4), biases=0, norms=RMS, ups=2)),
    # Queries and keys are normalised too, over a head's 4 features.
    "qwen3": (
        t.Qwen3Config,
        t.Qwen3Model,
        _LLAMA | {"head_dim": 4},
        Shape(qkv=(D, 4, 4), biases=0, norms=RMS + L * 2 * 4, ups=2),
    ),
    "vit": (
        t.ViTConfig,
        t.ViTModel,
        {key: _BERT[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")}
        | {"image_size": 8, "patch_size": 4, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
        Shape(biases=L * (6 * D + F + D) + 2 * D),  # the patches' map and the final norm
    ),
}


def backbone(architecture: str, attention: str = "eager") -> t.PreTrainedModel:
    """A new backbone in evaluation mode; the same values each time."""
    config_class, model_class, fields, _ = ARCHITECTURES[architecture]
    attention = "eager" if architecture == "deberta-v2" else attention  # it has no other
    with torch.random.fork_rng(), quiet():
        torch.manual_seed(0)
        config = config_class(**fields, attn_implementation=attention)
        pooled = "add_pooling_layer" in inspect.signature(model_class.__init__).parameters
        model = model_class(config, **({"add_pooling_layer": False} if pooled else {}))
        with torch.no_grad():  # initial values are so small, or zero, that little would show
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model.double().eval()


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
        pad = ARCHITECTURES[architecture][2].get("pad_token_id", 0)
        ids[1, 4:], mask[1, 4:], labels[1, 4:] = pad, 0, -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
