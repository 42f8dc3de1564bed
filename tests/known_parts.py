"""The parts of sixteen architectures' layers, read from transformers' code by hand: what structure has to find."""

from dataclasses import replace

from pemeta.backbone.architectures import Architecture

BERT = Architecture(
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
LLAMA = Architecture(
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
T5 = Architecture(
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
GPT2 = Architecture(
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
)
KNOWN: dict[str, Architecture] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), BERT),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), LLAMA),
    "t5": T5,
    "mt5": replace(T5, ffn_up=("layer.1.DenseReluDense.wi_0", "layer.1.DenseReluDense.wi_1")),
    "gpt2": GPT2,
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
        BERT,
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
