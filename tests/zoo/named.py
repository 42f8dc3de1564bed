"""Architectures beside the sixteen of ``architectures`` that must work, each with a tiny configuration."""

from zoo.fields import (
    BART,
    BERT,
    BLOOM,
    CLIP_TEXT,
    CLIP_VISION,
    DISENTANGLED,
    FALCON,
    GPT2,
    LLAMA,
    OPT,
    ROBERTA,
    VIT,
    WAV2VEC2,
    D,
    F,
    L,
)
from zoo.row import Row

ENCODERS = {
    "albert": Row("albert", "AlbertModel", BERT | {"embedding_size": 6}),
    "mpnet": Row("mpnet", "MPNetModel", ROBERTA),
    "xlnet": Row(
        "xlnet",
        "XLNetModel",
        {"vocab_size": 30, "d_model": D, "n_layer": L, "n_head": 2, "d_inner": F, "dropout": 0.0, "pad_token_id": 0},
    ),
    "bigbird": Row("big_bird", "BigBirdModel", BERT | {"attention_type": "original_full"}),
    # Its gradients are NaN in float64 if padding sees padding alone, and it pads to a multiple of its window.
    "longformer": Row("longformer", "LongformerModel", ROBERTA | {"attention_window": 6}, padded=False),
    "roformer": Row("roformer", "RoFormerModel", BERT | {"embedding_size": 6}),
    "ernie": Row("ernie", "ErnieModel", BERT),
    "eurobert": Row("eurobert", "EuroBertModel", LLAMA),
    "nomic-bert": Row("nomic_bert", "NomicBertModel", BERT),
    "esm": Row("esm", "EsmModel", BERT | {"mask_token_id": 3, "position_embedding_type": "rotary"}),
    "layoutlm": Row("layoutlm", "LayoutLMModel", BERT),
    "deberta": Row("deberta", "DebertaModel", BERT | DISENTANGLED),
    "funnel": Row(
        "funnel",
        "FunnelModel",
        {"vocab_size": 30, "block_sizes": [1, 1], "num_decoder_layers": 1, "d_model": D, "n_head": 2, "d_head": 4}
        | {"d_inner": F, "hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0},
    ),
}

_GEMMA = LLAMA | {"head_dim": 4, "query_pre_attn_scalar": 4, "sliding_window": 4}
DECODERS = {
    "gemma": Row("gemma", "GemmaModel", LLAMA | {"head_dim": 4}),
    "gemma2": Row("gemma2", "Gemma2Model", _GEMMA),
    "gemma3": Row("gemma3", "Gemma3TextModel", _GEMMA),
    "phi3": Row("phi3", "Phi3Model", LLAMA | {"resid_pdrop": 0.0, "embd_pdrop": 0.0}),
    "olmo2": Row("olmo2", "Olmo2Model", LLAMA),
    "smollm3": Row("smollm3", "SmolLM3Model", LLAMA),
    "granite": Row("granite", "GraniteModel", LLAMA),
    "cohere": Row("cohere", "CohereModel", LLAMA),
    "opt": Row("opt", "OPTModel", OPT),
    "gpt-neox": Row(
        "gpt_neox",
        "GPTNeoXModel",
        {key: value for key, value in LLAMA.items() if key != "num_key_value_heads"} | {"hidden_dropout": 0.0},
    ),
    "gpt-j": Row("gptj", "GPTJModel", GPT2 | {"rotary_dim": 2}),
    "bloom": Row("bloom", "BloomModel", BLOOM),
    "falcon": Row("falcon", "FalconModel", FALCON | {"multi_query": True}),
    "starcoder2": Row("starcoder2", "Starcoder2Model", LLAMA | {"residual_dropout": 0.0, "embedding_dropout": 0.0}),
    "mixtral": Row("mixtral", "MixtralModel", LLAMA | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen3-moe": Row(
        "qwen3_moe",
        "Qwen3MoeModel",
        LLAMA | {"head_dim": 4, "moe_intermediate_size": 6, "num_experts": 4, "num_experts_per_tok": 2},
    ),
    "gpt-oss": Row(
        "gpt_oss",
        "GptOssModel",
        LLAMA | {"head_dim": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 4},
    ),
}

OTHERS = {
    "bart-encoder": Row("bart", "BartEncoder", BART),
    "whisper-encoder": Row("whisper", "WhisperEncoder", BART | {"num_mel_bins": 4, "max_source_positions": 6}, "mel"),
    "clip-text": Row("clip", "CLIPTextModel", CLIP_TEXT | {"eos_token_id": 2}),
    "clip-vision": Row("clip", "CLIPVisionModel", CLIP_VISION, "image"),
    "siglip-text": Row("siglip", "SiglipTextModel", CLIP_TEXT | {"eos_token_id": 2}),
    "siglip-vision": Row("siglip", "SiglipVisionModel", CLIP_VISION, "image"),
    "dinov2": Row(
        "dinov2",
        "Dinov2Model",
        {key: value for key, value in VIT.items() if key != "intermediate_size"} | {"mlp_ratio": 2},
        "image",
    ),
    "swin": Row(
        "swin",
        "SwinModel",
        {"image_size": 8, "patch_size": 2, "embed_dim": 4, "depths": [1, 1], "num_heads": [1, 2], "window_size": 2}
        | {"drop_path_rate": 0.0, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
        "image",
    ),
    "vit-mae": Row(
        "vit_mae",
        "ViTMAEModel",
        VIT
        | {"patch_size": 2, "decoder_hidden_size": 8, "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 1},
        "masked image",
    ),
    "wav2vec2": Row("wav2vec2", "Wav2Vec2Model", WAV2VEC2, "wave"),
    "hubert": Row("hubert", "HubertModel", WAV2VEC2, "wave"),
}

NAMED = ENCODERS | DECODERS | OTHERS
