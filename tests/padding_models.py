"""Tiny random backbones that treat padding in ways of their own, and sentences of any length with it on either side."""

import inspect

import torch
import transformers as t
from zoo.fields import BERT, LLAMA, OPT, ROBERTA, D

from pemeta.utils.hub import quiet

WINDOWS = {
    "modernbert-local": (
        t.ModernBertConfig,
        t.ModernBertModel,
        {key: BERT[key] for key in list(BERT)[:7]}
        | {"num_hidden_layers": 3, "local_attention": 4, "global_attn_every_n_layers": 3}
        | {"bos_token_id": 1, "cls_token_id": 1, "eos_token_id": 2, "sep_token_id": 2},
    ),
    "mistral": (t.MistralConfig, t.MistralModel, LLAMA | {"sliding_window": 3}),
    "qwen2": (
        t.Qwen2Config,
        t.Qwen2Model,
        LLAMA | {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1},
    ),
    "gemma2": (
        t.Gemma2Config,
        t.Gemma2Model,
        LLAMA | {"head_dim": 4, "query_pre_attn_scalar": 4, "sliding_window": 4},
    ),
    "gemma3": (
        t.Gemma3TextConfig,
        t.Gemma3TextModel,
        LLAMA | {"head_dim": 4, "query_pre_attn_scalar": 4, "sliding_window": 4},
    ),
    "longformer": (t.LongformerConfig, t.LongformerModel, ROBERTA | {"attention_window": 4}),
}
"""Attention to the tokens nearby only, in some layers or in all."""

RELATIVE = {
    "mpnet": (t.MPNetConfig, t.MPNetModel, ROBERTA),
    "t5": (
        t.T5Config,
        t.T5EncoderModel,
        {"d_model": D, "d_kv": 4, "d_ff": 12, "num_layers": 2, "num_heads": 2, "vocab_size": 30, "dropout_rate": 0.0},
    ),
    "deberta-v2": (
        t.DebertaV2Config,
        t.DebertaV2Model,
        BERT | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False},
    ),
    "xlnet": (
        t.XLNetConfig,
        t.XLNetModel,
        {"vocab_size": 30, "d_model": D, "n_layer": 2, "n_head": 2, "d_inner": 12, "dropout": 0.0, "pad_token_id": 0},
    ),
    "roformer": (t.RoFormerConfig, t.RoFormerModel, BERT | {"embedding_size": 6}),
    "esm": (
        t.EsmConfig,
        t.EsmModel,
        BERT | {"mask_token_id": 3, "position_embedding_type": "rotary", "token_dropout": False},
    ),
    "bloom": (
        t.BloomConfig,
        t.BloomModel,
        {"vocab_size": 30, "hidden_size": D, "n_layer": 2, "n_head": 2, "hidden_dropout": 0.0}
        | {"attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2},
    ),
}
"""Distances between tokens, in a bias, a table, or a rotation that no argument of the backbone changes."""

ABSOLUTE = {
    "bert": (t.BertConfig, t.BertModel, BERT),
    "xlm-roberta": (t.XLMRobertaConfig, t.XLMRobertaModel, ROBERTA),
    "opt": (t.OPTConfig, t.OPTModel, OPT),
    "gpt2": (
        t.GPT2Config,
        t.GPT2Model,
        {"n_embd": D, "n_layer": 2, "n_head": 2, "n_inner": 12, "vocab_size": 30, "n_positions": 40}
        | {"bos_token_id": 1, "eos_token_id": 2, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    ),
}
"""A table of positions, some of which count padding."""

DEPENDENT = {
    "funnel": (
        t.FunnelConfig,
        t.FunnelModel,
        {"vocab_size": 30, "block_sizes": [1, 1], "num_decoder_layers": 1, "d_model": D, "n_head": 2, "d_head": 4}
        | {"d_inner": 12, "hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0},
    ),
    "nystromformer": (
        t.NystromformerConfig,
        t.NystromformerModel,
        BERT | {"segment_means_seq_len": 4, "num_landmarks": 4, "conv_kernel_size": 3},
    ),
    "mobilebert": (
        t.MobileBertConfig,
        t.MobileBertModel,
        BERT | {"intra_bottleneck_size": 8, "embedding_size": 6, "num_feedforward_networks": 1},
    ),
    "convbert": (
        t.ConvBertConfig,
        t.ConvBertModel,
        BERT | {"embedding_size": D, "conv_kernel_size": 3, "head_ratio": 1},
    ),
    "fnet": (
        t.FNetConfig,
        t.FNetModel,
        {key: value for key, value in BERT.items() if key != "attention_probs_dropout_prob"},
    ),
}
"""Padding changes what is computed: pooling, landmarks, convolutions, and Fourier transforms over all positions."""

WAV2VEC2 = {
    "wav2vec2": (
        t.Wav2Vec2Config,
        t.Wav2Vec2Model,
        {"hidden_size": D, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
        | {"conv_dim": (4, 4), "conv_stride": (2, 2), "conv_kernel": (2, 2), "num_feat_extract_layers": 2}
        | {"feat_extract_norm": "layer", "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
        | {"hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "feat_proj_dropout": 0.0}
        | {"layerdrop": 0.0, "final_dropout": 0.0, "mask_time_prob": 0.0},
    ),
}
"""A hidden state for every four samples, under a mask over samples."""

ALL = WINDOWS | RELATIVE | ABSOLUTE | DEPENDENT | WAV2VEC2


def made(name: str, attention: str = "eager") -> t.PreTrainedModel:
    """A new backbone in float32 and evaluation mode; the same values each time."""
    config_class, model_class, fields = ALL[name]
    with torch.random.fork_rng(), quiet():
        torch.manual_seed(0)
        config = config_class(**fields, attn_implementation=attention)
        pooled = "add_pooling_layer" in inspect.signature(model_class.__init__).parameters
        model = model_class(config, **({"add_pooling_layer": False} if pooled else {}))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model.eval()


def pad_id(name: str) -> int:
    return ALL[name][2].get("pad_token_id", 0)


def sentences(name: str, *lengths: int, left: int = 0, right: int = 0, seed: int = 0) -> dict[str, torch.Tensor]:
    """One sentence for each length, padded to the longest on the side that is padded, and beyond by a number."""
    generator, most, rows, masks = torch.Generator().manual_seed(seed), max(lengths), [], []
    for length in lengths:
        ids = torch.randint(3, 30, (length,), generator=generator)
        sides = (left + (most - length) * bool(left), right + (most - length) * (not left))
        rows.append(torch.nn.functional.pad(ids, sides, value=pad_id(name)))
        masks.append(torch.nn.functional.pad(torch.ones_like(ids), sides))
    return {"input_ids": torch.stack(rows), "attention_mask": torch.stack(masks)}
