"""Architectures beside those of the contract suite: tiny, random, each with a batch of its inputs."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import torch
import transformers as t

D = 8
BERT = {
    "hidden_size": D,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "vocab_size": 30,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
ROBERTA = BERT | {"pad_token_id": 1, "max_position_embeddings": 42, "bos_token_id": 0, "eos_token_id": 2}
LLAMA = {k: BERT[k] for k in list(BERT)[:7]} | {
    "num_key_value_heads": 1,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "attention_dropout": 0.0,
}
OPT = {
    "vocab_size": 30,
    "hidden_size": D,
    "num_hidden_layers": 2,
    "ffn_dim": 12,
    "num_attention_heads": 2,
    "max_position_embeddings": 40,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "word_embed_proj_dim": D,
    "pad_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 2,
}
MORE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "albert": (
        "AlbertConfig",
        "AlbertModel",
        BERT | {"embedding_size": 6, "classifier_dropout_prob": 0.0, "inner_group_num": 1, "num_hidden_groups": 1},
    ),
    "mpnet": ("MPNetConfig", "MPNetModel", ROBERTA),
    "xlnet": (
        "XLNetConfig",
        "XLNetModel",
        {"vocab_size": 30, "d_model": D, "n_layer": 2, "n_head": 2, "d_inner": 12, "dropout": 0.0, "pad_token_id": 0},
    ),
    "bigbird": ("BigBirdConfig", "BigBirdModel", BERT | {"attention_type": "original_full"}),
    "bigbird-sparse": (
        "BigBirdConfig",
        "BigBirdModel",
        BERT
        | {"attention_type": "block_sparse", "block_size": 2, "num_random_blocks": 1, "max_position_embeddings": 80},
    ),
    "longformer": ("LongformerConfig", "LongformerModel", ROBERTA | {"attention_window": 4}),
    "funnel": (
        "FunnelConfig",
        "FunnelModel",
        {
            "vocab_size": 30,
            "block_sizes": [1, 1],
            "num_decoder_layers": 1,
            "d_model": D,
            "n_head": 2,
            "d_head": 4,
            "d_inner": 12,
            "hidden_dropout": 0.0,
            "attention_dropout": 0.0,
            "activation_dropout": 0.0,
        },
    ),
    "layoutlm": ("LayoutLMConfig", "LayoutLMModel", BERT),
    "nystromformer": (
        "NystromformerConfig",
        "NystromformerModel",
        BERT | {"segment_means_seq_len": 4, "num_landmarks": 4, "conv_kernel_size": 3},
    ),
    "roformer": ("RoFormerConfig", "RoFormerModel", BERT | {"embedding_size": 6}),
    "eurobert": ("EuroBertConfig", "EuroBertModel", LLAMA),
    "nomic": ("NomicBertConfig", "NomicBertModel", BERT),
    "esm": (
        "EsmConfig",
        "EsmModel",
        BERT | {"mask_token_id": 3, "position_embedding_type": "rotary", "token_dropout": False},
    ),
    "ernie": ("ErnieConfig", "ErnieModel", BERT),
    "xmod": ("XmodConfig", "XmodModel", ROBERTA | {"default_language": "en_XX", "languages": ["en_XX"]}),
    "mobilebert": (
        "MobileBertConfig",
        "MobileBertModel",
        BERT | {"intra_bottleneck_size": 8, "embedding_size": 6, "num_feedforward_networks": 1},
    ),
    "convbert": (
        "ConvBertConfig",
        "ConvBertModel",
        BERT | {"embedding_size": D, "conv_kernel_size": 3, "head_ratio": 1},
    ),
    "squeezebert": (
        "SqueezeBertConfig",
        "SqueezeBertModel",
        BERT
        | {
            "embedding_size": D,
            "q_groups": 1,
            "k_groups": 1,
            "v_groups": 1,
            "post_attention_groups": 1,
            "intermediate_groups": 1,
            "output_groups": 1,
        },
    ),
    "deberta": (
        "DebertaConfig",
        "DebertaModel",
        BERT | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False},
    ),
    "ibert": ("IBertConfig", "IBertModel", ROBERTA),
    "rembert": ("RemBertConfig", "RemBertModel", BERT | {"input_embedding_size": 6, "output_embedding_size": 6}),
    "fnet": ("FNetConfig", "FNetModel", {k: v for k, v in BERT.items() if k != "attention_probs_dropout_prob"}),
    "megatronbert": ("MegatronBertConfig", "MegatronBertModel", BERT),
    "luke": ("LukeConfig", "LukeModel", ROBERTA | {"entity_vocab_size": 5, "entity_emb_size": 4}),
    "gemma": ("GemmaConfig", "GemmaModel", LLAMA | {"head_dim": 4}),
    "gemma2": ("Gemma2Config", "Gemma2Model", LLAMA | {"head_dim": 4, "query_pre_attn_scalar": 4, "sliding_window": 4}),
    "gemma3": (
        "Gemma3TextConfig",
        "Gemma3TextModel",
        LLAMA | {"head_dim": 4, "query_pre_attn_scalar": 4, "sliding_window": 4},
    ),
    "phi3": ("Phi3Config", "Phi3Model", LLAMA | {"pad_token_id": 0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}),
    "phi": ("PhiConfig", "PhiModel", LLAMA | {"num_key_value_heads": 2, "resid_pdrop": 0.0, "embd_pdrop": 0.0}),
    "olmo2": ("Olmo2Config", "Olmo2Model", LLAMA),
    "smollm3": ("SmolLM3Config", "SmolLM3Model", LLAMA | {"pad_token_id": 0}),
    "granite": ("GraniteConfig", "GraniteModel", LLAMA),
    "gptneox": (
        "GPTNeoXConfig",
        "GPTNeoXModel",
        {k: v for k, v in LLAMA.items() if k != "num_key_value_heads"} | {"hidden_dropout": 0.0},
    ),
    "gptj": (
        "GPTJConfig",
        "GPTJModel",
        {
            "vocab_size": 30,
            "n_positions": 40,
            "n_embd": D,
            "n_layer": 2,
            "n_head": 2,
            "n_inner": 12,
            "rotary_dim": 2,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    "opt": ("OPTConfig", "OPTModel", OPT),
    "opt350": ("OPTConfig", "OPTModel", OPT | {"word_embed_proj_dim": 4, "do_layer_norm_before": False}),
    "bloom": (
        "BloomConfig",
        "BloomModel",
        {
            "vocab_size": 30,
            "hidden_size": D,
            "n_layer": 2,
            "n_head": 2,
            "hidden_dropout": 0.0,
            "attention_dropout": 0.0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    "falcon": (
        "FalconConfig",
        "FalconModel",
        {
            "vocab_size": 30,
            "hidden_size": D,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "hidden_dropout": 0.0,
            "attention_dropout": 0.0,
            "multi_query": True,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    "falcon-alibi": (
        "FalconConfig",
        "FalconModel",
        {
            "vocab_size": 30,
            "hidden_size": D,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "hidden_dropout": 0.0,
            "attention_dropout": 0.0,
            "multi_query": False,
            "alibi": True,
            "parallel_attn": False,
            "bias": True,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    "mamba": (
        "MambaConfig",
        "MambaModel",
        {
            "vocab_size": 30,
            "hidden_size": D,
            "state_size": 4,
            "num_hidden_layers": 2,
            "conv_kernel": 2,
            "expand": 2,
            "time_step_rank": 2,
            "use_mambapy": False,
            "pad_token_id": 0,
        },
    ),
    "mamba2": (
        "Mamba2Config",
        "Mamba2Model",
        {
            "vocab_size": 30,
            "hidden_size": D,
            "state_size": 4,
            "num_hidden_layers": 2,
            "conv_kernel": 2,
            "expand": 2,
            "num_heads": 4,
            "head_dim": 4,
            "n_groups": 1,
            "chunk_size": 4,
            "pad_token_id": 0,
        },
    ),
    "qwen3moe": (
        "Qwen3MoeConfig",
        "Qwen3MoeModel",
        LLAMA | {"head_dim": 4, "moe_intermediate_size": 6, "num_experts": 4, "num_experts_per_tok": 2},
    ),
    "mixtral": ("MixtralConfig", "MixtralModel", LLAMA | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "starcoder2": ("Starcoder2Config", "Starcoder2Model", LLAMA | {"residual_dropout": 0.0, "embedding_dropout": 0.0}),
    "stablelm": ("StableLmConfig", "StableLmModel", LLAMA | {"hidden_dropout": 0.0}),
    "cohere": ("CohereConfig", "CohereModel", LLAMA),
    "whisper-enc": (
        "WhisperConfig",
        "WhisperEncoder",
        {
            "vocab_size": 30,
            "d_model": D,
            "encoder_layers": 2,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 12,
            "decoder_layers": 1,
            "decoder_attention_heads": 2,
            "decoder_ffn_dim": 12,
            "num_mel_bins": 4,
            "max_source_positions": 6,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "activation_dropout": 0.0,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
    ),
    "wav2vec2": (
        "Wav2Vec2Config",
        "Wav2Vec2Model",
        {
            "hidden_size": D,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 12,
            "conv_dim": (4, 4),
            "conv_stride": (2, 2),
            "conv_kernel": (2, 2),
            "num_feat_extract_layers": 2,
            "feat_extract_norm": "layer",
            "num_conv_pos_embeddings": 4,
            "num_conv_pos_embedding_groups": 2,
            "hidden_dropout": 0.0,
            "attention_dropout": 0.0,
            "activation_dropout": 0.0,
            "feat_proj_dropout": 0.0,
            "layerdrop": 0.0,
            "final_dropout": 0.0,
        },
    ),
    "clip-text": (
        "CLIPTextConfig",
        "CLIPTextModel",
        {
            "vocab_size": 30,
            "hidden_size": D,
            "intermediate_size": 12,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 40,
            "pad_token_id": 1,
            "bos_token_id": 0,
            "eos_token_id": 2,
        },
    ),
    "clip-vision": (
        "CLIPVisionConfig",
        "CLIPVisionModel",
        {
            "hidden_size": D,
            "intermediate_size": 12,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 8,
            "patch_size": 4,
        },
    ),
    "dinov2": (
        "Dinov2Config",
        "Dinov2Model",
        {
            "hidden_size": D,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "mlp_ratio": 2,
            "image_size": 8,
            "patch_size": 4,
        },
    ),
    "swin": (
        "SwinConfig",
        "SwinModel",
        {
            "image_size": 8,
            "patch_size": 2,
            "embed_dim": 4,
            "depths": [1, 1],
            "num_heads": [1, 2],
            "window_size": 2,
            "drop_path_rate": 0.0,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
    ),
    "convnext": (
        "ConvNextConfig",
        "ConvNextModel",
        {
            "num_channels": 3,
            "patch_size": 2,
            "hidden_sizes": [4, 8],
            "depths": [1, 1],
            "num_stages": 2,
            "drop_path_rate": 0.0,
        },
    ),
    "resnet": ("ResNetConfig", "ResNetModel", {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1]}),
    "siglip-vision": (
        "SiglipVisionConfig",
        "SiglipVisionModel",
        {
            "hidden_size": D,
            "intermediate_size": 12,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 8,
            "patch_size": 4,
        },
    ),
    "beit": (
        "BeitConfig",
        "BeitModel",
        {
            "hidden_size": D,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 12,
            "image_size": 8,
            "patch_size": 4,
            "drop_path_rate": 0.0,
        },
    ),
    "vitmae": (
        "ViTMAEConfig",
        "ViTMAEModel",
        {
            "hidden_size": D,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 12,
            "image_size": 8,
            "patch_size": 2,
            "decoder_hidden_size": 8,
            "decoder_num_attention_heads": 2,
            "decoder_num_hidden_layers": 1,
        },
    ),
}
VISION = {"clip-vision", "dinov2", "swin", "convnext", "resnet", "siglip-vision", "beit", "vitmae"}


def more_backbone(name: str) -> t.PreTrainedModel:
    """A new backbone in evaluation mode, in float32; the same values each time."""
    config_name, model_name, fields = MORE[name]
    config_class = getattr(t, config_name)
    modelling = config_class.__module__.replace(".configuration_", ".modeling_")
    model_class = getattr(importlib.import_module(modelling), model_name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = config_class(**fields, attn_implementation="eager")
        if "moe" in name or name == "mixtral":
            config._experts_implementation = "eager"
        pooled = "add_pooling_layer" in inspect.signature(model_class.__init__).parameters
        model = model_class(config, **({"add_pooling_layer": False} if pooled else {}))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    assert isinstance(model, t.PreTrainedModel)
    return model.eval()


def more_batch(name: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Two examples."""
    generator = torch.Generator().manual_seed(0)
    if name in VISION:
        return {"pixel_values": torch.randn(2, 3, 8, 8, generator=generator).to(dtype)}
    if name == "whisper-enc":
        return {"input_features": torch.randn(2, 4, 12, generator=generator).to(dtype)}
    if name == "wav2vec2":
        return {"input_values": torch.randn(2, 24, generator=generator).to(dtype)}
    ids = torch.randint(3, 29, (2, 8), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
