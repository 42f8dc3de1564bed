"""Partition, stored parameters, heads, and states of a model."""

import pytest
import torch
from transformers import BertConfig, BertModel, T5Config, T5EncoderModel, T5ForConditionalGeneration

from pemeta import Adapter, Full, HeadOnly, Partition, PEModel, TokenClassificationHead
from pemeta.backbone.loading import empty_backbone, load_backbone
from pemeta.errors import ModelError
from pemeta.utils.hub import quiet
from pemeta.utils.modules import only_trainable


def tiny(method=None) -> PEModel:
    torch.manual_seed(0)
    config = BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12)
    model = PEModel(BertModel(config, add_pooling_layer=False), method or Adapter(bottleneck=4))
    for task in ("en", "zh.Hant", "keys"):
        model.add_head(task, lambda width: TokenClassificationHead(width, 3))
    return model


def test_the_papers_percentages_on_mbert():
    """Table 1: head tuning stores 3e-3 %, the adapter less than 0.4 %; counted on the shape of mBERT."""
    config = BertConfig(vocab_size=119547)
    counts = {}
    for method in (HeadOnly(), Adapter(), Full()):
        with torch.device("meta"):
            model = PEModel(BertModel(config, add_pooling_layer=False), method)
            model.add_head("en", lambda width: TokenClassificationHead(width, 7))
        counts[method.name] = (model.num_stored("en"), model.fraction_stored("en"))
    assert counts["head_only"][0] == 768 * 7 + 7
    assert f"{100 * counts['head_only'][1]:.0e}" == "3e-03"
    assert counts["adapter"][0] == 768 * 7 + 7 + 2 * 768 * 64 + 64 + 768
    assert 100 * counts["adapter"][1] == pytest.approx(0.0589, abs=5e-5)
    assert counts["full"] == (177_262_848 + 768 * 7 + 7, 1.0)


def test_heads_of_other_tasks_do_not_count():
    model = tiny()
    before = model.fraction_stored("en")
    model.add_head("more", lambda width: TokenClassificationHead(width, 500))
    assert model.fraction_stored("en") == before


def test_task_names_may_be_anything():
    model = tiny()
    assert model.tasks == ("en", "zh.Hant", "keys")
    model.add_head("zh%2EHant", lambda width: TokenClassificationHead(width, 3))
    assert model.tasks == ("en", "zh.Hant", "keys", "zh%2EHant")
    assert len(model.head_names("zh.Hant")) == 2
    with pytest.raises(ModelError, match="unknown task 'ens'; did you mean 'en'"):
        model.head("ens")
    model.drop_heads()
    assert model.partition().theta_h == ()


def test_a_head_that_shares_a_parameter_is_refused():
    model = tiny()
    shared = model.head("en")
    with pytest.raises(ModelError, match="the head of task 'es' shares a parameter with the backbone or another head"):
        model.add_head("es", lambda width: shared)
    model.add_head("en", lambda width: shared)  # its own again


def test_a_seed_fixes_a_head_whatever_was_drawn_before():
    a, b = tiny(), tiny()
    torch.rand(3)
    b.add_head("en", lambda width: TokenClassificationHead(width, 3))
    assert torch.equal(a.head("en").classifier.weight, b.head("en").classifier.weight)
    assert not torch.equal(a.head("en").classifier.weight, a.head("keys").classifier.weight)


def test_states_are_copies_and_mismatched_states_are_refused():
    model = tiny()
    state = model.state(model.stored_names("en"))
    with torch.no_grad():
        model.head("en").classifier.bias.add_(1)
    assert not state["heads.task_en.classifier.bias"].any()
    model.load_state(state)
    assert not model.head("en").classifier.bias.any()
    with pytest.raises(ModelError, match="the model has no parameter nothing"):
        model.load_state({"nothing": torch.ones(1)})
    with pytest.raises(ModelError, match=r"has shape \(3,\) in the model and \(2,\) in the state"):
        model.load_state({"heads.task_en.classifier.bias": torch.ones(2)})


def test_invalid_partitions_are_refused():
    model = tiny()
    with pytest.raises(ModelError, match=r"no\.such is not among"):
        Partition.of(model, ["no.such"], [])
    bias = "heads.task_en.classifier.bias"
    with pytest.raises(ModelError, match=f"{bias} is in both"):
        Partition.of(model, [bias], [bias])


def test_only_trainable_restores_everything():
    model = tiny()
    frozen = model.get_parameter("backbone.embeddings.word_embeddings.weight").requires_grad_(False)
    with only_trainable(model, model.partition().theta_a) as trained:
        assert {n for n, p in model.named_parameters() if p.requires_grad} == set(trained)
    assert [p is frozen for p in model.parameters() if not p.requires_grad] == [True]


def test_backbones_load_without_a_pooler_in_float32(tmp_path):
    config = BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12)
    BertModel(config).half().save_pretrained(tmp_path)
    loaded = load_backbone(tmp_path, "eager")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert not any("pooler" in name for name, _ in loaded.named_parameters())
    assert loaded.config._attn_implementation == "eager"
    with pytest.raises(ModelError, match=r"a model from '.*nothing.*': .*; give a folder with config\.json"):
        load_backbone(tmp_path / "nothing")


def test_the_encoder_of_an_encoder_decoder_is_the_backbone(tmp_path):
    config = T5Config(d_model=8, d_kv=4, d_ff=12, num_layers=1, num_heads=2, vocab_size=30)
    whole = T5ForConditionalGeneration(config)
    with quiet():
        whole.save_pretrained(tmp_path)
    loaded = load_backbone(tmp_path)
    assert type(loaded) is T5EncoderModel
    values = whole.state_dict()
    assert all(torch.equal(value, values[name]) for name, value in loaded.state_dict().items())
    assert [n for n, _ in empty_backbone(tmp_path).named_parameters()] == [n for n, _ in loaded.named_parameters()]
