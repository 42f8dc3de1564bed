"""Adapters for each class of transformers: PEFT computes the same in it, and servers of LoRA find what they need."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from exported_models import BATCH, DECODERS, ENCODERS, LANGUAGE_MODELS, LORA, close, some, trained
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from pemeta import PEModel, save_peft, to_transformers, vllm_refusals
from pemeta.errors import ArgumentError, ModelError
from pemeta.heads import CausalLM, SequenceClassification
from pemeta.utils.hub import quiet

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT's own
MASK = BATCH["attention_mask"].bool()
AUTOS = {
    "FEATURE_EXTRACTION": AutoModel,
    "TOKEN_CLS": AutoModelForTokenClassification,
    "SEQ_CLS": AutoModelForSequenceClassification,
    "QUESTION_ANS": AutoModelForQuestionAnswering,
    "CAUSAL_LM": AutoModelForCausalLM,
}


@pytest.mark.parametrize("kind", some(AUTOS, "SEQ_CLS"))
@pytest.mark.parametrize("make", [DECODERS["llama"], ENCODERS["bert"]], ids=["llama", "bert"])
def test_theta_a_alone_acts_in_every_class(tmp_path, make, kind):
    model = trained(make(), SequenceClassification(labels=("a", "b")))
    if kind == "CAUSAL_LM" and make is ENCODERS["bert"]:
        pytest.skip("an encoder is no causal language model")
    model.save_pretrained(tmp_path / "m")
    save_peft(model, tmp_path / "peft", task_type=kind)
    with quiet(), torch.no_grad():
        base = AUTOS[kind].from_pretrained(tmp_path / "m").eval()
        theirs = peft.PeftModel.from_pretrained(base, tmp_path / "peft").eval()
        named = theirs.peft_config["default"].task_type
        assert named == (kind if kind in ("FEATURE_EXTRACTION", "CAUSAL_LM") else None)  # others hold a head in PEFT
        inner = theirs.get_base_model()
        inner = inner if kind == "FEATURE_EXTRACTION" else getattr(inner, inner.base_model_prefix)
        found = inner(**BATCH).last_hidden_state
        assert close(found[MASK], model.hidden_states(BATCH)[MASK])
    with pytest.raises(ArgumentError, match="task_type must be"):
        save_peft(model, tmp_path / "peft", task_type="SEQ2SEQ")


@pytest.mark.parametrize("name", some([*ENCODERS, *DECODERS], "bert"))
def test_sequence_classification_has_the_same_logits_in_transformers_with_peft(tmp_path, name):
    pooling = "first" if name in ENCODERS else "last"
    model = trained({**ENCODERS, **DECODERS}[name](), SequenceClassification(labels=("a", "b", "c"), pooling=pooling))
    if name in DECODERS:
        with torch.no_grad():
            model.head("t").classifier.bias.zero_()
    model.save_pretrained(tmp_path / "m")
    save_peft(model, tmp_path / "peft", "t", base=tmp_path / "m")
    with quiet(), torch.no_grad():
        base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m", num_labels=3).eval()
        theirs = peft.PeftModel.from_pretrained(base, tmp_path / "peft").eval()
        assert theirs.peft_config["default"].task_type == "SEQ_CLS"
        assert close(theirs(**BATCH).logits, model(BATCH, "t"))
        with theirs.disable_adapter():
            assert not close(theirs(**BATCH).logits, model(BATCH, "t"))


def language_model(folder, name="llama untied", targets=("query", "value"), **options) -> PEModel:
    """A language model with LoRA, saved with its task's adapter."""
    model = trained(LANGUAGE_MODELS[name](), CausalLM(), {**LORA, "targets": targets, **options})
    model.save_pretrained(folder / "m")
    save_peft(model, folder / "peft", "t", base=folder / "m")
    return model


@pytest.mark.parametrize("alone", [False, pytest.param(True, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", some(LANGUAGE_MODELS, "llama untied"))
def test_a_primed_language_model_and_its_adapter_go_to_peft_as_they_are(tmp_path, name, alone):
    model = language_model(tmp_path, name)
    if alone:
        save_peft(model, tmp_path / "peft")
    with quiet():
        base = AutoModelForCausalLM.from_pretrained(tmp_path / "m").eval()
        theirs = peft.PeftModel.from_pretrained(base, tmp_path / "peft").eval()
    with torch.no_grad():
        assert close(theirs(**BATCH).logits[MASK], model(BATCH, "t")[MASK])
        with theirs.disable_adapter():
            assert not close(theirs(**BATCH).logits[MASK], model(BATCH, "t")[MASK])
    prompt = BATCH["input_ids"][:1]
    merged = to_transformers(model, "t").generate(prompt, max_new_tokens=8, do_sample=False)
    assert torch.equal(theirs.generate(input_ids=prompt, max_new_tokens=8, do_sample=False), merged)


@pytest.mark.parametrize(
    ("targets", "named"),
    [
        (("query", "value"), ["q_proj", "v_proj"]),
        (("ffn_up", "ffn_down"), ["down_proj", "gate_proj", "up_proj"]),
    ],
)
def test_a_language_model_s_adapter_names_maps_as_servers_expect(tmp_path, targets, named):
    language_model(tmp_path, targets=targets)
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert sorted(config["target_modules"]) == named
    assert config["task_type"] == "CAUSAL_LM"
    assert "modules_to_save" not in config
    names = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    assert all(name.startswith("base_model.model.model.layers.") for name in names)


def test_maps_of_some_layers_keep_their_whole_names(tmp_path):
    language_model(tmp_path, top_layers=1)
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["layers.1.self_attn.q_proj", "layers.1.self_attn.v_proj"]


# What vLLM would refuse


def change(folder, **fields) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.fixture(scope="module")
def made(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("served")
    language_model(folder)
    tokenizer.save_pretrained(folder / "m")
    return folder


@pytest.fixture
def whole(tmp_path, made):
    """A primed language model's folder, and an adapter for it."""
    shutil.copytree(made, tmp_path / "copy")
    change(tmp_path / "copy" / "peft", base_model_name_or_path=str(tmp_path / "copy" / "m"))
    return tmp_path / "copy"


def test_a_primed_folder_and_its_adapter_are_what_servers_need_as_they_are(whole):
    assert (whole / "m" / "theta_a.safetensors").is_file()  # which no server may take for weights of the model
    assert vllm_refusals(whole / "m") == vllm_refusals(whole / "peft") == ()
    assert vllm_refusals(str(whole / "peft"), base=str(whole / "m"), max_lora_rank=8) == ()


def test_so_is_a_merged_model(whole, tokenizer):
    model = PEModel.from_pretrained(whole / "m")
    model.add_head("t", CausalLM())
    to_transformers(model, "t", tokenizer).save_pretrained(whole / "merged")
    assert vllm_refusals(whole / "merged") == ()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"peft_type": "IA3"}, "it is of the type IA3, and only LORA is served"),
        ({"r": 24}, "its rank 24 is more than --max-lora-rank 16; start the server with --max-lora-rank 32"),
        ({"r": 1000}, "its rank is 1000, and the most is 512"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is lm_head, but only low-rank updates"),
        ({"use_dora": True}, "it uses DoRA"),
        ({"bias": "all"}, "it trained biases"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern would be ignored"),
        ({"alpha_pattern": {"q_proj": 4}}, "alpha_pattern would be ignored"),
        ({"target_modules": ".*q_proj"}, "target_modules is a pattern"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_each_need_of_an_adapter(whole, fields, says):
    change(whole / "peft", **fields)
    (found,) = vllm_refusals(whole / "peft", whole / "m")
    assert found.startswith(says)


def test_adapters_for_another_class_are_found(whole):
    """As an adapter for AutoModel, which does nothing in a language model."""
    values = load_file(whole / "peft" / "adapter_model.safetensors")
    moved = {name.replace("base_model.model.model.", "base_model.model."): value for name, value in values.items()}
    save_file(moved, whole / "peft" / "adapter_model.safetensors")
    (found,) = vllm_refusals(whole / "peft", whole / "m")
    assert found.startswith("the adapter is for layers.0.self_attn.q_proj, which ")
    save_file(
        {**values, "base_model.model.lm_head.weight": torch.zeros(1)}, whole / "peft" / "adapter_model.safetensors"
    )
    (found,) = vllm_refusals(whole / "peft", whole / "m")
    assert found == "adapter_model.safetensors holds base_model.model.lm_head.weight, which is no part of a LoRA"


def test_what_is_wrong_with_a_base(whole):
    base = whole / "m"
    (base / "model.safetensors.index.json").unlink()
    for file in base.glob("tokenizer*"):
        file.unlink()
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaModel"]}))
    found = vllm_refusals(whole / "peft", base)
    assert [one.partition(" ")[0] for one in found] == ["config.json", "buffers.safetensors,", str(base)]
    (base / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"cannot read .*model\.safetensors: .*; write the folder again"):
        vllm_refusals(base)
    with pytest.raises(ModelError, match=r"has neither adapter_config\.json nor config\.json"):
        vllm_refusals(whole)
