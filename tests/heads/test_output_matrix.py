"""Whether the word embedding is the output matrix: by transformers' own language models, run whole, as the oracle."""

import json

import pytest
import torch
import transformers as t
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from pemeta import CausalLM, HeadOnly, PEModel, Prefix
from pemeta.backbone.output_matrix import why_not_tied
from pemeta.errors import ModelError
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
    "tie_word_embeddings": True,
}
BASE = {key: LLAMA[key] for key in list(LLAMA)[:5]}
TIED = {
    "llama": ("Llama", LLAMA),
    "mistral": ("Mistral", LLAMA),
    "qwen2": ("Qwen2", LLAMA),
    "qwen3": ("Qwen3", LLAMA),
    "gemma": ("Gemma", LLAMA),
    "gemma2 without caps": ("Gemma2", LLAMA | {"final_logit_softcapping": None}),
    "olmo2": ("Olmo2", LLAMA),
    "smollm3": ("SmolLM3", LLAMA),
    "phi3": ("Phi3", LLAMA),
    "stablelm": ("StableLm", LLAMA),
    "starcoder2": ("Starcoder2", LLAMA),
    "mixtral": ("Mixtral", LLAMA | {"num_local_experts": 2}),
    "granite of factor 1": ("Granite", LLAMA | {"logits_scaling": 1.0}),
    "cohere of factor 1": ("Cohere", LLAMA | {"logit_scale": 1.0}),
    "gpt2": ("GPT2", {"vocab_size": V, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 20}),
    "gpt-neox": ("GPTNeoX", BASE | {"tie_word_embeddings": True}),
    "bloom": ("Bloom", {"vocab_size": V, "hidden_size": 8, "n_layer": 1, "n_head": 2}),
    "falcon": ("Falcon", {key: BASE[key] for key in BASE if key != "intermediate_size"}),
    "opt": (
        "OPT",
        {key: BASE[key] for key in BASE if key != "intermediate_size"} | {"ffn_dim": 12, "word_embed_proj_dim": 8},
    ),
    "mamba": (
        "Mamba",
        {"vocab_size": V, "hidden_size": 8, "num_hidden_layers": 1, "state_size": 4, "time_step_rank": 2},
    ),
}
UNTIED = {
    f"{name} untied": (kind, fields | {"tie_word_embeddings": False}) for name, (kind, fields) in list(TIED.items())[:4]
}
UNTIED["phi"] = ("Phi", LLAMA | {"tie_word_embeddings": False, "num_key_value_heads": 2})
MORE = {
    "gemma2": ("Gemma2", LLAMA | {"final_logit_softcapping": 30.0}),
    "gemma2 with a wide cap": ("Gemma2", LLAMA | {"final_logit_softcapping": 300.0}),
    "gemma3": ("Gemma3Text", LLAMA | {"final_logit_softcapping": 5.0}),
    "granite": ("Granite", LLAMA | {"logits_scaling": 4.0}),
    "cohere": ("Cohere", LLAMA | {"logit_scale": 0.0625}),
    "recurrent-gemma": ("RecurrentGemma", LLAMA | {"lru_width": 8, "num_hidden_layers": 3}),
    "bert": ("Bert", BASE | {"is_decoder": True}),
    "roberta": ("Roberta", BASE | {"is_decoder": True}),
}


def language_model(kind, fields):
    torch.manual_seed(0)
    with quiet():
        config = getattr(t, f"{kind}Config")(**fields)
        model = t.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # initial values are so small that a cap would not show
            parameter.add_(torch.randn_like(parameter))
    return model if kind in ("Mixtral", "Mamba") else model.double()  # these compute in float32


@pytest.mark.parametrize(("kind", "fields"), (TIED | UNTIED | MORE).values(), ids=list(TIED | UNTIED | MORE))
@torch.no_grad()
def test_the_reason_is_there_exactly_where_logits_differ(kind, fields):
    model = language_model(kind, fields)
    ids = torch.randint(3, V, (2, 6))
    embedding = model.get_input_embeddings().weight
    products = F.linear(model.base_model(input_ids=ids).last_hidden_state, embedding)
    same = torch.allclose(model(input_ids=ids).logits, products, rtol=5e-6, atol=1e-5)
    assert (why_not_tied(model.base_model) is None) == same, why_not_tied(model.base_model)


def test_each_reason_is_expected():
    """So that the test above does not hold because everything is refused, or nothing."""
    for cases, says in (
        (TIED, ""),
        (UNTIED, "has an output matrix of its own"),
        (MORE, "more than a product"),
    ):
        for name, (kind, fields) in cases.items():
            with quiet():
                config = getattr(t, f"{kind}Config")(**fields)
                found = why_not_tied(Configured(config)) or ""
            assert says in found, name
            assert bool(found) == bool(says), (name, found)


class Configured(torch.nn.Module):
    """What the reason depends on."""

    def __init__(self, config):
        super().__init__()
        self.config = config


def batch():
    ids = torch.randint(3, V, (2, 6), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


@pytest.mark.parametrize("name", ["llama", "gemma", "gpt2"])
def test_tied_logits_are_those_of_the_pretrained_model(name):
    whole = language_model(*TIED[name])
    expected = whole(**batch()).loss
    model = PEModel(whole.base_model, HeadOnly()).eval()
    model.add_head("text", CausalLM(vocab_size=V, output="tied"))
    torch.testing.assert_close(model.loss(batch(), "text"), expected.double())
    if name != "gemma":  # has no entry for a prefix
        model.attach(Prefix(length=1))
        model.add_head("again", CausalLM(vocab_size=V, output="tied"))


@pytest.mark.parametrize("name", ["llama untied", "gemma2", "granite", "cohere"])
def test_tied_is_refused_and_the_remedy_works(name):
    whole = language_model(*(UNTIED | MORE)[name])
    model = PEModel(whole.base_model, HeadOnly()).eval()
    with pytest.raises(
        ModelError, match=r"takes the word embedding as the output matrix, but .*; use output='pretr.* or output='own'"
    ):
        model.add_head("text", CausalLM(vocab_size=V, output="tied"))
    model.add_head("text", CausalLM(vocab_size=V, output="own"))
    weight = model.head("text").weight
    assert not torch.equal(weight, whole.get_input_embeddings().weight)  # which has nothing to do with it
    if name == "llama untied":
        with torch.no_grad():
            weight.copy_(whole.get_output_embeddings().weight)
            model.head("text").start_from(model.backbone)  # leaves it
        torch.testing.assert_close(model.loss(batch(), "text"), whole(**batch()).loss.double())


def test_a_folder_with_an_output_matrix_of_its_own_is_found(tmp_path):
    """transformers unties the two then, although the configuration says that they are tied."""
    whole = language_model(*TIED["llama"])
    with quiet():
        whole.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"]
    with quiet():
        assert why_not_tied(t.AutoModel.from_pretrained(tmp_path)) is None
    values = load_file(tmp_path / "model.safetensors")
    for other, says in ((0, None), (1, "holds an output matrix of its own (lm_head.weight)")):
        values["lm_head.weight"] = values["model.embed_tokens.weight"] + other
        save_file(values, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with quiet():
            found = why_not_tied(t.AutoModel.from_pretrained(tmp_path))
        assert found is None if says is None else found.endswith(says)


def test_an_unknown_model_is_taken_at_its_word():
    with quiet():
        clip = t.CLIPTextConfig(vocab_size=V, hidden_size=8)
    assert why_not_tied(Configured(clip)) is None
    clip.tie_word_embeddings = False
    assert "has an output matrix of its own (tie_word_embeddings is false)" in why_not_tied(Configured(clip))
