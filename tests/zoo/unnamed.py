"""Further architectures of transformers that nobody promised: what works on them follows from their structure."""

from zoo.fields import (
    BART,
    BERT,
    CLIP_VISION,
    FALCON,
    GPT2,
    LLAMA,
    MODERNBERT,
    OPT,
    ROBERTA,
    SIZES,
    T5,
    VIT,
    WAV2VEC2,
    D,
    F,
    L,
)
from zoo.row import Row

_SQUEEZE = ("q_groups", "k_groups", "v_groups", "post_attention_groups", "intermediate_groups", "output_groups")
ENCODERS = {
    "bigbird-sparse": Row("big_bird", "BigBirdModel", BERT | {"block_size": 2, "num_random_blocks": 1}),
    "convbert": Row("convbert", "ConvBertModel", BERT | {"embedding_size": D, "conv_kernel_size": 3, "head_ratio": 1}),
    "data2vec-text": Row("data2vec.data2vec_text", "Data2VecTextModel", ROBERTA),
    "fnet": Row("fnet", "FNetModel", {k: v for k, v in BERT.items() if k != "attention_probs_dropout_prob"}),
    "gte": Row("gte", "GteModel", BERT),
    "ibert": Row("ibert", "IBertModel", ROBERTA),
    "lilt": Row("lilt", "LiltModel", BERT | {"hidden_size": 12, "channel_shrink_ratio": 2}),
    "luke": Row("luke", "LukeModel", ROBERTA | {"entity_vocab_size": 5, "entity_emb_size": 4}),
    "megatron-bert": Row("megatron_bert", "MegatronBertModel", BERT),
    "mobilebert": Row(
        "mobilebert",
        "MobileBertModel",
        BERT | {"intra_bottleneck_size": 8, "embedding_size": 6, "num_feedforward_networks": 1},
    ),
    "nystromformer": Row(
        "nystromformer",
        "NystromformerModel",
        BERT | {"segment_means_seq_len": 4, "num_landmarks": 4, "conv_kernel_size": 3},
    ),
    "rembert": Row("rembert", "RemBertModel", BERT | {"input_embedding_size": 6, "output_embedding_size": 6}),
    "roberta-prelayernorm": Row("roberta_prelayernorm", "RobertaPreLayerNormModel", ROBERTA),
    "roc-bert": Row(
        "roc_bert",
        "RoCBertModel",
        BERT
        | {"pronunciation_embed_dim": 4, "pronunciation_vocab_size": 30, "shape_embed_dim": 4, "shape_vocab_size": 30},
    ),
    "splinter": Row("splinter", "SplinterModel", BERT | {"question_token_id": 3}),
    "squeezebert": Row("squeezebert", "SqueezeBertModel", BERT | {"embedding_size": D} | dict.fromkeys(_SQUEEZE, 1)),
    "xlm": Row(
        "xlm",
        "XLMModel",
        {"vocab_size": 30, "emb_dim": D, "n_layers": L, "n_heads": 2, "dropout": 0.0, "attention_dropout": 0.0}
        | {"max_position_embeddings": 40, "pad_token_id": 0},
    ),
    "xlm-roberta-xl": Row("xlm_roberta_xl", "XLMRobertaXLModel", ROBERTA),
    "xmod": Row("xmod", "XmodModel", ROBERTA | {"default_language": "en_XX", "languages": ["en_XX"]}),
}

_HALF_ROTATED = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
_MOE = LLAMA | {"num_experts": 4, "num_experts_per_tok": 2}
_ALL_HEADS = {key: value for key, value in LLAMA.items() if key != "num_key_value_heads"}
DECODERS = {
    "apertus": Row("apertus", "ApertusModel", LLAMA),
    "arcee": Row("arcee", "ArceeModel", LLAMA),
    "biogpt": Row("biogpt", "BioGptModel", ROBERTA | {"activation_dropout": 0.0, "layerdrop": 0.0}),
    "codegen": Row("codegen", "CodeGenModel", GPT2 | {"n_head": 4, "rotary_dim": 2, "n_ctx": 40}),
    "cohere2": Row("cohere2", "Cohere2Model", LLAMA | {"sliding_window": 4}),
    "ctrl": Row(
        "ctrl",
        "CTRLModel",
        {"vocab_size": 30, "n_positions": 40, "n_embd": D, "dff": F, "n_layer": L, "n_head": 2}
        | {"resid_pdrop": 0.0, "embd_pdrop": 0.0},
    ),
    "diffllama": Row("diffllama", "DiffLlamaModel", LLAMA | {"num_key_value_heads": 2}),
    "ernie4_5": Row("ernie4_5", "Ernie4_5Model", LLAMA | {"head_dim": 4}),
    "exaone4": Row("exaone4", "Exaone4Model", LLAMA | {"sliding_window": 4}),
    "falcon-alibi": Row(
        "falcon",
        "FalconModel",
        FALCON | {"multi_query": False, "alibi": True, "parallel_attn": False, "bias": True},
    ),
    "glm": Row("glm", "GlmModel", LLAMA | {"head_dim": 4}),
    "gpt-bigcode": Row("gpt_bigcode", "GPTBigCodeModel", GPT2),
    "gpt-neo": Row(
        "gpt_neo",
        "GPTNeoModel",
        {"vocab_size": 30, "max_position_embeddings": 40, "hidden_size": D, "num_layers": L, "num_heads": 2}
        | {"attention_types": [[["global", "local"], 1]], "window_size": 4, "intermediate_size": F}
        | {"resid_dropout": 0.0, "embed_dropout": 0.0, "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2},
    ),
    "helium": Row("helium", "HeliumModel", LLAMA | {"head_dim": 4}),
    "modernbert-decoder": Row(
        "modernbert_decoder",
        "ModernBertDecoderModel",
        MODERNBERT,
    ),
    "mpt": Row(
        "mpt",
        "MptModel",
        {"vocab_size": 30, "d_model": D, "n_heads": 2, "n_layers": L, "expansion_ratio": 2, "max_seq_len": 40},
    ),
    "nemotron": Row("nemotron", "NemotronModel", LLAMA),
    "olmo": Row("olmo", "OlmoModel", LLAMA),
    "olmoe": Row("olmoe", "OlmoeModel", _MOE),
    "openai-gpt": Row(
        "openai",
        "OpenAIGPTModel",
        {key: value for key, value in GPT2.items() if key != "n_inner"},
    ),
    "opt-350m": Row("opt", "OPTModel", OPT | {"word_embed_proj_dim": 4, "do_layer_norm_before": False}),
    "persimmon": Row("persimmon", "PersimmonModel", _ALL_HEADS | {"hidden_dropout": 0.0}),
    "phi": Row("phi", "PhiModel", LLAMA | {"num_key_value_heads": 2, "resid_pdrop": 0.0, "embd_pdrop": 0.0}),
    "qwen2-moe": Row(
        "qwen2_moe",
        "Qwen2MoeModel",
        _MOE | {"moe_intermediate_size": 6, "shared_expert_intermediate_size": 6},
    ),
    "stablelm": Row("stablelm", "StableLmModel", LLAMA | {"hidden_dropout": 0.0, "rope_parameters": _HALF_ROTATED}),
}

_STATE_SPACE = SIZES | {"vocab_size": 30, "state_size": 4, "conv_kernel": 2, "expand": 2, "pad_token_id": 0}
_STATE_SPACE = {k: v for k, v in _STATE_SPACE.items() if k not in ("num_attention_heads", "intermediate_size")}
_HIERARCHY = {"drop_path_rate": 0.0, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
OTHERS = {
    "mamba": Row("mamba", "MambaModel", _STATE_SPACE | {"time_step_rank": 2, "use_mambapy": False}),
    "mamba2": Row(
        "mamba2", "Mamba2Model", _STATE_SPACE | {"num_heads": 4, "head_dim": 4, "n_groups": 1, "chunk_size": 4}
    ),
    "led-encoder": Row(
        "led", "LEDEncoder", BART | {"attention_window": 6, "max_encoder_position_embeddings": 40}, padded=False
    ),
    "longt5-encoder": Row("longt5", "LongT5EncoderModel", T5 | {"local_radius": 3}),
    "m2m100-encoder": Row("m2m_100", "M2M100Encoder", BART),
    "marian-encoder": Row("marian", "MarianEncoder", BART),
    "pegasus-encoder": Row("pegasus", "PegasusEncoder", BART | {"pad_token_id": 0}),
    "switch-encoder": Row(
        "switch_transformers",
        "SwitchTransformersEncoderModel",
        T5 | {"num_experts": 4, "num_sparse_encoder_layers": 1, "num_decoder_layers": 2, "expert_capacity": 8},
    ),
    "umt5": Row("umt5", "UMT5EncoderModel", T5),
    "beit": Row("beit", "BeitModel", VIT | {"drop_path_rate": 0.0}, "image"),
    "convnext": Row(
        "convnext",
        "ConvNextModel",
        {"patch_size": 2, "hidden_sizes": [4, 8], "depths": [1, 1], "num_stages": 2, "drop_path_rate": 0.0},
        "image",
    ),
    "deit": Row("deit", "DeiTModel", VIT, "image"),
    "dinov3": Row("dinov3_vit", "DINOv3ViTModel", CLIP_VISION, "image"),
    "ijepa": Row("ijepa", "IJepaModel", VIT, "image"),
    "resnet": Row("resnet", "ResNetModel", {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1]}, "image"),
    "segformer": Row(
        "segformer",
        "SegformerModel",
        {"num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [2, 1], "hidden_sizes": [4, 8], "patch_sizes": [3, 3]}
        | {"strides": [2, 2], "num_attention_heads": [1, 2], "mlp_ratios": [2, 2]}
        | _HIERARCHY,
        "image",
    ),
    "swinv2": Row(
        "swinv2",
        "Swinv2Model",
        {"image_size": 8, "patch_size": 2, "embed_dim": 4, "depths": [1, 1], "num_heads": [1, 2], "window_size": 2}
        | {"pretrained_window_sizes": [0, 0]}
        | _HIERARCHY,
        "image",
    ),
    "videomae": Row("videomae", "VideoMAEModel", VIT | {"num_frames": 2}, "video"),
    "vit-msn": Row("vit_msn", "ViTMSNModel", VIT, "image"),
    "yolos": Row("yolos", "YolosModel", VIT | {"image_size": [8, 8], "num_detection_tokens": 2}, "image"),
    "audio-spectrogram": Row(
        "audio_spectrogram_transformer",
        "ASTModel",
        {key: value for key, value in VIT.items() if key != "image_size"}
        | {"patch_size": 2, "frequency_stride": 2, "time_stride": 2, "max_length": 6, "num_mel_bins": 4},
        "spectrogram",
    ),
    "data2vec-audio": Row("data2vec.data2vec_audio", "Data2VecAudioModel", WAV2VEC2, "wave"),
    "wav2vec2-conformer": Row("wav2vec2_conformer", "Wav2Vec2ConformerModel", WAV2VEC2, "wave"),
    "wavlm": Row("wavlm", "WavLMModel", WAV2VEC2, "wave"),
}

UNNAMED = ENCODERS | DECODERS | OTHERS
