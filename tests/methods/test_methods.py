"""The contract of all PE methods on all architectures; a new method is one more row in ``tiny_models.METHODS``."""

import copy
import io
import pickle
from operator import itemgetter

import pytest
import torch
from architectures import ARCHITECTURES, SHAPES, backbone, batch, each_architecture, untouched
from tiny_models import METHODS, shaken
from torch.func import functional_call

from pemeta import PEMethod, PEModel, PrimingLearner
from pemeta.errors import ConfigError, ModelError
from pemeta.heads import TokenClassification
from pemeta.methods.base import is_added
from pemeta.model.ownership import claim

HEAD = TokenClassification(labels=("O", "B-PER", "I-PER"))
INNER_LR, STEPS = 0.1, 2
ALL = [(row, architecture) for row in METHODS for architecture in ARCHITECTURES]
REFUSED = {(r, a): why for r, a in ALL if (why := METHODS[r][0].unsupported(untouched(a))) is not None}
FINE = [pair for pair in ALL if pair not in REFUSED]
each_pair = pytest.mark.parametrize(("row", "architecture"), each_architecture(FINE, itemgetter(1)))
# Images of one size have no padding.
each_padded_pair = pytest.mark.parametrize(
    ("row", "architecture"), each_architecture([pair for pair in FINE if pair[1] != "vit"], itemgetter(1))
)
each_row = pytest.mark.parametrize("row", METHODS)


def plain_model(row: str, architecture: str, attention: str = "eager", seed: int = 0) -> PEModel:
    model = PEModel(backbone(architecture, attention), METHODS[row][0], seed=seed)
    model.add_head("en", HEAD)
    model.add_head("es", HEAD)
    return model


def moved_model(row: str, architecture: str, attention: str = "eager") -> PEModel:
    """With noise on θ_a, so that no gradient is zero because a method starts as the identity."""
    return shaken(plain_model(row, architecture, attention))


def renames(model: PEModel) -> bool:
    """Whether the method puts layers around the backbone's own (the bridge to the peft package does)."""
    return any("base_layer" in name for name, _ in model.backbone.named_parameters())


def inert(name: str, architecture: str) -> bool:
    """Whether softmax cancels a bias: a key's shifts all scores of a query equally, unless positions rotate the key
    (Qwen) or have their own scores with it (DeBERTa, where the bias of the positions' key cancels)."""
    keys = {"deberta-v2": ("pos_key_proj.bias",), "qwen2": ()}
    return name.endswith(keys.get(architecture, ("key.bias", "k_lin.bias", "k_proj.bias")) or "none")


def test_every_registered_method_has_a_row():
    assert {method.name for method, _ in METHODS.values()} == set(PEMethod.members())


def test_exactly_the_expected_pairs_are_refused():
    """A trait must not grow unnoticed: without biases no BitFit, and DeBERTa's attention takes no prefix."""
    without_bias = {
        ("bitfit", architecture) for architecture in ("modernbert", "t5", "mt5", "llama", "mistral", "qwen3")
    }
    prefixes = {row for row in METHODS if "prefix" in row or row == "compose"}
    assert set(REFUSED) == without_bias | {(row, "deberta-v2") for row in prefixes}


@pytest.mark.parametrize(("row", "architecture"), REFUSED)
def test_a_pair_that_cannot_work_says_so_and_changes_nothing(row, architecture):
    plain, refused = backbone(architecture), backbone(architecture)
    with pytest.raises(ModelError, match=r"cannot be attached to .*use ") as error:
        METHODS[row][0].attach(refused)
    assert REFUSED[row, architecture] in str(error.value)
    assert_same_backbone(refused, plain, architecture)


def assert_same_backbone(found, plain, architecture):
    assert [n for n, _ in found.named_modules()] == [n for n, _ in plain.named_modules()]
    for (name, a), (other, b) in zip(found.named_parameters(), plain.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(a, b), name
        assert a.requires_grad == b.requires_grad, name
    for module in found.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert found.config.to_dict() == plain.config.to_dict()
    assert found.config._attn_implementation == plain.config._attn_implementation
    inputs = {key: value for key, value in batch(architecture).items() if key != "labels"}
    assert torch.equal(found(**inputs).last_hidden_state, plain(**inputs).last_hidden_state)


@each_pair
def test_names_exist_are_disjoint_and_as_many_as_the_formula_says(row, architecture):
    model = plain_model(row, architecture)
    parts = model.partition()
    assert sorted(parts.theta_p + parts.theta_a + parts.theta_h) == sorted(n for n, _ in model.named_parameters())
    formula = METHODS[row][1]
    everything = sum(parameter.numel() for parameter in model.backbone.parameters())
    expected = everything if formula is None else formula(SHAPES[architecture])
    assert sum(model.get_parameter(n).numel() for n in parts.theta_a) == expected


@each_pair
def test_attaching_leaves_the_backbones_names_and_values(row, architecture):
    model, plain = plain_model(row, architecture), backbone(architecture)
    if renames(model):
        values = {n.replace(".base_layer", ""): p for n, p in model.backbone.named_parameters()}
    else:
        values = dict(model.backbone.named_parameters())
    for name, parameter in plain.named_parameters():
        assert torch.equal(values.pop(name), parameter), name
    assert all(map(is_added, values))
    assert all(parameter.requires_grad for parameter in model.parameters())


@each_pair
def test_the_identity_at_the_start_where_declared(row, architecture):
    method = METHODS[row][0]
    model, plain = plain_model(row, architecture), backbone(architecture)
    inputs = {key: value for key, value in batch(architecture).items() if key != "labels"}
    hidden = plain(**inputs).last_hidden_state
    same = torch.equal(method.transform(model.backbone, model.hidden_states(inputs)), hidden)
    assert same or not method.identity_at_start


@each_pair
def test_every_name_of_theta_a_gets_a_gradient_and_changes_the_output(row, architecture):
    model = moved_model(row, architecture)
    data = batch(architecture)
    names = model.partition().theta_a
    before = model(data, "en")
    model.loss(data, "en").backward()
    for name in names:
        gradient = model.get_parameter(name).grad
        assert gradient is not None, name
        if inert(name, architecture):
            assert gradient.abs().max() < 1e-9, name  # some attentions compute in float32
            continue
        assert gradient.abs().max() > 1e-9, name
        parameter = model.get_parameter(name)
        original = parameter.detach().clone()
        with torch.no_grad():
            parameter.add_(torch.randn_like(parameter))
            assert not torch.equal(model(data, "en"), before), name
            parameter.copy_(original)
    assert torch.equal(model(data, "en"), before)


@each_pair
def test_output_only_tells_whether_hidden_states_depend_on_theta_a(row, architecture):
    model = moved_model(row, architecture)
    data = batch(architecture)
    before = model.hidden_states(data)
    with torch.no_grad():
        for name in model.partition().theta_a:
            model.get_parameter(name).add_(torch.randn_like(model.get_parameter(name)))
    assert torch.equal(model.hidden_states(data), before) == model.reuses_hidden_states() == METHODS[row][0].output_only


@each_pair
def test_detaching_restores_bit_by_bit_and_a_seed_attaches_the_same_again(row, architecture):
    method = METHODS[row][0]
    model = plain_model(row, architecture, seed=1)
    first = model.state()
    model.detach(method)
    assert_same_backbone(model.backbone, backbone(architecture), architecture)
    with pytest.raises(ModelError, match="is not attached to this model"):
        model.partition()
    model.attach(method, seed=1)
    again = model.state()
    assert first.keys() == again.keys()
    for name, value in first.items():
        assert torch.equal(value, again[name]), name


@each_pair
def test_state_copies_and_pickles_are_equal_and_apart(row, architecture):
    model = moved_model(row, architecture)
    data = batch(architecture)
    expected = model(data, "en")
    loaded = plain_model(row, architecture)
    buffer = io.BytesIO()
    torch.save(model.state(), buffer)
    buffer.seek(0)
    loaded.load_state(torch.load(buffer, weights_only=True))
    for other in (loaded, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(data, "en"), expected)
        with torch.no_grad():
            for name in other.stored_names("en"):
                other.get_parameter(name).add_(1.0)
        assert not torch.equal(other(data, "en"), expected)
        assert torch.equal(model(data, "en"), expected)


@each_pair
def test_training_and_evaluation_agree_without_dropout(row, architecture):
    model = moved_model(row, architecture)
    data = batch(architecture)
    evaluated = model.eval()(data, "en")
    assert torch.equal(model.train()(data, "en"), evaluated)
    assert all(module.training for module in model.modules())
    assert not any(module.training for module in model.eval().modules())


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@each_padded_pair
def test_padding_does_not_change_real_positions(row, architecture, attention):
    model = moved_model(row, architecture, attention)
    long = batch(architecture)
    short = {key: value[1:, :4] for key, value in long.items()}
    unmasked = {key: value for key, value in short.items() if key != "attention_mask"}
    expected = model(short, "en")
    torch.testing.assert_close(model(long, "en")[1:, :4], expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(model(unmasked, "en"), expected, rtol=0, atol=1e-6)


@each_pair
def test_attentions_agree(row, architecture):
    data = batch(architecture)
    eager, sdpa = (moved_model(row, architecture, kind)(data, "en") for kind in ("eager", "sdpa"))
    labelled = data["labels"] != -100
    torch.testing.assert_close(eager[labelled], sdpa[labelled], rtol=0, atol=1e-6)


@each_pair
def test_gradient_checkpointing_changes_no_gradient(row, architecture):
    gradients = []
    for checkpointing in (False, True):
        model = moved_model(row, architecture).train()
        if checkpointing:
            model.backbone.activation_checkpointing_enable()
        model.loss(batch(architecture), "en").backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    plain, checkpointed = gradients
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, rtol=0, atol=1e-10, msg=name)


@each_pair
def test_a_clone_shares_theta_p_and_owns_the_rest(row, architecture):
    model = moved_model(row, architecture)
    before, parts = copy.deepcopy(model.state()), model.partition()
    clone, other = (PrimingLearner(model, INNER_LR).clone("en") for _ in range(2))
    of_clone = dict(clone.module.named_parameters())
    for name, parameter in model.named_parameters():
        shared = name in parts.theta_p or name in model.head_names("es")
        assert (of_clone[name] is parameter) == shared, name
    for _ in range(STEPS):
        clone.adapt(clone.loss(batch(architecture), "en"))
    for state in (model.state(), other.module.state()):
        assert all(torch.equal(value, before[name]) for name, value in state.items())
    moved = {n for n, p in clone.module.named_parameters() if not torch.equal(p, before[n])}
    still = {n for n in parts.theta_a if inert(n, architecture)}  # rounding may move these
    assert moved | still == {*parts.theta_a, *model.head_names("en")} | still


@pytest.mark.parametrize("order", ["first", "second"])
@each_pair
def test_meta_gradients_equal_the_explicit_unroll(row, architecture, order):
    first_order = order == "first"
    model = moved_model(row, architecture, "sdpa" if first_order else "eager")
    support, query = batch(architecture, 1), batch(architecture, 2)
    parts, heads = model.partition(), model.head_names("en")
    outer = [n for n, _ in model.named_parameters() if n not in parts.theta_h]
    start = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    values = dict(start)
    oracle = copy.deepcopy(model)  # functional_call leaves other values in a module that has two names

    def loss(data):
        logits = functional_call(oracle, values, (data, "en"))
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), data["labels"].flatten(), ignore_index=-100)

    adapted = [*parts.theta_a, *heads]
    for _ in range(STEPS):
        gradients = torch.autograd.grad(loss(support), [values[n] for n in adapted], create_graph=not first_order)
        values |= {n: values[n] - INNER_LR * g for n, g in zip(adapted, gradients, strict=True)}
    expected = torch.autograd.grad(loss(query), [start[n] for n in outer], allow_unused=True)

    clone = PrimingLearner(model, INNER_LR, first_order=first_order).clone("en")
    for _ in range(STEPS):
        clone.adapt(clone.loss(support, "en"))
    clone.loss(query, "en").backward()
    for name, gradient in zip(outer, expected, strict=True):
        found = model.get_parameter(name).grad
        if gradient is None:
            assert found is None, name
        else:
            torch.testing.assert_close(found, gradient, rtol=0, atol=1e-10, msg=name)
    for name, value in clone.adapted_parameters().items():
        torch.testing.assert_close(value, values[name], rtol=0, atol=1e-10, msg=name)
    assert sum(g.abs().sum() for g in expected if g is not None) > 1e-6


@each_pair
def test_merging_keeps_the_outputs_where_a_method_can_merge(row, architecture):
    method = METHODS[row][0]
    model = moved_model(row, architecture)
    data = batch(architecture)
    before = model(data, "en")
    if not method.mergeable:
        with pytest.raises(ModelError, match="cannot be merged into the backbone's own parameters"):
            method.merge(model.backbone)
        assert torch.equal(model(data, "en"), before)
        return
    method.merge(model.backbone)
    names = [n for n, _ in model.backbone.named_modules()]
    assert names == [n for n, _ in backbone(architecture).named_modules()]
    model.attached = ()
    claim(model.backbone, model)
    torch.testing.assert_close(model(data, "en"), before, rtol=0, atol=1e-6)


@each_row
def test_configurations_round_trip_and_refuse_unknown_keys(row):
    method = METHODS[row][0]
    assert PEMethod.parse(method.to_config()) == method
    with pytest.raises(ConfigError, match="unknown key 'botleneck'"):
        PEMethod.parse({"name": method.name, "botleneck": 4})
    assert method.paper
    assert method.__doc__


@each_row
def test_attached_once(row):
    method = METHODS[row][0]
    model = plain_model(row, "bert")
    model.attach(method)  # no effect the second time
    state = model.state()
    if any(map(is_added, method.theta_a(model.backbone))):
        with pytest.raises(ModelError, match=r"already has a .*; detach that"):
            method.attach(model.backbone)
        method.detach(model.backbone)
        with pytest.raises(ModelError, match="is not attached to this backbone; attach it first"):
            method.theta_a(model.backbone)
    else:
        method.attach(model.backbone)
        assert model.state().keys() == state.keys()


def test_an_unknown_method_names_the_nearest():
    with pytest.raises(
        ConfigError, match=r"unknown PE method 'adaptor'; did you mean 'adapter'\? Known: adapter, bitfit, compose"
    ):
        PEMethod.parse("adaptor")
