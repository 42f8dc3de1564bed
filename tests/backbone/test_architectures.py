"""Layers and their parts, found in a backbone: by what they do, or by their names where there are no values."""

import copy
import re
from dataclasses import fields, replace

import pytest
import torch
import transformers as t
from architectures import ARCHITECTURES
from known_parts import BERT, KNOWN, LLAMA
from torch import nn
from zoo.animals import backbone

from pemeta.backbone import architectures
from pemeta.backbone.architectures import architecture_of, layer_names, parts_of
from pemeta.backbone.layer_reuse import separable
from pemeta.backbone.structure.found import found_in
from pemeta.errors import ModelError
from pemeta.methods import Adapter, LoRA, Prefix, Prompt


@pytest.mark.parametrize("values", [True, False], ids=["tried", "by name"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_was_a_table_is_found(architecture, values):
    whole = backbone(architecture)
    found = found_in(whole if values else whole.to("meta"))
    assert found == KNOWN[architecture]
    assert found.tried == values


def test_everything_is_compared():
    assert {field.name for field in fields(BERT) if not field.compare} == {"missing", "norms", "tried"}


NORMS = {"bert": "after", "gpt2": "before", "gemma2": "around", "olmo2": "after", "cohere": "parallel"}
NORMS |= {"gpt-neox": "parallel", "gpt-j": "parallel", "falcon": "parallel", "llama": "before", "dinov2": "before"}


@pytest.mark.parametrize("name", NORMS)
def test_where_norms_are(name):
    whole = backbone(name)
    assert found_in(whole).norms == NORMS[name]


MORE = {
    "albert": {
        "layers": "encoder.albert_layer_groups.*.albert_layers",
        "query": "attention.query",
        "attention_output": "attention.dense",
        "ffn": None,
        "ffn_up": ("ffn",),
        "ffn_down": "ffn_output",
        "passes": 2,
    },
    # The query is called for positions, too; global attention is not called.
    "deberta": {"query": "attention.self.in_proj", "value": "attention.self.in_proj", "output": "pair"},
    "longformer": {"query": "attention.self.query", "value": "attention.self.value", "output": "single"},
    "funnel": {"layers": "encoder.blocks.*, decoder.layers", "query": "attention.q_head", "ffn": None},
    "swin": {"layers": "encoder.layers.*.blocks", "key": "attention.k_proj", "ffn_down": "mlp.fc2", "output": "more"},
    # Queries, keys and values of a head follow each other in one map.
    "bloom": {"key": "self_attention.query_key_value", "ffn": "mlp"},
    "gpt-neox": {"key": "attention.query_key_value", "ffn_down": "mlp.dense_4h_to_h"},
    "falcon": {"key": "self_attention.query_key_value", "attention": "self_attention"},
    "phi3": {"key": "self_attn.qkv_proj", "ffn_up": ("mlp.gate_up_proj",)},
    # The block's input is not what its last module adds.
    "esm": {"ffn": None, "ffn_up": ("intermediate.dense",), "ffn_residual": False},
    "opt": {"layers": "decoder.layers", "ffn": None, "ffn_up": ("fc1",), "ffn_down": "fc2"},
    "mixtral": {"query": "self_attn.q_proj", "ffn": "mlp", "experts": "mlp.experts", "ffn_up": (), "ffn_down": None},
    # What attention gives is normalised, so that it is not linear in the values.
    "diffllama": {"query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj"},
    # Adapters of languages are narrower blocks of the same kind.
    "xmod": {"ffn": None, "ffn_up": ("intermediate.dense",), "ffn_down": "output.dense"},
    # Attention by parameters that are no maps, without maps, and of another kind.
    "xlnet": {"query": None, "attention": None, "ffn": None, "ffn_down": "ff.layer_2"},
    "fnet": {"query": None, "ffn": "output", "ffn_residual": True},
    "mamba": {"query": None, "key": None, "ffn_down": None},
    "convnext": {"query": None, "ffn_down": None},
}


@pytest.mark.parametrize("name", MORE)
def test_what_is_special(name):
    found = found_in(backbone(name))
    assert {key: getattr(found, key) for key in MORE[name]} == MORE[name]


class Renamed(t.models.llama.modeling_llama.LlamaAttention):
    """Llama's attention with maps whose names are not what they do."""

    def forward(self, *arguments, **named):
        own = self._modules
        swapped = {"q_proj": own["v_proj"], "k_proj": own["q_proj"], "v_proj": own["k_proj"]}
        before = dict(own)
        own.update(swapped)
        try:
            return super().forward(*arguments, **named)
        finally:
            own.update(before)


def misleading():
    """A Llama whose map of queries is called v_proj, that of keys q_proj, and that of values k_proj."""
    config = t.LlamaConfig(**ARCHITECTURES["llama"].fields | {"num_key_value_heads": 2}, attn_implementation="eager")
    torch.manual_seed(0)
    model = t.LlamaModel(config).double().eval()
    for layer in model.layers:
        layer.self_attn.__class__ = Renamed
    return model


def test_names_do_not_decide_where_passes_do():
    found = found_in(misleading())
    assert (found.query, found.key, found.value) == ("self_attn.v_proj", "self_attn.q_proj", "self_attn.k_proj")
    assert found_in(misleading().to("meta")).query == "self_attn.q_proj"


def test_a_map_that_is_there_and_not_called_is_not_taken():
    whole = backbone("llama")
    for layer in whole.layers:
        layer.self_attn.q_proj = nn.Identity()
    with pytest.raises(
        ModelError, match=r"lora cannot be attached to LlamaModel: no query was found in its layers \(.*found"
    ):
        LoRA().attach(whole)


@pytest.mark.parametrize("zero", ["", "query|q_proj", "key|k_proj|value|v_proj", "output|o_proj|down_proj"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_values_do_not_matter(name, zero):
    """Maps start as zero in some models; without effect of the query, values must not be taken for keys, too."""
    whole = backbone(name)
    with torch.no_grad():
        for parameter in (one for path, one in whole.named_parameters() if re.search(zero, path)):
            parameter.zero_()
    values = copy.deepcopy(whole.state_dict())
    flags = [(id(one), one.requires_grad) for one in whole.parameters()]
    assert found_in(whole) == KNOWN[name]
    assert [(id(one), one.requires_grad) for one in whole.parameters()] == flags
    assert all(torch.equal(value, values[path]) for path, value in whole.state_dict().items())


def test_two_of_a_kind_are_none():
    """TimeSformer attends between frames, and then within them, and has a map after each."""
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
    whole = t.TimesformerModel(t.TimesformerConfig(**sizes, image_size=8, patch_size=4, num_frames=2))
    with pytest.raises(ModelError, match=r"no query was found in its layers \(.*found several: temporal_attention\."):
        LoRA().attach(whole)
    with pytest.raises(
        ModelError, match=r"no ffn_down was found in its layers \(.*found several blocks, with temporal_"
    ):
        LoRA(targets="ffn_down").attach(whole)


def test_layers_with_other_parts():
    config = t.Qwen3MoeConfig(
        **ARCHITECTURES["llama"].fields | {"head_dim": 4, "moe_intermediate_size": 6, "num_experts": 4},
        num_experts_per_tok=2,
        mlp_only_layers=[0],
        experts_implementation="eager",
    )
    whole = t.Qwen3MoeModel(config).eval()
    assert parts_of(whole, "layers.0").ffn_down == "mlp.down_proj"
    assert parts_of(whole, "layers.1").experts == "mlp.experts"
    Adapter(placement="houlsby").attach(whole)
    names = [name for name, part in whole.named_modules() if "pemeta_houlsby" in part._modules]
    assert names == ["layers.0.self_attn.o_proj", "layers.0.mlp.down_proj", "layers.1.self_attn.o_proj", "layers.1.mlp"]
    with pytest.raises(ModelError, match=r"no ffn_down was found in its layers \(mlp.experts has the maps of several"):
        LoRA(targets="ffn_down").attach(whole)


def state(model):
    """All that a pass could change."""
    return [
        (part, part.training, [id(one) for one in part.children()], dict(part._forward_hooks), dict(part._buffers))
        for part in model.modules()
    ]


@pytest.mark.parametrize("name", ["bigbird-sparse", "vit-mae", "mixtral", "wav2vec2"])
def test_nothing_is_left_of_the_passes(name):
    """BigBird changes its attention for short sequences; a masked autoencoder draws numbers."""
    whole = backbone(name).train()
    hook = whole.register_forward_hook(lambda *_: pytest.fail("a hook of the user's ran"))
    before, attributes = state(whole), {key: value for key, value in vars(whole).items() if key[0] != "_"}
    flags = [(one, one.requires_grad, one.grad) for one in whole.parameters()]
    config, numbers = copy.deepcopy(whole.config.to_dict()), torch.get_rng_state()
    architectures.architecture_of(whole)
    assert state(whole) == before
    assert {key: value for key, value in vars(whole).items() if key[0] != "_"} == attributes
    assert [(one, one.requires_grad, one.grad) for one in whole.parameters()] == flags
    assert whole.config.to_dict() == config
    assert torch.equal(torch.get_rng_state(), numbers)
    hook.remove()


@pytest.mark.parametrize("method", [Prompt(length=2), Prefix(length=2), LoRA(rank=2)], ids=lambda method: method.name)
def test_what_is_attached_does_not_change_what_is_found(method):
    whole = backbone("llama")
    method.attach(whole)
    assert found_in(whole) == LLAMA


def test_an_entry_of_ones_own(monkeypatch):
    own = replace(KNOWN["distilbert"], ffn=None)
    monkeypatch.setitem(architectures.ARCHITECTURES, "distilbert", own)
    whole = backbone("distilbert")
    assert architecture_of(whole) == own
    monkeypatch.setitem(architectures.ARCHITECTURES, "distilbert", replace(own, query="attention.k_lin"))
    with pytest.raises(
        ModelError,
        match=r"'distilbert' of pemeta\.backbone\.architectures\.ARCHITECTURES says that query is attention\.k_lin, "
        r"but .* it is attention\.q_lin; correct the entry, or remove it",
    ):
        LoRA().attach(whole)
    monkeypatch.setitem(architectures.ARCHITECTURES, "distilbert", replace(own, query="attention.query"))
    with pytest.raises(ModelError, match=r"does not match the entry 'distilbert' .*correct the entry for this version"):
        LoRA().attach(whole)


def test_a_backbone_that_changes_is_looked_at_again():
    whole = backbone("bert")
    assert layer_names(whole) == ["encoder.layer.0", "encoder.layer.1"]
    whole.encoder.layer = whole.encoder.layer[:1]
    assert layer_names(whole) == ["encoder.layer.0"]
    del whole.encoder.layer[0].intermediate.dense
    with pytest.raises(ModelError, match=r"a pass of a tiny batch of input_ids through BertModel failed \(.*dense"):
        layer_names(whole)


def test_what_has_no_layers_or_takes_something_else_says_so():
    with pytest.raises(ModelError, match="ResNetModel has no layers that can be found: no ModuleList of blocks"):
        architecture_of(backbone("resnet"))

    class Two(t.BertModel):
        def forward(self, input_ids, boxes):
            raise AssertionError

    with pytest.raises(ModelError, match=r"a pass of a tiny batch of input_ids .*missing 1 required .*'boxes'"):
        LoRA().attach(Two(backbone("bert").config))


@pytest.mark.parametrize("name", ["mpnet", "longformer", "deberta", "olmo2", "dinov2"])
def test_lower_layers_are_reused_where_that_is_exact(name):
    assert separable(backbone(name), 1)


def test_lower_layers_are_not_reused_where_it_is_not():
    """Llama with an addition of a layer's input to that of the next but one, outside of the layers."""

    class Skipping(t.LlamaModel):
        def __init__(self, config):
            super().__init__(config)
            self.layers[0].register_forward_hook(lambda *_: None)

        def forward(self, *arguments, **named):
            output = super().forward(*arguments, **named)
            output.last_hidden_state = output.last_hidden_state + self.layers[0].input_layernorm.weight * self.seen()
            return output

        def seen(self):
            return 0.0 if "layer" in vars(self.layers[0]) else 1.0

    assert separable(backbone("llama"), 1)
    assert not separable(Skipping(t.LlamaConfig(**ARCHITECTURES["llama"].fields)).eval(), 1)


def test_half_precision_shows_the_same():
    for dtype in (torch.bfloat16, torch.float16):
        assert found_in(backbone("llama").to(dtype)) == LLAMA
        assert found_in(backbone("gpt2").to(dtype)) == KNOWN["gpt2"]
