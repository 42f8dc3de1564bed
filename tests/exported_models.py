"""Tiny backbones of many architectures, and tasks on them, for tests of what other packages make of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
)

from pemeta import HeadSpec, PEMethod, PEModel

TINY = {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
IDS = torch.tensor([[2, 7, 8, 9, 3], [2, 9, 3, 0, 0]])
BATCH = {"input_ids": IDS, "attention_mask": (IDS != 0).long()}
ENCODERS = {
    "bert": lambda: BertModel(BertConfig(**TINY), add_pooling_layer=False),
    "roberta": lambda: RobertaModel(RobertaConfig(**TINY, pad_token_id=0), add_pooling_layer=False),
    "electra": lambda: ElectraModel(ElectraConfig(**TINY, embedding_size=8)),
    "distilbert": lambda: DistilBertModel(DistilBertConfig(vocab_size=30, dim=8, n_layers=2, n_heads=2, hidden_dim=12)),
}
DECODERS = {
    "gpt2": lambda: GPT2Model(GPT2Config(vocab_size=30, n_embd=8, n_layer=2, n_head=2, n_positions=16, pad_token_id=0)),
    "llama": lambda: LlamaModel(LlamaConfig(**TINY, num_key_value_heads=1, pad_token_id=0)),
}
LANGUAGE_MODELS = {
    "gpt2 tied": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=30, n_embd=8, n_layer=2, n_head=2, n_positions=32)),
    "llama untied": lambda: LlamaForCausalLM(LlamaConfig(**TINY, num_key_value_heads=1, pad_token_id=0)),
    "llama tied": lambda: LlamaForCausalLM(
        LlamaConfig(**TINY, num_key_value_heads=1, pad_token_id=0, tie_word_embeddings=True)
    ),
    "gemma2 capped": lambda: Gemma2ForCausalLM(
        Gemma2Config(**TINY, num_key_value_heads=1, head_dim=4, final_logit_softcapping=2.0)
    ),
    "granite scaled": lambda: GraniteForCausalLM(GraniteConfig(**TINY, num_key_value_heads=1, logits_scaling=3.0)),
}
"""Whole language models of transformers, whose output matrix is tied or not, capped or scaled."""
LORA = {"name": "lora", "rank": 2, "targets": ["query", "ffn_up"]}


def trained(backbone: PreTrainedModel, head: HeadSpec, method=LORA) -> PEModel:
    """A model with a task, and all parameters changed."""
    torch.manual_seed(0)
    model = PEModel(backbone.eval(), PEMethod.parse(method))
    model.add_head("t", head)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model.eval()


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, atol=1e-5, rtol=1e-5)


def some(names: Iterable[Any], *kept: Any) -> list[Any]:
    """Parameters of a test, of which all but some are among the long ones."""
    return [name if name in kept else pytest.param(name, marks=pytest.mark.long) for name in names]
