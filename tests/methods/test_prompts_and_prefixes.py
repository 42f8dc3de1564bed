"""What is prepended is next to a sentence's first token however it is padded, and has the width that attention has."""

from dataclasses import replace

import pytest
import torch
import transformers as t
from known_parts import GPT2, LLAMA
from padding_models import ABSOLUTE, ALL, RELATIVE, WINDOWS, made, sentences
from tiny_models import shaken
from torch import nn
from transformers import DynamicCache
from zoo.fields import BART, ROBERTA
from zoo.named import NAMED
from zoo.unnamed import UNNAMED

from pemeta import Compose, LoRA, PEModel
from pemeta.backbone import architectures
from pemeta.backbone.architectures import ARCHITECTURES
from pemeta.errors import ModelError
from pemeta.methods import Prefix, Prompt, prefix

PADDED = [(1, 0), (3, 0), (8, 0), (0, 1), (0, 8), (2, 3)]
"""Padded positions on the left and on the right."""


def attentions(names):
    pairs = [(name, attention) for name in names for attention in ("eager", "sdpa")]
    return [
        (name, attention) for name, attention in pairs if attention == "eager" or ALL[name].model_class._supports_sdpa
    ]


def close(found, expected, atol=2e-5):
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def check_padding(model, name):
    """The hidden states of a sentence of five tokens by itself, padded, and in a batch."""
    alone = model.hidden_states(sentences(name, 5))
    for left, right in PADDED:
        found = model.hidden_states(sentences(name, 5, left=left, right=right))
        assert found.shape[1] == left + 5 + right
        close(found[:, left : left + 5], alone)
    for left in (0, 2):
        data = sentences(name, 7, 4, left=left, seed=1)
        for row, mask, found in zip(data["input_ids"], data["attention_mask"], model.hidden_states(data), strict=True):
            ids = row[mask == 1][None]
            close(
                found[mask == 1][None], model.hidden_states({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
            )
    close(model.hidden_states({"input_ids": sentences(name, 5)["input_ids"]}), alone)  # without a mask


@pytest.mark.parametrize(("name", "attention"), attentions(WINDOWS | RELATIVE | ABSOLUTE))
def test_a_prompt_is_next_to_a_sentence_however_it_is_padded(name, attention):
    check_padding(shaken(PEModel(made(name, attention), Prompt(length=3))), name)


@pytest.mark.parametrize("name", [name for name in ALL if name != "wav2vec2"])
def test_a_prompt_is_what_the_backbone_itself_makes_of_vectors_before_those_of_tokens(name):
    """With the positions that it gives them: Nyströmformer's begin with 2."""
    model, plain, data = shaken(PEModel(made(name), Prompt(length=3))), made(name), sentences(name, 5, 5)
    tokens = plain.get_input_embeddings()(data["input_ids"])
    vectors = torch.cat([model.backbone.pemeta_prompt.tokens.detach().expand(2, -1, -1), tokens], dim=1)
    expected = plain(inputs_embeds=vectors, attention_mask=torch.ones(2, 8, dtype=torch.long)).last_hidden_state
    close(model.hidden_states(data), expected[:, 3:])


ESM = NAMED["esm"]
IN_ANOTHER_WAY = {
    "esm, scaled": replace(ESM, fields=ESM.fields | {"token_dropout": True}),
    "esm, positions": replace(ESM, fields=ESM.fields | {"position_embedding_type": "absolute"}),
    **{
        name: replace(UNNAMED[f"{name}-encoder"], fields=BART | {"scale_embedding": True})
        for name in ("marian", "pegasus")
    },
}


@pytest.mark.parametrize("name", IN_ANOTHER_WAY)
def test_a_backbone_that_embeds_tokens_in_another_way_than_it_takes_vectors_is_refused(name):
    """ESM scales, and adds positions, only where it embeds tokens itself: a prompt would change them."""
    backbone = IN_ANOTHER_WAY[name].backbone().train()
    names, random = list(backbone.state_dict()), torch.get_rng_state()
    with pytest.raises(ModelError, match=r"but \w+ computes something else from these .*; use another method"):
        PEModel(backbone, Prompt(length=3))
    assert list(backbone.state_dict()) == names
    assert torch.equal(torch.get_rng_state(), random)
    assert backbone.training
    PEModel(backbone, LoRA())


def test_a_backbone_without_a_table_of_embeddings_is_refused():
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
    config = t.CanineConfig(**shape, num_hash_functions=2, num_hash_buckets=8, max_position_embeddings=40)
    backbone = t.CanineModel(config, add_pooling_layer=False)
    with pytest.raises(ModelError, match="embeddings of tokens, of which CanineModel has no table; use another"):
        PEModel(backbone, Prompt(length=3))
    PEModel(backbone, LoRA(targets="all-linear"))


ROTATED_OR_NOT = ("bert", "xlm-roberta", "gpt2", "t5", "modernbert-local", "mistral", "qwen2", "esm", "gemma2")


@pytest.mark.parametrize(("name", "attention"), attentions(ROTATED_OR_NOT))
def test_a_prefix_is_as_near_however_a_sentence_is_padded(name, attention):
    check_padding(shaken(PEModel(made(name, attention), Prefix(length=3))), name)


@pytest.mark.parametrize("name", ["modernbert-local", "mistral", "t5", "bert"])
def test_both_at_once_and_with_layers_that_are_skipped(name):
    both = Compose(methods=(Prefix(length=2), Prompt(length=3)))
    check_padding(shaken(PEModel(made(name), both)), name)
    model = PEModel(made(name), LoRA(rank=2, top_layers=1))
    model.attach(Prompt(length=3))
    shaken(model)
    data = [sentences(name, 7, 4, left=1), sentences(name, 5, 3, left=2, seed=1)]
    for plain, reused in zip(data, model.reusing(data), strict=True):
        assert name == "t5" or reused.keys() > plain.keys()
        real = plain["attention_mask"] == 1
        close(model.hidden_states(reused)[real], model.hidden_states(plain)[real])


def test_a_passs_padding_is_forgotten_after_it():
    """Also if it failed, and another method's pass comes next."""
    bert, mistral = (shaken(PEModel(made(name), Prefix(length=3))) for name in ("bert", "mistral"))
    expected = mistral.hidden_states(sentences("mistral", 5, right=2))
    bert.hidden_states(sentences("bert", 5, left=2))
    assert torch.equal(mistral.hidden_states(sentences("mistral", 5, right=2)), expected)
    handle = bert.backbone.encoder.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bert.hidden_states(sentences("bert", 5, left=2))
    handle.remove()
    assert torch.equal(mistral.hidden_states(sentences("mistral", 5, right=2)), expected)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch._dynamo looks at it
@pytest.mark.parametrize("method", [Prompt(length=3), Prefix(length=3)], ids=lambda method: method.name)
@pytest.mark.long
def test_padding_of_a_compiled_backbone(method):
    torch._dynamo.reset()
    model = shaken(PEModel(made("bert"), method))
    data = sentences("bert", 7, 4, left=2), sentences("bert", 7, 4, right=2), sentences("bert", 5, left=1)
    expected = [model.hidden_states(one) for one in data]
    model.backbone.compile(backend="eager")
    for one, hidden in zip((*data, *data), (*expected, *expected), strict=True):
        close(model.hidden_states(one), hidden)


def test_gradients_do_not_depend_on_padding():
    gradients = []
    for left in (0, 3):
        model = shaken(PEModel(made("modernbert-local"), Prompt(length=3)))
        hidden = model.hidden_states(sentences("modernbert-local", 5, left=left))[:, left:]
        tokens, weight = model.backbone.pemeta_prompt.tokens, model.backbone.get_input_embeddings().weight
        [first] = torch.autograd.grad(hidden.square().sum(), tokens, create_graph=True)
        gradients.append((first, *torch.autograd.grad(first.square().sum(), (tokens, weight))))
    for found, expected in zip(*gradients, strict=True):
        assert expected.abs().sum() > 0
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_token_types_move_with_their_tokens():
    model = shaken(PEModel(made("bert"), Prompt(length=3)))
    data, types = sentences("bert", 5), torch.tensor([[0, 0, 1, 1, 1]])
    expected = model.hidden_states({**data, "token_type_ids": types})
    assert not torch.allclose(expected, model.hidden_states(data))
    moved = {**sentences("bert", 5, left=2), "token_type_ids": nn.functional.pad(types, (2, 0))}
    close(model.hidden_states(moved)[:, 2:], expected)
    embedded = {**moved, "inputs_embeds": model.backbone.get_input_embeddings()(moved.pop("input_ids"))}
    del embedded["input_ids"]
    close(model.hidden_states(embedded)[:, 2:], expected)


def test_a_prompt_on_hidden_states_that_are_not_one_for_each_token():
    model = PEModel(made("bert"), Prompt(length=3))
    model.backbone.encoder.register_forward_hook(
        lambda part, inputs, output: type(output)(last_hidden_state=output.last_hidden_state[:, ::2])
    )
    model.hidden_states(sentences("bert", 5, right=2))
    with pytest.raises(ModelError, match=r"sentences of 7 tokens, padded on the left, have 2 hidden states.*'right'"):
        model.hidden_states(sentences("bert", 5, left=2))


def test_what_a_prompt_cannot_extend_is_refused():
    model = shaken(PEModel(made("mistral"), Prompt(length=3)))
    data = sentences("mistral", 5)
    with pytest.raises(ModelError, match=r"are a Cache of transformers; found a tuple; .*\(use_cache=False\)"):
        model.backbone(data["input_ids"][:, -1:], past_key_values=((torch.ones(1), torch.ones(1)),))
    mask = torch.ones(1, 1, 5, 5)
    with pytest.raises(ModelError, match=r"found the shape \(1, 1, 5, 5\); give the mask as \(sentences, tokens\)"):
        model.backbone(data["input_ids"], attention_mask=mask)


def test_embeddings_that_come_with_a_scale():
    config = t.IBertConfig(**ROBERTA, quant_mode=False)
    model = shaken(PEModel(t.IBertModel(config, add_pooling_layer=False).eval(), Prompt(length=3)))
    check_padding(model, "xlm-roberta")
    scaled = PEModel(t.IBertModel(config, add_pooling_layer=False).eval(), Prompt(length=3))
    scaled.backbone.embeddings.word_embeddings.quant_mode = True
    with pytest.raises(ModelError, match=r"embeds tokens as quantised vectors.*load it with quant_mode=False"):
        scaled.hidden_states(sentences("xlm-roberta", 5))


@pytest.mark.parametrize("method", [Prefix(length=3), Prompt(length=3)], ids=["prefix", "prompt"])
@pytest.mark.parametrize("name", ["gpt2", "mistral"])
def test_what_is_prepended_stays_where_it_was_for_later_passes(name, method):
    """GPT-2 counts padding, Mistral sees four tokens; a cache of their keys is used with the same mask."""
    model = shaken(PEModel(made(name), method))
    data = sentences(name, 7, left=2)
    ids, mask = data["input_ids"], data["attention_mask"]
    whole = model.backbone(**data, use_cache=True).last_hidden_state
    if name == "mistral" or method.extra_positions:
        close(whole[:, 2:], model.hidden_states(data)[:, 2:])
    cache = model.backbone(ids[:, :-3], attention_mask=mask[:, :-3], use_cache=True).past_key_values
    for end in (7, 9):  # one token, then two
        begin = cache.get_seq_length() - (3 if method.extra_positions else 0)
        last = model.backbone(ids[:, begin:end], attention_mask=mask[:, :end], past_key_values=cache, use_cache=True)
        assert last.last_hidden_state.shape[1] == end - begin
        close(last.last_hidden_state, whole[:, begin:end])


@pytest.mark.parametrize("name", ["bert", "xlm-roberta", "gpt2", "opt", "mpnet"])
def test_a_prompt_that_does_not_fit_any_table_of_positions_says_so(name):
    model = PEModel(made(name), Prompt(length=35))
    model.hidden_states(sentences(name, 5))
    with pytest.raises(ModelError, match="6 tokens and a prompt of 35 do not fit the backbone's 40 positions; lower"):
        model.hidden_states(sentences(name, 6))


# Widths of keys and values.

PHI3 = NAMED["phi3"]
GROUPED = {
    "phi3": replace(PHI3, fields=PHI3.fields | {"num_attention_heads": 4, "num_key_value_heads": 2}),
    "phi3-one-head": PHI3,
    "phi3-all-heads": replace(PHI3, fields=PHI3.fields | {"num_key_value_heads": 2}),
    "gpt_bigcode": UNNAMED["gpt-bigcode"],
}
FUSED = {
    "phi3": replace(
        LLAMA,
        query="self_attn.qkv_proj",
        key="self_attn.qkv_proj",
        value="self_attn.qkv_proj",
        ffn_up=("mlp.gate_up_proj",),
    ),
    "gpt_bigcode": GPT2,
}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("length", [3, 4])
@pytest.mark.parametrize("name", GROUPED)
def test_a_prefix_where_queries_share_keys_of_one_fused_map(name, length, attention, monkeypatch):
    """It has the keys and values of a cache of that many positions."""
    kind = name.partition("-")[0]
    monkeypatch.setitem(ALL, name, GROUPED[name])
    model, plain = shaken(PEModel(made(name, attention), Prefix(length=length))), made(name, attention)
    config, cache = plain.config, DynamicCache()
    heads = 1 if kind == "gpt_bigcode" else config.num_key_value_heads
    size = config.hidden_size // config.num_attention_heads
    for index, layer in enumerate(model.backbone.get_submodule(FUSED[kind].layers)):
        pair = layer.get_submodule(FUSED[kind].attention).pemeta_prefix
        assert pair.keys.shape == (length, heads * size)
        cache.update(*(x.detach().view(1, length, heads, size).transpose(1, 2) for x in pair()), index)
    data = sentences(name, 5)
    found = model.hidden_states(data)
    data["attention_mask"] = torch.ones(1, length + 5, dtype=torch.long)
    expected = plain(**data, past_key_values=cache, position_ids=torch.arange(5)[None]).last_hidden_state
    close(found, expected)


def test_a_prefix_of_another_width_than_attention_is_refused(monkeypatch):
    """A view of it could pass for a longer prefix."""
    model = PEModel(made("mistral"), Prefix(length=4))
    model.backbone.layers[0].self_attn.pemeta_prefix.keys = nn.Parameter(torch.zeros(4, 8))
    with pytest.raises(
        ModelError, match=r"of width 4 \(1 heads of 4\), but .* a width of 8; use lora, adapter or prompt"
    ):
        model.hidden_states(sentences("mistral", 5))
    monkeypatch.setattr(prefix, "key_width", lambda backbone, layer: 8)
    with pytest.raises(ModelError, match=r"prefix cannot be attached to MistralModel: .* of width 4 \(1 heads of 4\)"):
        PEModel(made("mistral"), Prefix(length=5))


def test_a_fused_map_without_whole_heads_is_refused(monkeypatch):
    monkeypatch.setitem(
        ARCHITECTURES,
        "mistral",
        replace(LLAMA, **dict.fromkeys(("query", "key", "value"), "mlp.up_proj")),
    )
    with pytest.raises(ModelError, match=r"mlp.up_proj of MistralModel has 12 outputs, which are not 2 queries of 4"):
        architectures.key_width(made("mistral").to("meta"), "layers.0")  # where no pass contradicts the entry
    with pytest.raises(ModelError, match=r"says that query is mlp.up_proj, but .* it is self_attn.q_proj; correct"):
        architectures.key_width(made("mistral"), "layers.0")
