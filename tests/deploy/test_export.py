"""A merged task is a plain transformers model with the same logits; other tasks are refused."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    ModernBertConfig,
    ModernBertModel,
    T5Config,
    T5EncoderModel,
    ViTConfig,
    ViTModel,
    pipeline,
)

from pemeta import PEMethod, PEModel, to_transformers
from pemeta.backbone.loading import load_backbone
from pemeta.errors import ModelError
from pemeta.heads import TokenClassification
from pemeta.utils.hub import quiet

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
MERGEABLE = [
    {"name": "lora", "rank": 2, "targets": ["query", "value", "ffn_up", "ffn_down"]},
    "ia3",
    "bitfit",
    "layer_norm",
    "full",
    "head_only",
    {"name": "compose", "methods": ["bitfit", "ia3"]},
]
IDS = torch.tensor([[2, 7, 8, 9, 3], [2, 9, 3, 0, 0]])
BATCH = {"input_ids": IDS, "attention_mask": (IDS != 0).long()}
TINY = {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}


def trained(backbone, method="bitfit", head=None) -> PEModel:
    """A model with a task, and all parameters changed."""
    model = PEModel(backbone, PEMethod.parse(method))
    model.add_head("nl", head or TokenClassification(labels=LABELS))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()


def logits(model: PEModel) -> torch.Tensor:
    with torch.no_grad():
        return model(BATCH, "nl")


@pytest.mark.parametrize("method", MERGEABLE, ids=str)
def test_the_logits_are_the_same_and_the_model_stays(tiny_bert_dir, tmp_path, method):
    model = trained(load_backbone(tiny_bert_dir), method)
    before = model.state()
    plain = to_transformers(model, "nl")
    assert model.state().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state().items())
    assert not any("pemeta" in name for name, _ in plain.named_parameters())
    assert plain.config.id2label == dict(enumerate(LABELS))
    plain.save_pretrained(tmp_path)
    with quiet():
        again, info = AutoModelForTokenClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    for one in (plain, again):
        with torch.no_grad():
            assert torch.allclose(one(**BATCH).logits, logits(model), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (GPT2Config(vocab_size=30, n_embd=8, n_layer=2, n_head=2, n_positions=16), GPT2Model),
        (LlamaConfig(**TINY, num_key_value_heads=1), LlamaModel),
        (T5Config(vocab_size=30, d_model=8, d_ff=12, num_layers=2, num_heads=2, d_kv=4), T5EncoderModel),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("method", ["lora", "ia3"])
def test_other_architectures(config, kind, method, tmp_path):
    torch.manual_seed(0)
    model = trained(kind(config).eval(), method)
    plain = to_transformers(model, "nl")
    plain.save_pretrained(tmp_path)
    with quiet(), torch.no_grad():
        again = AutoModelForTokenClassification.from_pretrained(tmp_path)
        assert torch.allclose(again(**BATCH).logits, logits(model), atol=1e-5, rtol=1e-5)


def test_it_works_in_a_pipeline(tiny_bert_dir):
    model = trained(load_backbone(tiny_bert_dir), "lora")
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert_dir)
    tag = pipeline("token-classification", model=to_transformers(model, "nl"), tokenizer=tokenizer, device="cpu")
    found = tag("Anna Otto met Rome", ignore_labels=[])
    encoded = tokenizer("Anna Otto met Rome", return_tensors="pt")
    with torch.no_grad():
        expected = model({key: encoded[key] for key in ("input_ids", "attention_mask")}, "nl")[0, 1:-1].softmax(-1)
    assert [one["entity"] for one in found] == [LABELS[i] for i in expected.argmax(-1)]
    assert [one["score"] for one in found] == pytest.approx(expected.max(-1).values.tolist(), abs=1e-5)


def test_tasks_that_cannot_be_exported_are_refused(tiny_bert_dir):
    backbone = load_backbone(tiny_bert_dir)
    with pytest.raises(ModelError, match="adapter cannot be merged into the backbone's own parameters; keep the task"):
        to_transformers(trained(backbone, "adapter"), "nl")
    model = trained(load_backbone(tiny_bert_dir), "lora")
    model.attach(PEMethod.parse({"name": "prefix", "length": 2}))
    with pytest.raises(ModelError, match="prefix cannot be merged"):
        to_transformers(model, "nl")
    modern = ModernBertModel(ModernBertConfig(**TINY, pad_token_id=0)).eval()
    with pytest.raises(ModelError, match="ModernBertForTokenClassification has head, classifier after its backbone"):
        to_transformers(trained(modern, "layer_norm"), "nl")
    vit = ViTModel(ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12), False)
    with pytest.raises(ModelError, match="transformers has no token classification for vit"):
        to_transformers(trained(vit.eval()), "nl")


def test_two_methods_that_add_modules_are_not_merged(tiny_bert_dir):
    model = trained(load_backbone(tiny_bert_dir), "lora")
    model.attach(PEMethod.parse("ia3"))
    with pytest.raises(ModelError, match="lora and ia3 are attached together, and merging would lose their order"):
        to_transformers(model, "nl")
    model.detach(PEMethod.parse("ia3"))
    model.attach(PEMethod.parse({"name": "compose", "methods": ["bitfit", "layer_norm"]}))  # adds none
    to_transformers(model, "nl")


@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-3), (torch.float64, 1e-5)])
def test_logits_that_are_slightly_off_are_refused(tiny_bert_dir, monkeypatch, dtype, off):
    def merge(self, backbone):
        next(p for n, p in backbone.named_parameters() if n.endswith("output.LayerNorm.bias")).data += 10 * off

    model = trained(load_backbone(tiny_bert_dir, dtype=dtype))
    to_transformers(model, "nl")
    monkeypatch.setattr(type(model.method), "merge", merge)
    with pytest.raises(ModelError, match=r"the logits of .* differ from this model's"):
        to_transformers(model, "nl")


def test_an_exported_folder_has_its_tokenizer(tiny_bert_dir, tmp_path, tokenizer, capsys):
    trained(load_backbone(tiny_bert_dir), "lora").save_pretrained(tmp_path / "m", tokenizer)
    model = PEModel.from_pretrained(tmp_path / "m")
    model.add_head("nl", TokenClassification(labels=LABELS))
    plain = to_transformers(model, "nl")
    for number, one in enumerate((plain, copy.deepcopy(plain), pickle.loads(pickle.dumps(plain)))):
        one.save_pretrained(tmp_path / f"plain{number}")
        tag = pipeline("token-classification", model=str(tmp_path / f"plain{number}"), device="cpu")
        assert tag.tokenizer.get_vocab() == tokenizer.get_vocab()
        assert tag("Anna Otto", ignore_labels=[])
    modes = {file.stat().st_mode for file in (tmp_path / "plain0").iterdir()}
    assert len(modes) == 1
    assert "no tokenizer" not in capsys.readouterr().err


def test_an_export_without_a_tokenizer_says_so(tiny_bert_dir, tmp_path, tokenizer, capsys):
    model = trained(load_backbone(tiny_bert_dir), "lora")
    model.backbone.config._name_or_path = ""
    to_transformers(model, "nl").save_pretrained(tmp_path / "a")
    assert "has no tokenizer, and transformers would make an empty one in its place" in capsys.readouterr().err
    to_transformers(model, "nl", tokenizer).save_pretrained(tmp_path / "b")
    assert AutoTokenizer.from_pretrained(tmp_path / "b").get_vocab() == tokenizer.get_vocab()
    model.tokenizer_digest = "0" * 12
    with pytest.raises(ModelError, match="was made with another tokenizer"):
        to_transformers(model, "nl", tokenizer)
