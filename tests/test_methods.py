"""What every PE method promises; a new method is one more row in ``tiny_models.METHODS``."""

import copy
import pickle

import pytest
import torch
from tiny_models import METHODS
from torch import nn
from transformers import BertConfig, BertModel

from pemeta import Adapter, PEMethod, PEModel, TokenClassificationHead
from pemeta.errors import ConfigError, ModelError

D, K = 8, 4  # what the formulas in METHODS are for
rows = pytest.mark.parametrize(("method", "formula"), METHODS.values(), ids=METHODS)


def backbone() -> BertModel:
    torch.manual_seed(0)
    config = BertConfig(vocab_size=30, hidden_size=D, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12)
    return BertModel(config, add_pooling_layer=False).eval()


def with_head(method: PEMethod, seed: int = 0) -> PEModel:
    model = PEModel(backbone(), method, seed=seed)
    model.add_head("en", lambda width: TokenClassificationHead(width, 3))
    return model.eval()


BATCH = {"input_ids": torch.tensor([[1, 2, 3], [4, 5, 0]]), "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}


def test_every_registered_method_has_a_row():
    assert PEMethod.members().keys() == METHODS.keys()


@rows
def test_the_declared_names_exist_and_their_count_is_the_formula(method, formula):
    model = with_head(method)
    parts = model.partition()
    names = [n for n, _ in model.named_parameters()]
    assert sorted(parts.theta_p + parts.theta_a + parts.theta_h) == sorted(names)
    adapted = sum(model.get_parameter(n).numel() for n in parts.theta_a)
    assert adapted == (formula if formula is not None else sum(p.numel() for p in model.backbone.parameters()))


@rows
def test_attaching_leaves_the_backbones_names_and_values(method, formula):
    plain, attached = backbone(), with_head(method).backbone
    values = dict(attached.named_parameters())
    for name, parameter in plain.named_parameters():
        assert torch.equal(values[name], parameter), name


@rows
def test_detaching_restores_bit_by_bit(method, formula):
    plain = backbone()
    model = with_head(method)
    model.detach(method)
    assert [n for n, _ in model.backbone.named_parameters()] == [n for n, _ in plain.named_parameters()]
    assert torch.equal(model.backbone(**BATCH).last_hidden_state, plain(**BATCH).last_hidden_state)
    with pytest.raises(ModelError, match="is not attached to this model"):
        model.partition()
    model.attach(method)
    again = with_head(method)
    for (name, a), b in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(a, b[1]), name


@rows
def test_nearly_the_identity_at_the_start(method, formula):
    model = with_head(method)
    hidden = backbone()(**BATCH).last_hidden_state
    difference = (model(BATCH, "en") - model.head("en")(hidden)).abs().max()
    assert difference < 1e-3


@rows
def test_every_name_of_theta_a_changes_the_output(method, formula):
    model = with_head(method)
    before = model(BATCH, "en")
    # A key's bias shifts all scores of a query alike, and softmax does not see it; beyond the batch's length
    # and tokens the embeddings' rows are not used, so move all of each parameter.
    for name in [n for n in model.partition().theta_a if not n.endswith("key.bias")]:
        parameter = model.get_parameter(name)
        original = parameter.detach().clone()
        with torch.no_grad():
            parameter.add_(torch.randn_like(parameter))
        assert not torch.equal(model(BATCH, "en"), before), name
        with torch.no_grad():
            parameter.copy_(original)
    assert torch.equal(model(BATCH, "en"), before)


@rows
def test_output_only_says_whether_the_trunk_depends_on_theta_a(method, formula):
    model = with_head(method)
    before = model.trunk(BATCH)
    with torch.no_grad():
        for name in model.partition().theta_a:
            model.get_parameter(name).add_(1.0)
    assert torch.equal(model.trunk(BATCH), before) == method.output_only


@rows
def test_padding_does_not_change_real_positions(method, formula):
    model = with_head(method)
    short = model({k: v[1:, :2] for k, v in BATCH.items()}, "en")
    torch.testing.assert_close(model(BATCH, "en")[1:, :2], short, rtol=0, atol=1e-6)


@rows
def test_copies_and_pickles_are_equal_and_apart(method, formula):
    model = with_head(method)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(BATCH, "en"), model(BATCH, "en"))
        with torch.no_grad():
            other.head("en").classifier.bias.add_(1.0)
        assert not torch.equal(other(BATCH, "en"), model(BATCH, "en"))


@rows
def test_a_seed_fixes_theta_a(method, formula):
    again = dict(with_head(method, 1).named_parameters())
    for name, a in with_head(method, 1).named_parameters():
        assert torch.equal(a, again[name]), name
    if formula:  # it has parameters of its own
        assert any(
            not torch.equal(a, b)
            for a, b in zip(with_head(method, 1).parameters(), with_head(method, 2).parameters(), strict=True)
        )


@rows
def test_configurations_round_trip_and_refuse_unknown_keys(method, formula):
    assert PEMethod.parse(method.to_config()) == method
    with pytest.raises(ConfigError, match="unknown key 'botleneck'"):
        PEMethod.parse({"name": method.name, "botleneck": 4})
    assert method.paper


def test_an_unknown_method_names_the_nearest():
    with pytest.raises(
        ConfigError, match=r"unknown PE method 'adaptor'; did you mean 'adapter'\? Known: adapter, full"
    ):
        PEMethod.parse("adaptor")


def test_an_adapter_is_attached_once_and_needs_a_width():
    model = with_head(Adapter(bottleneck=K))
    model.attach(Adapter(bottleneck=K))  # the same again: nothing
    with pytest.raises(ModelError, match="has an output adapter already"):
        model.attach(Adapter(bottleneck=2 * K))
    with pytest.raises(ModelError, match=r"Linear has no config\.hidden_size"):
        Adapter().attach(nn.Linear(2, 2))


def test_an_adapter_that_is_not_attached_is_no_theta_a():
    with pytest.raises(ModelError, match="the adapter is not attached to this backbone"):
        Adapter().theta_a(backbone())
    model = with_head(Adapter(bottleneck=K))
    with pytest.raises(ModelError, match=r"Adapter\(bottleneck=6.* is not attached to this model; call attach"):
        model.partition(Adapter(bottleneck=6))


def test_the_adapter_is_a_residual_bottleneck():
    model = with_head(Adapter(bottleneck=K, activation="relu", init_std=0.5))
    hidden = torch.randn(2, 3, D)
    inner = model.backbone.pemeta_adapter
    by_hand = hidden + torch.relu(hidden @ inner.down.weight.T + inner.down.bias) @ inner.up.weight.T + inner.up.bias
    torch.testing.assert_close(Adapter().transform(model.backbone, hidden), by_hand)
