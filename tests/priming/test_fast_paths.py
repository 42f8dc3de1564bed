"""Every fast path of priming against the plain one: an explicit unroll over whole passes of an eager backbone."""

import copy
import gc
import weakref
from dataclasses import replace
from operator import itemgetter

import pytest
import torch
from architectures import ARCHITECTURES, backbone, batch, each_architecture, untouched
from tiny_models import ADAPTER, TASKS, tiny, with_heads
from tiny_tasks import EACH_KIND, tiny_gpt2
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import OPTConfig, OPTModel
from unroll import FLOAT32, HEAD, episodes, meta, model_of, unrolled

from pemeta import (
    IA3,
    Adapter,
    BitFit,
    Compose,
    EpisodeSampler,
    FineTunePriming,
    Full,
    LoRA,
    MetaPriming,
    PEModel,
    Prefix,
    PrimingLearner,
)
from pemeta.backbone import gradient_checkpointing as checkpointing
from pemeta.backbone.architectures import first_layer, layer_names
from pemeta.backbone.layer_reuse import INPUT_OF_LAYER, has_dropout
from pemeta.errors import ConfigError, DataError, ModelError, NotFiniteError
from pemeta.priming.inner_rules.sgd import SGD
from pemeta.priming.sparse_embeddings import sparse_word_gradients

OUTPUT = Adapter(bottleneck=4, init_std=0.3)
TOP = {
    "houlsby": Adapter(bottleneck=4, placement="houlsby", top_layers=1),
    "parallel": Adapter(bottleneck=4, placement="parallel", top_layers=1),
    "lora": LoRA(rank=2, top_layers=1),
    "prefix": Prefix(length=3, top_layers=1),
    "prefix-network": Prefix(length=3, reparametrize=4, top_layers=1),
    "ia3": IA3(top_layers=1),
}
INSIDE = {
    "lora": LoRA(rank=2),
    "prefix": Prefix(length=3),
    "bitfit": BitFit(),
    "houlsby": Adapter(bottleneck=4, placement="houlsby"),
}
NEVER_LEFT_OUT = {"t5", "mt5"}  # the first layer's position bias is all layers'


def assert_equal_to_the_unroll(model, algorithm, drawn, oracle=None, atol=1e-10):
    if not algorithm.first_order and model.backbone.config.model_type in FLOAT32:
        atol = max(atol, 1e-7)
    expected, heads = unrolled(oracle or model, algorithm, drawn)
    losses = algorithm.accumulate(model, drawn)
    for name, gradient in expected.items():
        found = model.get_parameter(name).grad
        if gradient is None:
            assert found is None or not found.any(), name
        else:
            torch.testing.assert_close(found, gradient, rtol=0, atol=atol, msg=name)
    for name, value in heads.items():
        torch.testing.assert_close(model.get_parameter(name).detach(), value, rtol=0, atol=atol, msg=name)
    assert sum(g.abs().sum() for g in expected.values() if g is not None) > 1e-6
    assert all(p.requires_grad for p in model.parameters())
    return losses


def left_out(model):
    """Counts the passes of the lowest layer."""
    passes = []
    lowest = model.backbone.get_submodule(layer_names(model.backbone)[0])
    lowest.register_forward_pre_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    return passes


each_order = pytest.mark.parametrize("order", ["first", "second"])
on_each_architecture = pytest.mark.parametrize("architecture", each_architecture(ARCHITECTURES))


def supported(methods):
    pairs = [(name, a) for name in methods for a in ARCHITECTURES]
    fine = [(n, a) for n, a in pairs if methods[n].unsupported(untouched(a)) is None]
    return pytest.mark.parametrize(("name", "architecture"), each_architecture(fine, itemgetter(1)))


@each_order
@supported(TOP)
def test_layers_below_theta_a_run_once_for_each_batch(name, architecture, order):
    model = model_of(TOP[name], architecture)
    reaches = architecture in NEVER_LEFT_OUT
    assert model.first_layer() == (0 if reaches else 1)
    passes = left_out(model)
    # The unroll uses a deep copy, whose hook counts into the same list.
    expected = 2 * 3  # tasks × (inner steps + query)
    assert_equal_to_the_unroll(model, meta(order), episodes(architecture))
    assert len(passes) == expected + (expected if reaches else 2 * 2)


@each_order
@on_each_architecture
def test_an_output_method_runs_the_backbone_once_for_each_batch(architecture, order):
    model = model_of(OUTPUT, architecture)
    passes = left_out(model)
    assert_equal_to_the_unroll(model, meta(order), episodes(architecture))
    assert len(passes) == 6 + 4
    # The first pass has a graph in any case: it is looked at whether it depends on θ_a.
    assert passes[6:] == [True, True, order == "second", True]


@each_order
@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("name", ["output", "houlsby", "prefix"])
@on_each_architecture
def test_tasks_and_steps_as_one_batch(architecture, name, fresh, order):
    """With tasks of different lengths, so that they are padded to go together."""
    method = OUTPUT if name == "output" else TOP[name]
    if method.unsupported(untouched(architecture)) is not None:
        pytest.skip("the method refuses the architecture")
    model = model_of(method, architecture)
    drawn = episodes(architecture, supports=2 if fresh else 1, shorter=0 if architecture == "vit" else 2)
    passes = left_out(model)
    atol = 1e-7 if architecture in FLOAT32 else 1e-10  # of attention over another length
    assert_equal_to_the_unroll(model, meta(order, fresh_support=fresh, batch_tasks=True), drawn, atol=atol)
    if architecture in NEVER_LEFT_OUT and name != "output":
        assert len(passes) == 6 + 3 + 3  # one of all tasks for each step and the queries, which is compared once
        return
    compared = 1 + 2 * (2 if fresh else 1)  # once, the supports as one with each by itself
    assert len(passes) == 6 + 2 + compared  # all supports, all queries


@each_order
@pytest.mark.parametrize("name", ["output", "lora"])
def test_a_support_set_for_each_step_runs_as_one_batch(name, order):
    model = model_of(OUTPUT if name == "output" else TOP["lora"], "bert")
    passes = left_out(model)
    assert_equal_to_the_unroll(model, meta(order, fresh_support=True), episodes("bert", supports=2))
    assert len(passes) == 6 + 2 * 2 + 3  # compared once, each by itself and as one


def test_a_support_set_for_each_step_is_drawn():
    algorithm = MetaPriming(fresh_support=True, inner_steps=2, support_size=2, query_size=3)
    drawn = algorithm.sampler(TASKS, 0)[0]
    first, second = drawn[0].supports(2)
    assert len(first["labels"]) == len(second["labels"]) == 2
    assert len(drawn[0].query["labels"]) == 3
    assert len({*drawn[0].support_indices, *drawn[0].query_indices}) == 7


@supported(INSIDE)
def test_second_order_through_sdpa_uses_pytorchs_own_formula(name, architecture):
    model = model_of(INSIDE[name], architecture, "sdpa")
    with sdpa_kernel(SDPBackend.MATH):
        expected, _ = unrolled(model, meta("second"), episodes(architecture))
    meta("second").accumulate(model, episodes(architecture))
    atol = 1e-7 if architecture in FLOAT32 else 1e-10
    for key, gradient in expected.items():
        if gradient is not None:
            torch.testing.assert_close(model.get_parameter(key).grad, gradient, rtol=0, atol=atol, msg=key)


def test_second_order_through_sdpa_equals_eager():
    fused, eager = (model_of(LoRA(rank=2), "bert", kind) for kind in ("sdpa", "eager"))
    assert_equal_to_the_unroll(fused, meta("second"), episodes("bert"), oracle=eager, atol=1e-7)


def test_attention_without_a_second_derivative_is_refused():
    model = model_of(LoRA(rank=2), "bert", "sdpa")
    assert PrimingLearner(model, first_order=False).math_attention
    assert not PrimingLearner(model).math_attention
    assert not PrimingLearner(model_of(OUTPUT, "bert", "sdpa"), first_order=False).math_attention
    assert not PrimingLearner(model_of(LoRA(rank=2), "bert"), first_order=False).math_attention
    model.backbone.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ModelError, match="which 'flash_attention_2' attention lacks; load the backbone with attention"):
        PrimingLearner(model, first_order=False)


def recomputed(monkeypatch):
    """Counts the layers that are run again."""
    again, enter = [], checkpointing._Snapshot.__enter__
    monkeypatch.setattr(checkpointing._Snapshot, "__enter__", lambda self: (again.append(self), enter(self))[1])
    return again


@each_order
@supported({"output": OUTPUT, **INSIDE, "top": TOP["houlsby"], "full": Full()})
def test_gradient_checkpointing_under_clones(name, architecture, order, monkeypatch):
    """PyTorch's own would run a clone's layers again with the values of its last step."""
    method = {"output": OUTPUT, **INSIDE, "top": TOP["houlsby"], "full": Full()}[name]
    model = model_of(method, architecture)
    plain = copy.deepcopy(model)
    model.checkpoint_layers()
    again = recomputed(monkeypatch)
    assert_equal_to_the_unroll(model, meta(order), episodes(architecture), oracle=plain)
    # Two layers, in at least the backward passes of two queries.
    assert len(again) >= (4 if name == "top" or order == "first" else 8)
    assert not model.eval().backbone.training


@pytest.mark.parametrize("name", INSIDE)
def test_checkpointing_turned_on_through_transformers_is_made_right(name, monkeypatch):
    """In training mode: transformers' own switch acts only there."""
    model = model_of(INSIDE[name], "bert")
    plain = copy.deepcopy(model)
    model.backbone.activation_checkpointing_enable()
    algorithm = meta("second", outer_dropout=True, inner_dropout=True)  # this backbone drops nothing
    assert not has_dropout(model.backbone)
    again = recomputed(monkeypatch)
    assert_equal_to_the_unroll(model, algorithm, episodes("bert"), oracle=plain)
    assert len(again) >= 8


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("name", ["output", "lora", "top"])
def test_a_layer_runs_again_in_the_mode_of_its_first_pass(name, together):
    """The inner loop without dropout, the query pass with it: the same masks with and without checkpointing."""
    method = {"output": OUTPUT, "lora": LoRA(rank=2), "top": TOP["lora"]}[name]
    gradients = []
    for enabled in (False, True):
        model = with_heads(tiny(method, dropout=0.5))
        if enabled:
            model.checkpoint_layers()
        torch.manual_seed(0)
        meta("second", outer_dropout=True, batch_tasks=together).accumulate(model, EpisodeSampler(TASKS, 3, 4)[0])
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient, rtol=0, atol=1e-10, msg=key)


def test_a_checkpointed_layer_that_drops_by_its_own_flag_does_so_in_training_only():
    torch.manual_seed(0)
    fields = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 12, "vocab_size": 30}
    config = OPTConfig(**fields, max_position_embeddings=20, word_embed_proj_dim=8, dropout=0.5)
    model = PEModel(OPTModel(config).double(), OUTPUT)
    model.add_head("en", HEAD)
    model.checkpoint_layers()
    data = batch("bert")
    model.eval()
    expected = model(data, "en")
    assert all(torch.equal(model(data, "en"), expected) for _ in range(3))
    with torch.no_grad():
        assert torch.equal(model(data, "en"), expected)
    assert not torch.equal(model.train()(data, "en"), model(data, "en"))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch._dynamo looks at it
@pytest.mark.parametrize("order", ["first", "second"])
def test_a_compiled_backbone_has_the_gradients_of_an_eager_one(order):
    """Its graph does not notice skipped layers and new hooks, so that all layers are run in each pass."""
    torch._dynamo.reset()
    gradients = []
    for compiled in (False, True):
        model = model_of(TOP["lora"], "bert")
        if compiled:
            model.backbone.compile(backend="eager")
        assert (model.first_layer() == 0) == compiled
        meta(order).accumulate(model, episodes("bert"))
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.allclose(gradients[1][name], value, atol=1e-10) for name, value in gradients[0].items())


def test_what_cannot_be_checkpointed_is_refused():
    with pytest.raises(ModelError, match="Linear has no layers that can be checkpointed"):
        checkpointing.checkpoint_layers(torch.nn.Linear(2, 2))
    with pytest.raises(ModelError, match="in a way that pemeta does not support; turn gradient checkpointing off"):
        checkpointing.checkpointed(lambda x: x, torch.ones(1))


def test_a_failed_inner_loop_lets_go_of_its_graph(monkeypatch):
    model = model_of(LoRA(rank=2), "bert")
    model.checkpoint_layers()
    taken, step = [], SGD.step

    def watched(*arguments):
        values = step(*arguments)
        taken.extend(map(weakref.ref, values.values()))
        return values

    monkeypatch.setattr(SGD, "step", watched)
    clone = PrimingLearner(model, 1e300, first_order=False).clone("en")
    with pytest.raises(NotFiniteError, match="the inner loss of step 2"):
        clone.adapt_to([batch("bert", 1)] * 3, "en")
    values = clone.adapted_parameters()
    assert taken
    assert all(value.grad_fn is None for value in values.values())
    gc.collect()
    assert all(value() is None for value in taken)


def test_pytorchs_own_checkpointing_is_wrong_here():
    """That the tests above could fail: the trap is real."""
    model = model_of(BitFit(), "bert")
    plain = copy.deepcopy(model)
    model.checkpoint_layers()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpointing._Snapshot, "__enter__", lambda self: None)
        patch.setattr(checkpointing._Snapshot, "__exit__", lambda self, *error: None)
        with pytest.raises(AssertionError):
            assert_equal_to_the_unroll(model, meta("second"), episodes("bert"), oracle=plain)


@on_each_architecture
def test_gradient_checkpointing_under_functional_parameters(architecture):
    model = model_of(OUTPUT, architecture)
    values = {n: (p.detach() + 0.1).requires_grad_() for n, p in model.named_parameters()}
    gradients = []
    for enabled in (False, True):
        copied = copy.deepcopy(model)
        copied.checkpoint_layers(enabled)
        loss = functional_call(copied, values, (batch(architecture, 1), "en")).square().sum()
        gradients.append(torch.autograd.grad(loss, list(values.values()), allow_unused=True))
    for name, plain, found in zip(values, *gradients, strict=True):
        assert (plain is None) == (found is None), name
        if plain is not None:
            torch.testing.assert_close(found, plain, rtol=0, atol=1e-10, msg=name)


def test_no_graph_for_theta_p_in_the_inner_loop_of_first_order():
    """Weights of θ_p take no gradient while the inner loop runs, also not after an error."""
    model = model_of(LoRA(rank=2), "bert")
    seen = []
    model.backbone.register_forward_pre_hook(
        lambda *_: seen.append({n for n, p in model.named_parameters() if p.requires_grad})
    )
    clone = PrimingLearner(model, 0.1).clone("en")
    clone.adapt_to([batch("bert", 1)] * 2, "en")
    parts = model.partition()
    assert all(names == {*parts.theta_a, *parts.theta_h} for names in seen)
    assert len(seen) == 2
    broken = {**batch("bert", 1), "input_ids": torch.full((2, 6), 99)}
    with pytest.raises(ModelError, match="token id 99"):
        clone.adapt_to([broken], "en")
    assert all(p.requires_grad for p in model.parameters())


def test_what_is_reused_is_found_by_the_names_of_theta_a():
    for method, first in ((LoRA(rank=2, top_layers=1), 1), (LoRA(rank=2), 0), (BitFit(), 0), (OUTPUT, 0), (Full(), 0)):
        model = model_of(method, "bert")
        assert model.first_layer() == first
        [found] = model.reusing([batch("bert")])
        assert (f"{INPUT_OF_LAYER}1" in found) == (first == 1)
        assert ("trunk" in found) == (method == OUTPUT)
        assert model.reusing([found])[0] is found
    both = Compose(methods=(OUTPUT, LoRA(rank=2, top_layers=1)))
    assert model_of(both, "bert").first_layer() == 1
    assert_equal_to_the_unroll(model_of(both, "bert"), meta("second"), episodes("bert"))
    tied = model_of(LoRA(rank=2, top_layers=1), "bert")
    low, high = (tied.backbone.encoder.layer[i].attention.self.query for i in (0, 1))
    low.weight = high.weight
    assert first_layer(tied.backbone, ["encoder.layer.1.attention.self.query.weight"]) == 0
    assert first_layer(tied.backbone, ["encoder.layer.1.attention.self.query.bias"]) == 1
    assert first_layer(tied.backbone, ["embeddings.LayerNorm.bias"]) == 0


@pytest.mark.parametrize("claim", ["layers", "output"])
def test_a_method_that_reaches_below_what_it_says_is_refused(claim):
    model = PEModel(backbone("bert"), LoRA(rank=2, top_layers=1))
    model.add_head("en", HEAD)
    query = model.backbone.encoder.layer[1].attention.self.query
    parameter = next(query.pemeta_lora.parameters())
    if claim == "layers":
        model.backbone.embeddings.register_forward_hook(lambda module, arguments, output: output + parameter.sum())
        with pytest.raises(ModelError, match=r"declares that θ_a does not affect layers below 1, but .*lora"):
            model.reusing([batch("bert")])
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LoRA, "output_only", True)
        with pytest.raises(ModelError, match="lora declares that θ_a does not affect the backbone"):
            meta("first").accumulate(model, episodes("bert")[:1])


def test_support_sets_that_cannot_be_cut():
    episode = EpisodeSampler(TASKS, 3, 3)[0][0]
    with pytest.raises(ConfigError, match="3 support examples cannot be split into 2 batches of equal size; draw the"):
        meta("first", fresh_support=True).accumulate(with_heads(tiny()), [episode])
    algorithm = MetaPriming(fresh_support=True, support_size=4, query_size=4)
    with pytest.raises(DataError, match=r"an episode needs 24 \(4 support in each of 5 inner steps \+ 4 query\)"):
        algorithm.sampler(TASKS, 0)


def test_batches_that_do_not_go_together_run_each_for_itself():
    model = model_of(OUTPUT, "bert")
    first, second = batch("bert", 1), batch("bert", 2)
    first["position_ids"], second["position_ids"] = torch.arange(6)[None], torch.arange(6)[None]
    expected = [model.hidden_states(one) for one in (first, second)]
    found = model.reusing([first, second])
    assert all(torch.equal(one["trunk"], other) for one, other in zip(found, expected, strict=True))


def test_dropout_is_never_reused():
    for architecture, fields in (
        ("bert", {"hidden_dropout_prob": 0.5}),
        ("llama", {"attention_dropout": 0.5}),
        ("gpt2", {"attn_pdrop": 0.5}),
        ("modernbert", {"mlp_dropout": 0.5}),
        ("t5", {"dropout_rate": 0.5}),
    ):
        assert not has_dropout(backbone(architecture)), architecture
        row = ARCHITECTURES[architecture]
        assert has_dropout(replace(row, fields=row.fields | fields).backbone()), architecture
    model = with_heads(tiny(ADAPTER, dropout=0.5))
    data = TASKS[0].train.batch([0, 1])
    assert "trunk" not in model.train().reusing([data])[0]
    assert "trunk" in model.reusing([data], once=True)[0]
    assert "trunk" in model.eval().reusing([data])[0]


@pytest.mark.long
def test_dropout_in_the_query_pass_is_drawn_with_and_without_batching():
    """Equal in distribution: with dropout of 0.5 two passes differ, and their mean loss is that of the plain path."""
    means = []
    for together in (False, True):
        losses = []
        for seed in range(60):
            model = with_heads(tiny(OUTPUT, dropout=0.5))
            torch.manual_seed(seed)
            algorithm = meta("first", outer_dropout=True, batch_tasks=together)
            episodes = [replace(episode, seed=None) for episode in EpisodeSampler(TASKS, 3, 4)[0]]
            losses.append(algorithm.accumulate(model, episodes).outer)
        assert len(set(losses)) == 60
        means.append(torch.tensor(losses))
    error = sum(m.var() / 60 for m in means) ** 0.5
    assert abs(means[0].mean() - means[1].mean()) < 4 * error


@pytest.mark.parametrize("kind", ["labels", "language"])
@pytest.mark.parametrize("algorithm", [meta("first"), meta("second"), FineTunePriming(outer_dropout=False)])
def test_word_gradients_are_the_dense_ones(algorithm, kind, monkeypatch):
    """Also where a language model's output is tied to the words, and its gradient dense."""
    gradients = []
    for off in (False, True):
        model = with_heads(tiny()) if kind == "labels" else tiny_gpt2()
        tasks = TASKS if kind == "labels" else [task for task, _ in EACH_KIND if task.train.kind == "causal_lm"]
        for task in tasks:
            model.add_head(task.name, task.make_head)
        table, seen = model.backbone.get_input_embeddings(), []
        table.register_forward_hook(lambda part, *_, seen=seen: seen.append(part.sparse))
        if off:
            monkeypatch.setattr("pemeta.priming.sparse_embeddings._table", lambda *_: None)
        algorithm.accumulate(model, EpisodeSampler(tasks, 3, 4)[0])
        assert set(seen) == {not off}
        assert not table.sparse
        assert not table.weight.grad.is_sparse
        gradients.append(table.weight.grad)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-10)
    assert gradients[0].any()


def test_word_embeddings_that_are_not_used_get_no_gradient():
    model = with_heads(tiny())
    table = model.backbone.get_input_embeddings()
    with sparse_word_gradients(model, model.partition().theta_p):
        assert table.sparse
    assert table.weight.grad is None
    table.weight.requires_grad_(False)
    with sparse_word_gradients(model, model.partition().theta_p):
        assert not table.sparse
    assert table.weight.grad is None
    table.weight.requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            type(model.backbone), "get_input_embeddings", lambda self: (_ for _ in ()).throw(NotImplementedError)
        )
        MetaPriming(inner_steps=1).accumulate(model, EpisodeSampler(TASKS, 3, 4)[0])


def test_memory_of_a_clone_is_that_of_what_it_owns():
    model = model_of(LoRA(rank=2), "bert")
    before = {p.data_ptr() for p in model.parameters()}
    clone = PrimingLearner(model, 0.1).clone("en")
    clone.adapt_to([batch("bert", 1)], "en")
    own = [p for p in clone.module.parameters() if p.data_ptr() not in before]
    assert sum(p.numel() for p in own) == model.num_stored("en")
