"""Files of the peft package give the same outputs in PEFT and in pemeta, in both directions."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
)

from pemeta import PEMethod, PEModel, load_peft, save_peft
from pemeta.errors import ConfigError, ModelError, OutputError
from pemeta.heads import CausalLM, SequenceClassification, TokenClassification
from pemeta.utils.hub import quiet

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT's own

INNER = r".*\d\.output\.dense"
LABELS = ("O", "B-PER", "I-PER")
IDS = torch.tensor([[2, 7, 8, 9, 3], [2, 9, 3, 4, 5]])
BATCH = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
METHODS = [
    {"name": "lora", "rank": 2, "alpha": 3},
    {"name": "lora", "rank": 4, "rslora": True, "targets": ["query", "ffn_up", "ffn_down"], "dropout": 0.1},
    {"name": "lora", "rank": 2, "top_layers": 1},
    {"name": "lora", "rank": 2, "targets": "all-linear"},
    "ia3",
    {"name": "ia3", "top_layers": 1},
]


def bert() -> BertModel:
    torch.manual_seed(0)
    shape = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
    return BertModel(BertConfig(vocab_size=30, max_position_embeddings=16, **shape), add_pooling_layer=False).eval()


def gpt2() -> GPT2Model:
    torch.manual_seed(0)
    return GPT2Model(GPT2Config(vocab_size=30, n_embd=8, n_layer=2, n_head=2, n_positions=16)).eval()


def shaken(module: torch.nn.Module, alpha: float = 0.2) -> torch.nn.Module:
    """The module with noise on all parameters that are trained, in evaluation mode."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=alpha)
    return module.eval()


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-5, rtol=1e-5)


def hidden(model: PEModel) -> torch.Tensor:
    with torch.no_grad():
        return model.hidden_states(BATCH)


@pytest.mark.parametrize("backbone", [bert, gpt2])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_peft_loads_what_pemeta_writes(tmp_path, backbone, method):
    model = shaken(PEModel(backbone(), PEMethod.parse(method)))
    model.save_pretrained(tmp_path / "m")
    save_peft(model, tmp_path / "peft", base=tmp_path / "m")
    with quiet():
        theirs = peft.PeftModel.from_pretrained(AutoModel.from_pretrained(tmp_path / "m"), tmp_path / "peft").eval()
        plain = AutoModel.from_pretrained(tmp_path / "m").eval()
    with torch.no_grad():
        assert same(theirs(**BATCH).last_hidden_state, hidden(model))
        assert not same(plain(**BATCH).last_hidden_state, hidden(model))
    again = load_peft(tmp_path / "peft", PEModel.from_pretrained(tmp_path / "m", PEMethod.parse("head_only")).backbone)
    # Names of maps come back as parts; GPT-2's fused map is query, key and value at once, so that there may be more.
    named = isinstance(method, dict) and method.get("targets") == "all-linear"
    assert again.method == model.method or backbone is gpt2 or named
    assert again.partition().theta_a == model.partition().theta_a
    assert torch.equal(hidden(again.eval()), hidden(model))


@pytest.mark.parametrize("backbone", [bert, gpt2])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_with_a_task_the_logits_are_the_same(tmp_path, backbone, method):
    model = PEModel(backbone(), PEMethod.parse(method))
    model.add_head("nl", TokenClassification(labels=LABELS))
    shaken(model).save_pretrained(tmp_path / "m")
    save_peft(model, tmp_path / "peft", "nl")
    with torch.no_grad():
        expected = model(BATCH, "nl")
    with quiet():
        base = AutoModelForTokenClassification.from_pretrained(tmp_path / "m", num_labels=3)
        theirs = peft.PeftModel.from_pretrained(base, tmp_path / "peft").eval()
    assert theirs.peft_config["default"].task_type == "TOKEN_CLS"
    with torch.no_grad():
        assert same(theirs(**BATCH).logits, expected)
    fresh = PEModel.from_pretrained(tmp_path / "m", PEMethod.parse("head_only")).backbone
    again = load_peft(tmp_path / "peft", fresh, "nl", LABELS).eval()
    assert again.head_spec("nl").labels == LABELS
    with torch.no_grad():
        assert torch.equal(again(BATCH, "nl"), expected)


@pytest.mark.parametrize(
    ("backbone", "config"),
    [
        (bert, peft.LoraConfig(r=2, target_modules=["query", "value"])),
        (bert, peft.LoraConfig(r=2, lora_alpha=5, use_rslora=True, target_modules=["attention.self.key"])),
        (bert, peft.LoraConfig(r=2, target_modules=r".*\.intermediate\.dense")),
        (bert, peft.IA3Config(target_modules=["key", "value", r"output.dense"], feedforward_modules=["output.dense"])),
        (
            bert,
            peft.IA3Config(
                target_modules=r".*(self\.(key|value)|\d\.output\.dense)", feedforward_modules=r".*\d\.output\.dense"
            ),
        ),
        (gpt2, peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)),
        (gpt2, peft.IA3Config(target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"])),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_pemeta_loads_what_peft_trained(tmp_path, backbone, config):
    theirs = shaken(peft.get_peft_model(backbone(), config), 0.5)
    theirs.save_pretrained(tmp_path)
    model = load_peft(tmp_path, backbone()).eval()
    with torch.no_grad():
        assert same(theirs(**BATCH).last_hidden_state, hidden(model))
        assert not same(backbone()(**BATCH).last_hidden_state, hidden(model))


@pytest.mark.parametrize("dora", [False, True])
def test_a_task_that_peft_trained(tmp_path, dora):
    from transformers import BertForTokenClassification

    base = BertForTokenClassification(BertConfig(**{**bert().config.to_dict(), "num_labels": 3}))
    base.bert.load_state_dict(bert().state_dict())
    config = peft.LoraConfig(task_type="TOKEN_CLS", r=2, target_modules=["query"], use_dora=dora)
    theirs = shaken(peft.get_peft_model(base, config), 0.5)
    theirs.save_pretrained(tmp_path)
    with torch.no_grad():
        model = load_peft(tmp_path, bert(), "nl").eval()
        assert model.head_spec("nl").labels == ("LABEL_0", "LABEL_1", "LABEL_2")
        assert same(model(BATCH, "nl"), theirs(**BATCH).logits)
    assert load_peft(tmp_path, bert()).tasks == ()
    assert model.method.name == ("peft" if dora else "lora")
    with pytest.raises(ModelError, match="has 3 labels, but 2 were given"):
        load_peft(tmp_path, bert(), "nl", ("O", "B"))


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (peft.LoraConfig(target_modules=["query"], bias="all"), "bias"),
        (peft.LoraConfig(target_modules=["query"], init_lora_weights="olora"), "init_lora_weights"),
        (peft.LoraConfig(target_modules=["query"], init_lora_weights="pissa"), "or give the changed backbone"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_pemeta_cannot_represent_is_refused_by_name(tmp_path, config, named):
    peft.get_peft_model(bert(), config).save_pretrained(tmp_path)
    backbone = bert()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    with pytest.raises(ModelError, match=named):
        load_peft(tmp_path, backbone)
    assert backbone.state_dict().keys() == before.keys()


def test_other_methods_and_incomplete_files_are_refused(tmp_path):
    with pytest.raises(ModelError, match=r"cannot represent the method 'adapter', only .*ia3.*lora"):
        save_peft(PEModel(bert(), PEMethod.parse("adapter")), tmp_path / "no")
    model = shaken(PEModel(bert(), PEMethod.parse("lora")))
    save_peft(model, tmp_path / "a")
    model.attach(PEMethod.parse("ia3"))
    with pytest.raises(ModelError, match="ia3 is attached too, which PEFT's files cannot represent"):
        save_peft(model, tmp_path / "a")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").write_text("x")
    with pytest.raises(OutputError, match="is not empty and is not an adapter of PEFT"):
        save_peft(shaken(PEModel(bert(), PEMethod.parse("lora"))), tmp_path / "other")

    file = tmp_path / "a" / "adapter_model.safetensors"
    whole, tensors = file.read_bytes(), load_file(file)
    backbone = bert()
    file.write_bytes(whole[:-5])
    with pytest.raises(ModelError, match=r"cannot read .*adapter_model"):
        load_peft(tmp_path / "a", backbone)
    first, *rest = tensors
    save_file({name: tensors[name] for name in rest}, file)
    with pytest.raises(ModelError, match="lacks 1 of the adapter's parameters"):
        load_peft(tmp_path / "a", backbone)
    save_file({**tensors, "base_model.model.surprise": torch.ones(1)}, file)
    with pytest.raises(ModelError, match="holds surprise, which belongs neither to the adapter nor"):
        load_peft(tmp_path / "a", backbone)
    for odd in (torch.ones(3), tensors[first].reshape(4, -1)):  # as many values, of another rank
        save_file({**tensors, first: odd}, file)
        with pytest.raises(ModelError, match=r"of shape \[\d+.*\], not \[8, 8\]"):
            load_peft(tmp_path / "a", backbone)
    assert not any("pemeta" in name for name, _ in backbone.named_parameters())
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps({"r": 2}))
    with pytest.raises(ModelError, match="it has no peft_type"):
        load_peft(tmp_path / "a", backbone)
    with pytest.raises(ModelError, match=r"cannot read .*adapter_config"):
        load_peft(tmp_path, backbone)


def test_a_head_of_another_kind_of_task_is_refused(tmp_path):
    config = peft.LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS", modules_to_save=["classifier"])
    whole = BertForSequenceClassification(bert().config)
    peft.get_peft_model(whole, config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="has task_type 'SEQ_CLS', but only the head of TOKEN_CLS can be read"):
        load_peft(tmp_path, bert(), task="x")


@pytest.mark.parametrize("name", ["embeddings.word_embeddings", "encoder.layer.1.output.LayerNorm"])
def test_trained_parts_of_the_backbone_are_not_ignored(tmp_path, name):
    config = peft.LoraConfig(r=2, target_modules=["query"], modules_to_save=[name])
    peft.get_peft_model(bert(), config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="which belongs neither to the adapter nor to a linear head"):
        load_peft(tmp_path, bert())


def llama(**options) -> LlamaModel:
    torch.manual_seed(0)
    shape = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
    config = LlamaConfig(vocab_size=30, num_key_value_heads=1, pad_token_id=0, **shape, **options)
    return LlamaModel(config).eval()


@pytest.mark.parametrize("task", [None, "lm"])
@pytest.mark.parametrize(("backbone", "output"), [(gpt2, "tied"), (llama, "own")])
def test_a_language_model_s_adapter_acts_in_the_class_that_users_load(tmp_path, backbone, output, task):
    model = PEModel(backbone(), PEMethod.parse({"name": "lora", "rank": 2, "targets": ["query", "ffn_up"]}))
    model.add_head("lm", CausalLM(vocab_size=30, output=output))
    shaken(model).save_pretrained(tmp_path / "m")
    if task is not None:
        with pytest.raises(ModelError, match=r"has a bias .* which lm_head of .* has no place for"):
            save_peft(model, tmp_path / "peft", task)
    with torch.no_grad():
        model.head("lm").bias.zero_()
        save_peft(model, tmp_path / "peft", task)
        base = AutoModelForCausalLM.from_pretrained(tmp_path / "m").eval()
        theirs = peft.PeftModel.from_pretrained(base, tmp_path / "peft").eval()
        assert theirs.peft_config["default"].task_type == "CAUSAL_LM"
        found = theirs.get_base_model().base_model(**BATCH).last_hidden_state
        assert same(found, hidden(model))
        if task is not None:
            assert same(theirs(**BATCH).logits, model(BATCH, "lm"))
    again = load_peft(tmp_path / "peft", PEModel.from_pretrained(tmp_path / "m", PEMethod.parse("head_only")).backbone)
    assert torch.equal(hidden(again.eval()), hidden(model))


def test_the_class_that_an_adapter_alone_is_for(tmp_path):
    model = shaken(PEModel(llama(), PEMethod.parse("lora")))
    model.save_pretrained(tmp_path / "m")
    for kind, auto in (("CAUSAL_LM", AutoModelForCausalLM), ("FEATURE_EXTRACTION", AutoModel)):
        save_peft(model, tmp_path / "peft", task_type=kind)
        theirs = peft.PeftModel.from_pretrained(auto.from_pretrained(tmp_path / "m"), tmp_path / "peft").eval()
        assert theirs.peft_config["default"].task_type == kind
        found = theirs(**BATCH, output_hidden_states=True).hidden_states[-1]
        assert same(found, hidden(model))
    model.add_head("t", TokenClassification(labels=LABELS))
    with pytest.raises(ModelError, match="is for θ_a alone"):
        save_peft(model, tmp_path / "peft", "t", task_type="CAUSAL_LM")


def test_sequence_classification_where_transformers_has_the_same(tmp_path):
    model = PEModel(llama(), PEMethod.parse("lora"))
    model.add_head("mood", SequenceClassification(labels=("a", "b"), pooling="last"))
    shaken(model).save_pretrained(tmp_path / "m")
    with pytest.raises(ModelError, match="has a bias"):
        save_peft(model, tmp_path / "peft", "mood")
    with torch.no_grad():
        model.head("mood").classifier.bias.zero_()
    save_peft(model, tmp_path / "peft", "mood")
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m", num_labels=2)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "peft").eval()
    with torch.no_grad():
        assert same(theirs(**BATCH).logits, model(BATCH, "mood"))
    model = PEModel(llama(), PEMethod.parse("lora"))
    model.add_head("mood", SequenceClassification(labels=("a", "b"), pooling="mean"))
    with pytest.raises(ModelError, match=r"ForSequenceClassification differ.*the head pools with 'mean'"):
        save_peft(model, tmp_path / "no", "mood")
    assert not (tmp_path / "no").exists()


def test_saving_leaves_the_model_as_it_was(tmp_path):
    model = PEModel(bert(), PEMethod.parse("lora"))
    model.add_head("nl", TokenClassification(labels=LABELS))
    model.train()
    model.get_parameter("backbone.embeddings.LayerNorm.bias").requires_grad_(False)
    before = {name: (p.requires_grad, p.clone()) for name, p in model.named_parameters()}
    state = torch.random.get_rng_state()
    save_peft(model, tmp_path / "peft", "nl")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(part.training for part in model.modules())
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    assert all(p.requires_grad == before[n][0] and torch.equal(p, before[n][1]) for n, p in after.items())


def test_files_that_do_not_act_in_peft_are_not_left(tmp_path, monkeypatch):
    model = shaken(PEModel(bert(), PEMethod.parse("lora")))
    names = type(model.method).peft_names
    monkeypatch.setattr(type(model.method), "peft_names", lambda *a: {k: f"model.{v}" for k, v in names(*a).items()})
    with pytest.raises(ModelError, match=r"peft does not find all of θ_a|peft computes other outputs"):
        save_peft(model, tmp_path / "peft")
    assert not list(tmp_path.iterdir())


TUNERS = {
    "lora at embeddings": {"target_modules": ["query", "word_embeddings"]},
    "dora": {"use_dora": True, "target_modules": ["query"]},
    "lora of patterns": {
        "target_modules": ["query"],
        "rank_pattern": {"layer.0.attention.self.query": 4},
        "alpha_pattern": {r".*\.1\..*": 9},
    },
    "lora of layer 0": {"target_modules": ["query"], "layers_to_transform": 0},
    "lora but a layer": {"target_modules": ["query"], "exclude_modules": r".*layer\.0.*"},
    "ia3": {"peft_type": "IA3", "target_modules": ["value"], "feedforward_modules": []},
    "loha": {"peft_type": "LOHA", "target_modules": ["query"]},
    "lokr": {"peft_type": "LOKR", "target_modules": ["query"]},
    "vera": {"peft_type": "VERA", "target_modules": ["query"]},
    "vera without its projection": {"peft_type": "VERA", "target_modules": ["query"], "save_projection": False},
    "oft": {"peft_type": "OFT", "r": 0, "oft_block_size": 2, "target_modules": r".*\d\.output\.dense"},
}


@pytest.mark.parametrize("fields", TUNERS.values(), ids=TUNERS)
def test_any_tuner_s_saved_values_load(tmp_path, fields):
    config = peft.PeftConfig.from_peft_type(**{"peft_type": "LORA", **fields})
    theirs = shaken(peft.get_peft_model(bert(), config), 0.5)
    theirs.save_pretrained(tmp_path)
    torch.manual_seed(5)
    model = load_peft(tmp_path, bert()).eval()
    assert model.method.name in ("peft", "lora")
    assert all(parameter.requires_grad for parameter in model.parameters())
    with torch.no_grad():
        assert same(theirs(**BATCH).last_hidden_state, hidden(model))
        assert not same(bert()(**BATCH).last_hidden_state, hidden(model))


@pytest.mark.parametrize("names", ["layers.0.self_attn.q_proj", r"model\.layers\.[0-9]\.self_attn\.(q|v)_proj"])
def test_names_within_the_class_that_was_trained(tmp_path, names):
    from transformers import LlamaForCausalLM

    def fresh() -> LlamaForCausalLM:
        torch.manual_seed(0)
        return LlamaForCausalLM(llama().config).eval()

    config = peft.LoraConfig(
        r=2, target_modules=names if "(" in names else [f"model.{names}"], task_type="CAUSAL_LM", use_dora=True,
        rank_pattern={"model.layers.0.self_attn.q_proj": 4}, alpha_pattern={r"model\.layers\.0\.self_attn\.q_proj": 5}
    )  # fmt: skip
    theirs = shaken(peft.get_peft_model(fresh(), config), 0.5)
    theirs.save_pretrained(tmp_path)
    model = load_peft(tmp_path, fresh().model).eval()
    assert model.method.name == "peft"
    with torch.no_grad():
        assert same(theirs(**BATCH, output_hidden_states=True).hidden_states[-1], hidden(model))


def test_a_lora_that_eva_initialised_is_a_plain_one(tmp_path):
    config = peft.LoraConfig(
        r=4, target_modules=["query", "value"], init_lora_weights="eva", eva_config=peft.EvaConfig()
    )
    theirs = shaken(peft.get_peft_model(bert(), config), 0.5)
    theirs.save_pretrained(tmp_path)
    model = load_peft(tmp_path, bert()).eval()
    assert model.method.name == "lora"
    with torch.no_grad():
        assert same(theirs(**BATCH).last_hidden_state, hidden(model))
    new = {"peft_type": "LORA", "target_modules": ["query"], "init_lora_weights": "eva"}
    with pytest.raises(ConfigError, match=r"takes more than the backbone, such as data.*or load_peft for an adapter"):
        PEModel(bert(), PEMethod.parse({"name": "peft", "config": new}))


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_the_remedies_for_a_changed_backbone_work(tmp_path, start):
    theirs = peft.get_peft_model(bert(), peft.LoraConfig(r=2, target_modules=["query"], init_lora_weights=start))
    theirs.save_pretrained(tmp_path / "start")
    shaken(theirs, 0.5).save_pretrained(tmp_path / "changed")
    with torch.no_grad():
        expected = theirs(**BATCH).last_hidden_state
    with pytest.raises(
        ModelError, match="save it in PEFT as a plain LoRA, with path_initial_model_for_weight_conversion"
    ):
        load_peft(tmp_path / "changed", bert())
    theirs.save_pretrained(tmp_path / "plain", path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    assert same(hidden(load_peft(tmp_path / "plain", bert()).eval()), expected)

    changed = theirs.unload()
    file = tmp_path / "changed" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"init_lora_weights": True}))
    assert same(hidden(load_peft(tmp_path / "changed", changed).eval()), expected)


def test_without_peft_the_package_is_named(tmp_path, monkeypatch):
    from pemeta.deploy import peft_files
    from pemeta.methods import peft_bridge

    peft.get_peft_model(bert(), peft.LoHaConfig(target_modules=["query"])).save_pretrained(tmp_path)
    for module in (peft_files, peft_bridge):
        monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"not of PEFT's type LOHA; install the package peft.*pip install"):
        load_peft(tmp_path, bert())


SMALL = {
    "ADALORA": {"total_step": 10},
    "BOFT": {"boft_block_size": 2},
    "C3A": {"block_size": 4},
    "FOURIERFT": {"n_frequency": 8},
    "WAVEFT": {"n_frequency": 8},
    "IA3": {"feedforward_modules": []},
    "OFT": {"oft_block_size": 2, "r": 0},
    "ROAD": {"group_size": 4},
    "SHIRA": {"r": 2},
    "VBLORA": {"vector_length": 4, "num_vectors": 8},
    "VERA": {"r": 2},
    "PVERA": {"r": 2},
    "PSOFT": {"r": 2},
    "OSF": {"effective_rank": 2},
}
# Tuners whose layers cannot be primed, not even on a frozen backbone, for the reasons in methods/test_peft_tuners.py.
REFUSED = {"C3A", "OSF"}
REFUSED_UNFROZEN = {"ADAMSS", "DELORA", "FROD", "HRA", "LN_TUNING", "PSOFT", "SHIRA", "TINYLORA"}


@pytest.mark.faults("PEFT's tuners: saved values load, or are refused")
@pytest.mark.parametrize("kind", sorted(str(kind.value) for kind in peft.mapping.PEFT_TYPE_TO_TUNER_MAPPING))
def test_every_tuner_of_the_installed_peft(tmp_path, kind):
    try:
        config = peft.PeftConfig.from_peft_type(peft_type=kind, target_modules=["query"], **SMALL.get(kind, {}))
        theirs = shaken(peft.get_peft_model(bert(), config), 0.1)
        with torch.no_grad():
            expected = theirs(**BATCH).last_hidden_state
        theirs.save_pretrained(tmp_path)
        peft.PeftModel.from_pretrained(bert(), tmp_path)
    except Exception as error:
        pytest.skip(f"peft itself does not build, run or load it on BERT: {type(error).__name__}: {error}")
    if kind in REFUSED:
        with pytest.raises(ModelError, match="the tuner"):
            load_peft(tmp_path, bert().requires_grad_(False))
        return
    if kind in REFUSED_UNFROZEN:
        with pytest.raises(ModelError, match="the tuner"):
            load_peft(tmp_path, bert())
    model = load_peft(tmp_path, bert().requires_grad_(kind not in REFUSED_UNFROZEN)).eval()
    assert same(expected, hidden(model))


@pytest.mark.parametrize(
    ("config", "change", "says"),
    [
        (peft.LoraConfig(r=2, target_modules=["query"]), lambda value: value.T.contiguous(), "of shape [8, 2], not [2"),
        (peft.LoraConfig(r=2, target_modules=["query"]), lambda value: value / 0, "is not finite: base_model.model."),
        (
            peft.LoraConfig(r=2, target_modules=["query"]),
            lambda value: value[:1],
            "has encoder.layer.0.attention.self.",
        ),
        (
            peft.IA3Config(target_modules=["key", "value", INNER], feedforward_modules=[INNER]),
            lambda value: value * float("nan"),
            "is not finite: base_model.model.",
        ),
    ],
    ids=["transposed", "infinite", "cut", "not a number"],
)
def test_values_of_another_shape_or_not_finite_are_refused(tmp_path, config, change, says):
    shaken(peft.get_peft_model(bert(), config)).save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    save_file({name: change(value) for name, value in load_file(file).items()}, file)
    with pytest.raises(ModelError) as caught:
        load_peft(tmp_path, bert())
    assert says in str(caught.value)


@pytest.mark.parametrize("named", [None, ["query"]])
def test_a_tuner_without_layers_is_refused(tmp_path, named):
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "PREFIX_TUNING", "task_type": "TOKEN_CLS", "target_modules": named})
    )
    save_file({"prompt_embeddings": torch.zeros(2, 8)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises((ModelError, ConfigError), match="the tuner PREFIX_TUNING puts no layers into a backbone; use"):
        load_peft(tmp_path, bert())
