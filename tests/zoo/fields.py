"""Fields of tiny configurations that several architectures share: width 8, two layers, two heads, 30 tokens."""

from typing import Any

D, L, HEADS, F = 8, 2, 2, 12  # width, layers, heads, inner width of the feed-forward block

SIZES: dict[str, Any] = {
    "hidden_size": D,
    "num_hidden_layers": L,
    "num_attention_heads": HEADS,
    "intermediate_size": F,
}
BERT = SIZES | {
    "vocab_size": 30,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
DISENTANGLED = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False}
ROBERTA = BERT | {"pad_token_id": 1, "max_position_embeddings": 42, "bos_token_id": 0, "eos_token_id": 2}
LLAMA = SIZES | {
    "vocab_size": 30,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "num_key_value_heads": 1,
    "attention_dropout": 0.0,
}
MODERNBERT = SIZES | {
    "vocab_size": 30,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "cls_token_id": 1,
    "eos_token_id": 2,
    "sep_token_id": 2,
}
GPT2 = {
    "vocab_size": 30,
    "n_positions": 40,
    "n_embd": D,
    "n_layer": L,
    "n_head": HEADS,
    "n_inner": F,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
}
OPT = {
    "vocab_size": 30,
    "hidden_size": D,
    "num_hidden_layers": L,
    "ffn_dim": F,
    "num_attention_heads": HEADS,
    "max_position_embeddings": 40,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "word_embed_proj_dim": D,
    "pad_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 2,
}
BLOOM = {
    "vocab_size": 30,
    "hidden_size": D,
    "n_layer": L,
    "n_head": HEADS,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FALCON = {
    "vocab_size": 30,
    "hidden_size": D,
    "num_hidden_layers": L,
    "num_attention_heads": HEADS,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
T5 = {
    "d_model": D,
    "d_kv": 4,
    "d_ff": F,
    "num_layers": L,
    "num_heads": HEADS,
    "vocab_size": 30,
    "dropout_rate": 0.0,
    "decoder_start_token_id": 0,
}
BART = {
    "vocab_size": 30,
    "d_model": D,
    "encoder_layers": L,
    "encoder_attention_heads": HEADS,
    "encoder_ffn_dim": F,
    "encoder_layerdrop": 0.0,
    "decoder_layers": 1,
    "decoder_attention_heads": HEADS,
    "decoder_ffn_dim": F,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
VIT = SIZES | {
    "image_size": 8,
    "patch_size": 4,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
CLIP_VISION = SIZES | {"image_size": 8, "patch_size": 4}
CLIP_TEXT = SIZES | {"vocab_size": 30, "max_position_embeddings": 40, "pad_token_id": 1, "bos_token_id": 0}
WAV2VEC2 = SIZES | {
    "conv_dim": (4, 4),
    "conv_stride": (2, 2),
    "conv_kernel": (2, 2),
    "feat_extract_norm": "layer",
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "final_dropout": 0.0,
    "layerdrop": 0.0,
}
