"""Each method's output against an independent computation."""

import copy

import pytest
import torch
from architectures import backbone, batch
from tiny_models import shaken
from torch import nn
from transformers import BertConfig, BertModel, DynamicCache, T5Config, T5EncoderModel

from pemeta import PEMethod, PEModel
from pemeta.backbone.architectures import architecture_of, layer_names
from pemeta.backbone.attention import attention_of
from pemeta.errors import ConfigError, ModelError
from pemeta.methods import IA3, Adapter, BitFit, Compose, LoRA, Peft, Prefix, Prompt


def inputs(architecture: str, padded: bool = True) -> dict[str, torch.Tensor]:
    return {key: value for key, value in batch(architecture, padded=padded).items() if key != "labels"}


def attached(method, architecture: str, attention: str = "eager") -> PEModel:
    return shaken(PEModel(backbone(architecture, attention), method))


def hidden(model: PEModel, data) -> torch.Tensor:
    return model.method.transform(model.backbone, model.hidden_states(data))


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def by_hand(x, module, scale=1.0):
    inner = torch.relu(x @ module.down.weight.T + module.down.bias)
    return scale * (inner @ module.up.weight.T + module.up.bias)


def test_the_adapter_is_a_residual_bottleneck():
    model = attached(Adapter(bottleneck=4, activation="relu", scale=2), "bert")
    plain = backbone("bert")(**inputs("bert")).last_hidden_state
    close(hidden(model, inputs("bert")), plain + by_hand(plain, model.backbone.pemeta_adapter, 2))


@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer", "parallel"])
def test_adapters_in_a_bert_layer(placement):
    model = attached(Adapter(bottleneck=4, activation="relu", placement=placement, scale=3), "bert")
    layer = model.backbone.encoder.layer[0]
    x = torch.randn(2, 5, 8).double()
    attention = layer.attention.output.dense(layer.attention.self(x)[0])
    if placement == "houlsby":  # the hook acts where the module is called
        plain = copy.deepcopy(layer.attention.output.dense)
        plain._forward_hooks.clear()
        unadapted = plain(layer.attention.self(x)[0])
        close(attention, unadapted + by_hand(unadapted, plain.pemeta_houlsby, 3))
    middle = layer.attention.output.LayerNorm(attention + x)
    inner = layer.intermediate(middle)
    dense = layer.output.dense
    output = inner @ dense.weight.T + dense.bias
    if placement == "parallel":
        output = output + by_hand(middle, layer.output.pemeta_parallel, 3)
    else:
        output = output + by_hand(output, getattr(dense, f"pemeta_{placement}"), 3)
    close(layer(x), layer.output.LayerNorm(output + middle))


def test_a_parallel_adapter_where_the_block_is_one_module():
    model = attached(Adapter(bottleneck=4, activation="relu", placement="parallel", scale=3), "gpt2")
    block = model.backbone.h[0].mlp
    x = torch.randn(2, 5, 8).double()
    close(block(x), block.c_proj(block.act(block.c_fc(x))) + by_hand(x, block.pemeta_parallel, 3))


@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
def test_lora_adds_a_product(architecture):
    model = attached(LoRA(rank=2, alpha=6, targets=("ffn_down",), rslora=True), architecture)
    linear = model.backbone.get_submodule(
        {"bert": "encoder.layer.1.output.dense", "gpt2": "h.1.mlp.c_proj"}[architecture]
    )
    pair = linear.pemeta_lora
    x = torch.randn(3, 12).double()
    weight = linear.weight if architecture == "gpt2" else linear.weight.T
    close(linear(x), x @ weight + linear.bias + 6 / 2**0.5 * x @ pair.down.weight.T @ pair.up.weight.T)


@pytest.mark.parametrize("method", [Adapter(), LoRA(), Prefix(), Prefix(reparametrize=4), Prompt()], ids=repr)
def test_new_parameters_are_drawn_by_the_seed(method):
    one, same, other = (PEModel(backbone("bert"), method, seed=seed).state() for seed in (1, 1, 2))
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    assert any(not torch.equal(value, other[name]) for name, value in one.items())


def test_lora_drops_out_only_while_training():
    model = attached(LoRA(rank=2, dropout=0.5), "bert")
    data = inputs("bert")
    assert torch.equal(model.eval().hidden_states(data), model.hidden_states(data))
    assert not torch.equal(model.train().hidden_states(data), model.hidden_states(data))


def test_ia3_scales_keys_values_and_the_inner_activation():
    model, plain = attached(IA3(), "bert"), backbone("bert")
    with torch.no_grad():
        for layer, unscaled in zip(model.backbone.encoder.layer, plain.encoder.layer, strict=True):
            for name in ("key", "value"):
                factors = getattr(layer.attention.self, name).pemeta_ia3.scale
                linear = getattr(unscaled.attention.self, name)
                linear.weight.mul_(factors[:, None])
                linear.bias.mul_(factors)
            unscaled.output.dense.weight.mul_(layer.output.dense.pemeta_ia3.scale)
    close(model.hidden_states(inputs("bert")), plain(**inputs("bert")).last_hidden_state)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "qwen2"])
def test_a_prefix_is_a_cache_of_keys_and_values(architecture, padded, attention):
    """A decoder's own cache is equivalent, at positions that it does not shift."""
    model = attached(Prefix(length=3), architecture, attention)
    plain, data = backbone(architecture, attention), inputs(architecture, padded)
    cache, parts = DynamicCache(), architecture_of(plain)
    for index, layer in enumerate(layer_names(plain)):
        pair = model.backbone.get_submodule(f"{layer}.{parts.attention}").pemeta_prefix
        heads = 2 if architecture == "gpt2" else 1
        keys, values = (x.detach().view(1, 3, heads, 4).transpose(1, 2).expand(2, -1, -1, -1) for x in pair())
        cache.update(keys, values, index)
    real = data["attention_mask"].bool()
    data["attention_mask"] = nn.functional.pad(data["attention_mask"], (3, 0), value=1)
    positions = torch.arange(6)[None]
    expected = plain(**data, past_key_values=cache, position_ids=positions).last_hidden_state
    found = model.hidden_states(inputs(architecture, padded))
    torch.testing.assert_close(found[real], expected[real], rtol=0, atol=1e-6)


def test_a_prefix_in_bert_by_hand():
    model = attached(Prefix(length=3), "bert")
    attention = model.backbone.encoder.layer[0].attention.self
    x = torch.randn(2, 5, 8).double()
    found = attention(x)[0]
    pair = attention.pemeta_prefix
    split = lambda y: y.unflatten(-1, (2, 4)).transpose(-3, -2)  # noqa: E731
    query = split(attention.query(x))
    keys = torch.cat([split(pair.keys).expand(2, -1, -1, -1), split(attention.key(x))], 2)
    values = torch.cat([split(pair.values).expand(2, -1, -1, -1), split(attention.value(x))], 2)
    weights = (query @ keys.transpose(-1, -2) / 2).softmax(-1)
    close(found, (weights @ values).transpose(1, 2).flatten(2))


def test_a_reparametrised_prefix_is_a_network_that_layers_share():
    model = attached(Prefix(length=3, reparametrize=4), "bert")
    first, second = (layer.attention.self.pemeta_prefix for layer in model.backbone.encoder.layer)
    assert first.shared is second.shared
    for layer in (first, second):
        inner = torch.tanh(layer.shared.embedding @ layer.shared.down.weight.T + layer.shared.down.bias)
        made = inner @ layer.up.weight.T + layer.up.bias
        close(torch.cat(layer(), -1), made)


@pytest.mark.parametrize("architecture", ["bert", "xlm-roberta", "t5", "gpt2", "modernbert"])
def test_a_prompt_is_more_embeddings(architecture):
    model, plain = attached(Prompt(length=3), architecture), backbone(architecture)
    data = inputs(architecture)
    tokens = model.backbone.pemeta_prompt.tokens
    given = {
        "inputs_embeds": torch.cat([tokens.expand(2, -1, -1), plain.get_input_embeddings()(data["input_ids"])], 1),
        "attention_mask": nn.functional.pad(data["attention_mask"], (3, 0), value=1),
    }
    found, expected = model.hidden_states(data), plain(**given).last_hidden_state[:, 3:]
    real = data["attention_mask"].bool()  # XLM-R counts positions of padding otherwise
    close(found[real], expected[real])
    positional = model.backbone(data["input_ids"], attention_mask=data["attention_mask"]).last_hidden_state
    assert torch.equal(positional, found)


def test_a_prompt_in_xlm_roberta_counts_positions_over_what_is_not_padding():
    """Padded on the left, a sequence gets the positions that it has without padding."""
    model = attached(Prompt(length=3), "xlm-roberta")
    ids = torch.tensor([[5, 6, 7]])
    padded = {"input_ids": nn.functional.pad(ids, (2, 0), value=1), "attention_mask": torch.tensor([[0, 0, 1, 1, 1]])}
    close(
        model.hidden_states(padded)[:, 2:],
        model.hidden_states({"input_ids": ids, "attention_mask": torch.ones_like(ids)}),
    )


COUNTING = ("bert", "xlm-roberta", "gpt2", "llama", "qwen2", "modernbert")
BOTH = Compose(methods=(Prefix(length=3), Prompt(length=3)))
PADDED_LEFT = [(method, architecture) for architecture in COUNTING for method in (Prompt(length=3), BOTH)]
PADDED_LEFT += [(Prefix(length=3), architecture) for architecture in COUNTING]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(("method", "architecture"), PADDED_LEFT, ids=lambda value: getattr(value, "name", value))
def test_padding_on_the_left_adds_no_distance(method, architecture, attention):
    """Padding between a prefix or prompt and the sequence must not increase their distance."""
    model = attached(method, architecture, attention)
    pad = 1 if architecture == "xlm-roberta" else 0
    ids = torch.tensor([[5, 6, 7, 8]])
    padded = nn.functional.pad(ids, (3, 0), value=pad)
    mask = nn.functional.pad(torch.ones_like(ids), (3, 0))
    found = model.hidden_states({"input_ids": padded, "attention_mask": mask})[:, 3:]
    expected = model.hidden_states({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_a_prompt_refuses_positions():
    model = attached(Prompt(length=3), "bert")
    with pytest.raises(ModelError, match="position_ids cannot be given; omit them"):
        model.backbone(input_ids=torch.tensor([[5, 6]]), position_ids=torch.tensor([[0, 1]]))


def test_a_prefix_reaches_one_backbone_only_and_is_never_silent():
    """Two backbones may share a configuration, and a user may set its attention."""
    config = backbone("bert").config
    one, other = (shaken(PEModel(BertModel(config, add_pooling_layer=False).double().eval(), Prefix())) for _ in "ab")
    before = other.hidden_states(inputs("bert"))
    one.detach(Prefix())
    assert torch.equal(other.hidden_states(inputs("bert")), before)
    other.backbone.set_attn_implementation("eager")
    with pytest.raises(ModelError, match="set to 'eager' after a prefix was attached, and ignores the prefix"):
        other.hidden_states(inputs("bert"))


def test_a_prompt_before_an_images_patches():
    model, plain = attached(Prompt(length=3), "vit"), backbone("vit")
    data = inputs("vit")
    x = torch.cat([model.backbone.embeddings.pemeta_prompt.tokens.expand(2, -1, -1), plain.embeddings(**data)], 1)
    for layer in plain.layers:
        x = layer(x)
    close(model.hidden_states(data), plain.layernorm(x)[:, 3:])


def test_prompts_start_from_embeddings_of_the_vocabulary():
    tokens = PEModel(backbone("bert"), Prompt(length=3)).backbone.pemeta_prompt.tokens
    table = backbone("bert").embeddings.word_embeddings.weight
    assert all((table == token).all(1).any() for token in tokens)
    assert (
        PEModel(backbone("bert"), Prompt(length=500, init="normal", init_std=2)).backbone.pemeta_prompt.tokens.std()
        > 1.5
    )


@pytest.mark.parametrize(("architecture", "limit"), [("bert", 20), ("xlm-roberta", 20), ("gpt2", 20)])
def test_a_prompt_that_does_not_fit_says_how_long_a_sentence_may_be(architecture, limit):
    model = attached(Prompt(length=15), architecture)
    ids = torch.randint(3, 30, (1, limit - 15))
    mask = torch.ones_like(ids)
    model.hidden_states({"input_ids": ids, "attention_mask": mask})
    longer = {"input_ids": torch.cat([ids, ids], 1), "attention_mask": torch.cat([mask, mask], 1)}
    with pytest.raises(ModelError, match=f"a prompt of 15 do not fit the backbone's {limit} .*lower max_length to 5"):
        model.hidden_states(longer)


def test_composed_methods_act_together():
    method = Compose(methods=(Prefix(length=2), LoRA(rank=2), Adapter(bottleneck=4)))
    model, plain = attached(method, "bert"), backbone("bert")
    for part in method.methods[:2]:
        part.attach(plain)
    state = model.state()
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            parameter.copy_(state[f"backbone.{name}"])
    expected = plain(**inputs("bert")).last_hidden_state
    expected = expected + model.backbone.pemeta_adapter(expected)
    close(hidden(model, inputs("bert")), expected)


def test_composing_incompatible_methods_changes_nothing():
    plain, tried = backbone("bert"), backbone("bert")
    with pytest.raises(ModelError, match="already has a pemeta_lora"):
        Compose(methods=(LoRA(), Prefix(), LoRA(rank=2))).attach(tried)
    assert [n for n, _ in tried.named_parameters()] == [n for n, _ in plain.named_parameters()]
    assert torch.equal(tried(**inputs("bert")).last_hidden_state, plain(**inputs("bert")).last_hidden_state)
    with pytest.raises(ConfigError, match="at least 2"):
        Compose.parse({"name": "compose", "methods": ["lora"]})
    with pytest.raises(ConfigError, match=r"methods.*unknown PE method 'lorra'; did you mean 'lora'"):
        Compose.parse({"name": "compose", "methods": ["lorra", "bitfit"]})


def test_two_methods_on_one_map_do_not_merge():
    """Their joint effect depends on their order."""
    method = Compose(methods=(IA3(), LoRA(targets=("ffn_down",))))
    model = attached(method, "bert")
    with pytest.raises(ModelError, match="compose cannot be merged"):
        method.merge(model.backbone)


def test_bitfit_leaves_other_methods_biases_alone():
    model = attached(BitFit(), "bert")
    alone = model.partition().theta_a
    model.attach(Adapter(placement="houlsby"))
    assert model.partition().theta_a == alone


def test_one_backbone_can_have_adapters_of_two_placements():
    model = attached(Adapter(bottleneck=4), "bert")
    inner = Adapter(bottleneck=4, placement="houlsby")
    before = model.partition().theta_a
    model.attach(inner)
    assert model.partition().theta_a == before
    assert not set(model.partition(inner).theta_a) & set(before)
    model.detach(inner)
    assert model.partition().theta_a == before
    with pytest.raises(ModelError, match="the backbone already has a pemeta_adapter"):
        model.attach(Adapter(bottleneck=8))
    lora = attached(LoRA(), "bert")
    with pytest.raises(ModelError, match="already has a pemeta_lora"):  # also on other maps: one name tells them apart
        lora.attach(LoRA(targets=("ffn_up",)))


def test_methods_that_do_not_fit_say_why():
    with pytest.raises(ModelError, match=r"Linear has no config\.hidden_size"):
        Adapter().attach(nn.Linear(2, 2))
    with pytest.raises(ModelError, match=r"top_layers is 3, but the backbone has 2 layers; choose from 1 to 2"):
        LoRA(top_layers=3).attach(backbone("bert"))
    with pytest.raises(ConfigError, match="the adapter at the output is outside the layers"):
        Adapter(top_layers=1)
    with pytest.raises(ConfigError, match=r"targets.*'querry'"):
        LoRA.parse({"name": "lora", "targets": ["querry"]})
    flash = backbone("bert")
    flash.config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(ModelError, match="a prefix needs eager or sdpa attention; found 'flash_attention_2'"):
        Prefix().attach(flash)


def test_an_architecture_of_another_name():
    strange = backbone("bert")
    strange.config.__class__ = type("StrangeConfig", (BertConfig,), {"model_type": "strange"})
    LoRA().attach(strange)
    assert architecture_of(strange) == architecture_of(backbone("bert"))


def test_a_quantised_map_is_refused():
    quantised = backbone("bert")
    quantised.encoder.layer[0].attention.self.query.weight = nn.Parameter(
        torch.zeros(8, 8, dtype=torch.int8), requires_grad=False
    )
    with pytest.raises(ModelError, match="Linear is not a plain linear map; load the backbone unquantised"):
        LoRA().attach(quantised)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "LORRA"}, "config: peft_type: unknown tuner of the peft package 'LORRA'; did you mean 'LORA'"),
        ({"r": 2}, "unknown tuner of the peft package None; Known: .*LORA"),
        (
            {"peft_type": "LORA", "rank": 2},
            "config: unknown key of LORA 'rank'; .*Known: .*r, rank_pattern",
        ),
        ({"peft_type": "LORA", "init_lora_weights": "pissa"}, "'pissa' changes the backbone's own weights"),
        ({"peft_type": "LORA", "bias": "all"}, "config: bias adapts more than PEFT's own layers"),
        ({"peft_type": "LORA", "modules_to_save": ["key"]}, "config: modules_to_save adapts more"),
        ({"peft_type": "LORA", "target_modules": ["nowhere"]}, "Target modules .*nowhere.* not found"),
    ],
)
def test_a_wrong_configuration_of_the_peft_package(config, message):
    plain, tried = backbone("bert"), backbone("bert")
    with pytest.raises((ConfigError, ModelError), match=message):
        Peft(config=config).attach(tried)
    assert [n for n, _ in tried.named_parameters()] == [n for n, _ in plain.named_parameters()]
    assert all(parameter.requires_grad for parameter in tried.parameters())


@pytest.mark.parametrize(
    "config",
    [
        {"peft_type": "VERA", "r": 2, "target_modules": ["attention.output.dense"]},
        {"peft_type": "OFT", "oft_block_size": 2, "target_modules": ["query"]},
        {"peft_type": "LOHA", "r": 2, "target_modules": ["query"]},
        {"peft_type": "IA3"},
    ],
    ids=lambda config: config["peft_type"],
)
def test_other_tuners_of_the_peft_package_prime(config):
    from pemeta import PrimingLearner
    from pemeta.heads import TokenClassification

    model = attached(Peft(config=config), "bert").float()
    model.add_head("en", TokenClassification(labels=("O", "B-PER", "I-PER")))
    before = model.state()
    clone = PrimingLearner(model).clone("en")
    clone.adapt(clone.loss(batch("bert"), "en"))
    clone.loss(batch("bert", 1), "en").backward()
    parts = model.partition()
    assert all(model.get_parameter(n).grad is not None for n in (*parts.theta_p, *parts.theta_a))
    assert all(torch.equal(value, before[name]) for name, value in model.state().items())
    moved = dict(clone.module.named_parameters())
    assert any(not torch.equal(moved[n], before[n]) for n in parts.theta_a)


def test_a_peft_configuration_survives_a_round_trip():
    method = Peft(config={"peft_type": "LORA", "target_modules": {"value", "query"}, "r": 2})
    assert method == Peft(config={"peft_type": "LORA", "target_modules": ["query", "value"], "r": 2})
    assert PEMethod.parse(method.to_config()) == method
    with pytest.raises(ConfigError, match="expected values that JSON can represent"):
        PEMethod.parse({"name": "peft", "config": {"peft_type": torch.zeros(1)}})


def test_a_tuner_that_changes_the_backbone_is_refused(monkeypatch):
    monkeypatch.setattr("pemeta.methods.peft_bridge.PLAIN_INITIALISATIONS", ("olora",))
    with pytest.raises(ModelError, match="the tuner LORA changed the backbone's own parameters"):
        Peft(config={"peft_type": "LORA", "init_lora_weights": "olora"}).attach(backbone("bert").float())


def test_the_peft_package_missing_names_the_command(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModelError, match=r"the package peft is not installed; run `pip install 'pemeta\[peft\]'`"):
        Peft(config={"peft_type": "LORA"}).attach(backbone("bert"))
    assert PEModel(BertModel(backbone("bert").config, add_pooling_layer=False), LoRA())


def test_a_prefix_and_a_gated_block():
    assert attention_of(attached(Prefix(), "bert", "sdpa").backbone) == "sdpa"
    config = T5Config(d_model=8, d_kv=4, d_ff=12, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu")
    gated = PEModel(T5EncoderModel(config), LoRA(targets=("ffn_up",)))
    assert len(gated.partition().theta_a) == 4  # A and B of two maps
