"""Tiny language models of transformers, whole, tied and untied, with values that let scales and caps show."""

import torch
import transformers as t

from pemeta.utils.hub import quiet

V = 30
LLAMA = {
    "vocab_size": V,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2 = {"vocab_size": V, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 20, "bos_token_id": 1} | {
    "eos_token_id": 2,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
}
CAUSAL = {
    "llama": ("Llama", LLAMA),
    "mistral": ("Mistral", LLAMA),
    "qwen2": ("Qwen2", LLAMA),
    "qwen3": ("Qwen3", LLAMA),
    "gemma2": ("Gemma2", LLAMA | {"final_logit_softcapping": 5.0}),
    "gemma3": ("Gemma3Text", LLAMA | {"final_logit_softcapping": 5.0}),
    "granite": ("Granite", LLAMA | {"logits_scaling": 4.0}),
    "cohere": ("Cohere", LLAMA | {"logit_scale": 0.0625}),
    "phi3": ("Phi3", LLAMA),
    "gpt-neox": ("GPTNeoX", LLAMA),
    "gpt2": ("GPT2", GPT2),
}
"""By name, the models that the head is promised for; each has an output matrix tied to the embedding, or its own."""
EACH = [(name, tied) for name in CAUSAL for tied in (True, False)]
MASKED = {
    "bert": ("Bert", {}),
    "roberta": ("Roberta", {"max_position_embeddings": 40}),
    "distilbert": ("DistilBert", {"dim": 8, "hidden_dim": 12, "n_layers": 1, "n_heads": 2, "dropout": 0.0}),
    "electra": ("Electra", {"embedding_size": 4}),
    "modernbert": ("ModernBert", {"reference_compile": False}),
    "xlm-roberta": ("XLMRoberta", {"max_position_embeddings": 40}),
}


def shaken(model):
    """A model with values of about one, not those of an initialisation, so that caps and other matrices show."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            parameter.add_(noise.to(parameter.dtype))
    return model.eval()


def causal(name, tied=True, dtype=torch.float32, attention="eager"):
    kind, fields = CAUSAL[name]
    return _made(t.AutoModelForCausalLM, kind, fields | {"tie_word_embeddings": tied}, dtype, attention)


def masked(name, dtype=torch.float32):
    kind, fields = MASKED[name]
    own = {key: LLAMA[key] for key in list(LLAMA)[:5]} | {"pad_token_id": 0}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return _made(t.AutoModelForMaskedLM, kind, own | dropout | fields, dtype, "eager")


def _made(auto, kind, fields, dtype, attention):
    torch.manual_seed(0)
    with quiet():
        config = getattr(t, f"{kind}Config")(**fields)
        return shaken(auto.from_config(config, attn_implementation=attention).to(dtype))


def batch(seed=0, rows=2, length=6, labelled=None):
    """Ids, of which the first ``labelled`` are no labels; all are, if it is None."""
    ids = torch.randint(3, V, (rows, length), generator=torch.Generator().manual_seed(seed))
    labels = ids.clone()
    labels[:, : labelled or 0] = -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def theirs(model, name):
    """The name in transformers' class of a parameter of a PEModel."""
    where, _, rest = name.partition(".")
    return rest if where == "output" else f"{model.backbone.base_model_prefix}.{rest}"
