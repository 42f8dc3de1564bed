"""Exported sequence classification and language models are transformers' own classes, with the same logits."""

from __future__ import annotations

import pytest
import torch
from exported_models import BATCH, DECODERS, ENCODERS, IDS, LANGUAGE_MODELS, LORA, TINY, close, some, trained
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedModel,
    pipeline,
)

from pemeta import PEMethod, PEModel, to_transformers
from pemeta.errors import ModelError
from pemeta.heads import CausalLM, MaskedLM, SequenceClassification
from pemeta.model.same_outputs import differ
from pemeta.utils.hub import quiet


def logits(model: PEModel) -> torch.Tensor:
    with torch.no_grad():
        return model(BATCH, "t")


def reloaded(plain: PreTrainedModel, auto, folder) -> PreTrainedModel:
    """The exported model, from its folder; nothing is missing there or left over."""
    plain.save_pretrained(folder)
    with quiet():
        again, info = auto.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    return again.eval()


@pytest.mark.parametrize("name", some(ENCODERS, "bert", "distilbert"))
def test_an_encoder_s_class_has_the_same_logits_although_it_has_two_maps(tmp_path, name):
    head = SequenceClassification(labels=("low", "mid", "high"), pooling="first", dropout=0.2)
    model = trained(ENCODERS[name](), head)
    before = model.state()
    plain = to_transformers(model, "t")
    assert all(torch.equal(value, before[key]) for key, value in model.state().items())
    again = reloaded(plain, AutoModelForSequenceClassification, tmp_path)
    assert again.config.id2label == {0: "low", 1: "mid", 2: "high"}
    with torch.no_grad():
        for one in (plain, again):
            assert close(one(**BATCH).logits, logits(model))
        far = {"input_ids": torch.randint(1, 30, (64, 12), generator=torch.Generator().manual_seed(3))}
        assert close(again(**far).logits, model(far, "t"))  # not only near what the export was tried on


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_s_class_reads_the_last_token_without_a_bias(tmp_path, name):
    model = trained(DECODERS[name](), SequenceClassification(labels=("a", "b"), pooling="last"))
    with pytest.raises(ModelError, match=r"has a bias .* which score of .* has no place for; train the task with"):
        to_transformers(model, "t")
    with torch.no_grad():
        model.head("t").classifier.bias.zero_()
    again = reloaded(to_transformers(model, "t"), AutoModelForSequenceClassification, tmp_path)
    with torch.no_grad():
        assert close(again(**BATCH).logits, logits(model))
    model.backbone.config.pad_token_id = None  # then a class of transformers takes one text at a time
    single = to_transformers(model, "t")
    with torch.no_grad():
        assert close(single(IDS[:1]).logits, logits(model)[:1])


@pytest.mark.parametrize(("make", "pooling"), [(ENCODERS["bert"], "mean"), (DECODERS["llama"], "first")])
def test_what_a_class_pools_otherwise_is_refused(make, pooling):
    model = trained(make(), SequenceClassification(labels=("a", "b"), pooling=pooling))
    with torch.no_grad():
        model.head("t").classifier.bias.zero_()
    with pytest.raises(ModelError, match=f"the head pools with '{pooling}', and transformers' classes take the first"):
        to_transformers(model, "t")


def test_a_class_with_more_than_maps_is_refused():
    modern = ModernBertModel(ModernBertConfig(**TINY, pad_token_id=0))
    model = trained(modern, SequenceClassification(labels=("a", "b"), pooling="first"), "layer_norm")
    with pytest.raises(ModelError, match="ModernBertForSequenceClassification has head, classifier after its backbone"):
        to_transformers(model, "t")


def test_in_sixteen_bits(tmp_path):
    model = trained(ENCODERS["bert"]().to(torch.bfloat16), SequenceClassification(labels=("a", "b"), pooling="first"))
    again = reloaded(to_transformers(model, "t"), AutoModelForSequenceClassification, tmp_path)
    with torch.no_grad():
        assert torch.allclose(again(**BATCH).logits.float(), logits(model), atol=0.1)


def test_small_logits_are_rounded_as_the_large_ones_are():
    """As in SmolLM2-135M, whose logits reach 35 and are off by 6e-4 after a merge in float32, by 2e-5 in float64."""
    one = torch.linspace(-35, 35, 81).view(1, 1, 81)
    assert differ(one + 6.5e-4, one) is None
    assert differ(one + 6.5e-3, one) is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_odd_token_is_rounding_in_sixteen_bits_only(dtype):
    one = torch.linspace(-35, 35, 80, dtype=dtype).view(1, 8, 10)
    odd = one.clone()
    odd[0, 3] += 20
    assert (differ(odd, one) is None) == (dtype == torch.bfloat16)
    assert differ(one + 2, one) == pytest.approx(2, abs=0.2)  # off everywhere
    assert differ(one * float("nan"), one) is not None


def test_it_works_in_a_pipeline(tiny_bert_dir, tokenizer):
    backbone = BertModel.from_pretrained(tiny_bert_dir, add_pooling_layer=False)
    model = trained(backbone, SequenceClassification(labels=("calm", "cross"), pooling="first"))
    plain = to_transformers(model, "t", tokenizer)
    classify = pipeline("text-classification", model=plain, tokenizer=tokenizer, device="cpu", top_k=None)
    found = {one["label"]: one["score"] for one in classify(["Anna met Otto"])[0]}
    encoded = tokenizer("Anna met Otto", return_tensors="pt")
    with torch.no_grad():
        expected = model({key: encoded[key] for key in ("input_ids", "attention_mask")}, "t")[0].softmax(-1)
    assert found == pytest.approx(dict(zip(("calm", "cross"), expected.tolist(), strict=True)), abs=1e-5)


@pytest.mark.parametrize("method", some([LORA, "ia3", "layer_norm", "full"], LORA), ids=str)
@pytest.mark.parametrize(("name", "output"), [("gpt2", "tied"), ("llama", "own")])
def test_a_language_model_is_exported_whole(tmp_path, name, output, method):
    model = trained(DECODERS[name](), CausalLM(vocab_size=30, output=output), method)
    with pytest.raises(ModelError, match="has a bias"):
        to_transformers(model, "t")
    with torch.no_grad():
        model.head("t").bias.zero_()
    plain = to_transformers(model, "t")
    again = reloaded(plain, AutoModelForCausalLM, tmp_path)
    mask = BATCH["attention_mask"].bool()
    with torch.no_grad():
        for one in (plain, again):
            assert close(one(**BATCH).logits[mask], logits(model)[mask])
    tied = again.get_output_embeddings().weight is again.get_input_embeddings().weight
    assert tied == (output == "tied")


def test_without_a_task_the_backbone_is_exported(tmp_path):
    model = trained(ENCODERS["bert"](), SequenceClassification(labels=("a", "b")))
    plain = to_transformers(model)
    assert type(plain) is BertModel
    plain.save_pretrained(tmp_path)
    again = BertModel.from_pretrained(tmp_path, add_pooling_layer=False).eval()
    mask = BATCH["attention_mask"].bool()
    with torch.no_grad():
        assert close(again(**BATCH).last_hidden_state[mask], model.hidden_states(BATCH)[mask])


@pytest.mark.parametrize("method", some([LORA, "full"], LORA), ids=str)
@pytest.mark.parametrize("name", some(LANGUAGE_MODELS, "llama untied", "gemma2 capped"))
def test_a_pretrained_output_is_exported_as_it_is(tmp_path, name, method):
    model = trained(LANGUAGE_MODELS[name](), CausalLM(), method)
    before = model.state()
    plain = to_transformers(model, "t")
    again = reloaded(plain, AutoModelForCausalLM, tmp_path)
    mask = BATCH["attention_mask"].bool()
    with torch.no_grad():
        for one in (plain, again):
            assert close(one(**BATCH).logits[mask], logits(model)[mask])
        for parameter in plain.parameters():
            parameter.add_(1)  # a model of its own
    assert all(torch.equal(value, before[key]) for key, value in model.state().items())
    tied = again.get_output_embeddings().weight is again.get_input_embeddings().weight
    assert tied == getattr(model.backbone.config, "tie_word_embeddings", True)


def test_a_masked_language_model(tmp_path):
    model = trained(BertForMaskedLM(BertConfig(**TINY)), MaskedLM())
    again = reloaded(to_transformers(model, "t"), AutoModelForMaskedLM, tmp_path)
    mask = BATCH["attention_mask"].bool()
    with torch.no_grad():
        assert close(again(**BATCH).logits[mask], logits(model)[mask])


@pytest.mark.parametrize(
    ("problem", "named"), [("multi_label", "multi_label_classification"), ("regression", "regression")]
)
def test_what_a_head_is_trained_for_is_in_the_configuration(tmp_path, tokenizer, tiny_bert_dir, problem, named):
    """So that a pipeline gives probabilities of each label, or the numbers."""
    backbone = BertModel.from_pretrained(tiny_bert_dir, add_pooling_layer=False)
    model = trained(backbone, SequenceClassification(labels=("a", "b"), pooling="first", problem=problem))
    plain = to_transformers(model, "t", tokenizer)
    assert plain.config.problem_type == named
    encoded = tokenizer("Anna met Otto", return_tensors="pt")
    with torch.no_grad():
        expected = model({key: encoded[key] for key in ("input_ids", "attention_mask")}, "t")[0]
    classify = pipeline("text-classification", model=plain, tokenizer=tokenizer, device="cpu", top_k=None)
    found = {one["label"]: one["score"] for one in classify(["Anna met Otto"])[0]}
    expected = expected.sigmoid() if problem == "multi_label" else expected
    assert found == pytest.approx(dict(zip("ab", expected.tolist(), strict=True)), abs=1e-5)


def test_a_chat_model_keeps_how_it_generates(tmp_path):
    whole = LANGUAGE_MODELS["llama tied"]()
    whole.generation_config.eos_token_id = [5, 7]
    whole.save_pretrained(tmp_path / "base")
    model = PEModel.from_pretrained(tmp_path / "base", PEMethod.parse(LORA), output="causal_lm")
    model.add_head("t", CausalLM())
    to_transformers(model, "t").save_pretrained(tmp_path / "plain")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "plain").generation_config.eos_token_id == [5, 7]
