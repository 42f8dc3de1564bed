"""Every fast path of priming against the plain one: an explicit unroll over whole passes of an eager backbone."""

import copy
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from architectures import ARCHITECTURES, backbone, batch
from tiny_models import ADAPTER, TASKS, shaken, tiny, with_heads
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from pemeta import (
    IA3,
    Adapter,
    BitFit,
    EpisodeSampler,
    FineTunePriming,
    Full,
    LoRA,
    MetaPriming,
    PEModel,
    Prefix,
    PrimingLearner,
    checkpointing,
)
from pemeta.anatomy import first_layer, layer_names
from pemeta.errors import ModelError
from pemeta.heads import TokenClassification
from pemeta.trunk import INPUT_OF_LAYER, has_dropout

HEAD = TokenClassification(labels=("O", "B-PER", "I-PER"))
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
# They take softmax or norms in float32, whose rounding is that of each gradient's size: the gradient that comes back
# in two parts in second order differs from that of their sum by 1e-8.
FLOAT32 = {"modernbert", "gpt2", "llama", "qwen2", "mistral", "qwen3", "vit", "t5", "mt5"}


@dataclass(frozen=True)
class Made:
    """An episode of made-up batches, with as many support batches as there are inner steps, or one."""

    task: SimpleNamespace
    all_supports: tuple
    query: dict

    @property
    def support(self):
        return self.all_supports[0]

    def supports(self, parts):
        assert parts == len(self.all_supports)
        return list(self.all_supports)

    def __len__(self):
        return 4


def episodes(architecture, supports=1, shorter=0):
    """Of two tasks; those of the second are shorter by some pieces."""

    def made(seed, cut):
        found = batch(architecture, seed)
        return {key: value[:, : value.shape[1] - cut] if value.ndim == 2 else value for key, value in found.items()}

    return [
        Made(
            SimpleNamespace(name=name),
            tuple(made(10 * i + k, shorter * i) for k in range(supports)),
            made(10 * i + 9, shorter * i),
        )
        for i, name in enumerate(("en", "es"))
    ]


def model_of(method, architecture, attention="eager", seed=0):
    model = PEModel(backbone(architecture, attention), method, seed=seed)
    model.add_head("en", HEAD)
    model.add_head("es", HEAD)
    return shaken(model)


def unrolled(model, algorithm, drawn):
    """Meta-gradients by name, None where there is none, and the adapted heads: no clone, no reuse, no hook of ours."""
    parts = model.partition()
    start = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    oracle = copy.deepcopy(model).eval()  # functional_call leaves other values in a module that has two names
    total, heads = 0.0, {}
    for episode in drawn:
        task = episode.task.name
        adapted = [*parts.theta_a, *model.head_names(task)]
        values = dict(start)

        def loss(data, values=values, task=task):
            logits = functional_call(oracle, values, (data, task))
            return torch.nn.functional.cross_entropy(logits.flatten(0, 1), data["labels"].flatten(), ignore_index=-100)

        steps = episode.all_supports if algorithm.fresh_support else [episode.support] * algorithm.inner_steps
        for support in steps:
            gradients = torch.autograd.grad(
                loss(support), [values[n] for n in adapted], create_graph=not algorithm.first_order
            )
            values.update({n: values[n] - algorithm.inner_lr * g for n, g in zip(adapted, gradients, strict=True)})
        total = total + loss(episode.query)
        heads.update({n: values[n].detach() for n in model.head_names(task)})
    outer = parts.theta_p + parts.theta_a
    found = torch.autograd.grad(total, [start[n] for n in outer], allow_unused=True)
    return dict(zip(outer, found, strict=True)), heads


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


def meta(order, **settings):
    return MetaPriming(
        **{"inner_steps": 2, "inner_lr": 0.1, "first_order": order == "first", "outer_dropout": False} | settings
    )


def left_out(model):
    """Counts the passes of the lowest layer."""
    passes = []
    lowest = model.backbone.get_submodule(layer_names(model.backbone)[0])
    lowest.register_forward_pre_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    return passes


each_order = pytest.mark.parametrize("order", ["first", "second"])
each_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


def supported(methods):
    pairs = [(name, a) for name in methods for a in ARCHITECTURES]
    fine = [(n, a) for n, a in pairs if methods[n].unsupported(backbone(a)) is None]
    return pytest.mark.parametrize(("name", "architecture"), fine)


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
@each_architecture
def test_an_output_method_runs_the_backbone_once_for_each_batch(architecture, order):
    model = model_of(OUTPUT, architecture)
    passes = left_out(model)
    assert_equal_to_the_unroll(model, meta(order), episodes(architecture))
    assert len(passes) == 6 + 4
    assert passes[6:].count(False) == (2 if order == "first" else 0)


@each_order
@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("name", ["output", "houlsby", "prefix"])
@each_architecture
def test_tasks_and_steps_as_one_batch(architecture, name, fresh, order):
    """With tasks of different lengths, so that they are padded to go together."""
    method = OUTPUT if name == "output" else TOP[name]
    if method.unsupported(backbone(architecture)) is not None:
        pytest.skip("the method refuses the architecture")
    model = model_of(method, architecture)
    drawn = episodes(architecture, supports=2 if fresh else 1, shorter=0 if architecture == "vit" else 2)
    passes = left_out(model)
    assert_equal_to_the_unroll(model, meta(order, fresh_support=fresh, batch_tasks=True), drawn)
    whole = architecture in NEVER_LEFT_OUT and name != "output"
    assert len(passes) == 6 + (6 if whole else 2)  # all supports, all queries


@each_order
@pytest.mark.parametrize("name", ["output", "lora"])
def test_a_support_set_for_each_step_runs_as_one_batch(name, order):
    model = model_of(OUTPUT if name == "output" else TOP["lora"], "bert")
    passes = left_out(model)
    assert_equal_to_the_unroll(model, meta(order, fresh_support=True), episodes("bert", supports=2))
    assert len(passes) == 6 + 2 * 2


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


@each_order
@supported({"output": OUTPUT, **INSIDE, "top": TOP["houlsby"], "full": Full()})
def test_gradient_checkpointing_under_clones(name, architecture, order, monkeypatch):
    """PyTorch's own would run a clone's layers again with the values of its last step."""
    method = {"output": OUTPUT, **INSIDE, "top": TOP["houlsby"], "full": Full()}[name]
    model = model_of(method, architecture)
    plain = copy.deepcopy(model)
    model.checkpoint_layers()
    again = []
    enter = checkpointing._AsBefore.__enter__
    monkeypatch.setattr(checkpointing._AsBefore, "__enter__", lambda self: (again.append(self), enter(self))[1])
    assert_equal_to_the_unroll(model, meta(order), episodes(architecture), oracle=plain)
    # Two layers, in at least the backward passes of two queries.
    assert len(again) >= (4 if name == "top" or order == "first" else 8)
    assert not model.eval().backbone.training


@pytest.mark.parametrize("name", INSIDE)
def test_checkpointing_turned_on_through_transformers_is_made_right(name):
    """In training mode: transformers' own switch acts only there."""
    model = model_of(INSIDE[name], "bert")
    plain = copy.deepcopy(model)
    model.backbone.activation_checkpointing_enable()
    algorithm = meta("second", outer_dropout=True, inner_dropout=True)  # this backbone drops nothing
    assert not has_dropout(model.backbone)
    assert_equal_to_the_unroll(model, algorithm, episodes("bert"), oracle=plain)


def test_pytorchs_own_checkpointing_is_wrong_here():
    """That the tests above could fail: the trap is real."""
    model = model_of(BitFit(), "bert")
    plain = copy.deepcopy(model)
    model.checkpoint_layers()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpointing._AsBefore, "__enter__", lambda self: None)
        patch.setattr(checkpointing._AsBefore, "__exit__", lambda self, *error: None)
        with pytest.raises(AssertionError):
            assert_equal_to_the_unroll(model, meta("second"), episodes("bert"), oracle=plain)


@each_architecture
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
    with pytest.raises(IndexError):
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
    tied = model_of(LoRA(rank=2, top_layers=1), "bert")
    low, high = (tied.backbone.encoder.layer[i].attention.self.query for i in (0, 1))
    low.weight = high.weight
    assert first_layer(tied.backbone, ["encoder.layer.1.attention.self.query.weight"]) == 0
    assert first_layer(tied.backbone, ["encoder.layer.1.attention.self.query.bias"]) == 1
    assert first_layer(tied.backbone, ["embeddings.LayerNorm.bias"]) == 0


def test_dropout_is_never_reused():
    for architecture, fields in (
        ("bert", {"hidden_dropout_prob": 0.5}),
        ("llama", {"attention_dropout": 0.5}),
        ("gpt2", {"attn_pdrop": 0.5}),
        ("modernbert", {"mlp_dropout": 0.5}),
        ("t5", {"dropout_rate": 0.5}),
    ):
        assert not has_dropout(backbone(architecture)), architecture
        config_class, model_class, own, _ = ARCHITECTURES[architecture]
        assert has_dropout(model_class(config_class(**own | fields))), architecture
    model = with_heads(tiny(ADAPTER, dropout=0.5))
    data = TASKS[0].train.batch([0, 1])
    assert "trunk" not in model.train().reusing([data])[0]
    assert "trunk" in model.reusing([data], once=True)[0]
    assert "trunk" in model.eval().reusing([data])[0]


def test_dropout_in_the_query_pass_is_drawn_with_and_without_batching():
    """Equal in distribution: with dropout of 0.5 two passes differ, and their mean loss is that of the plain path."""
    means = []
    for together in (False, True):
        losses = []
        for seed in range(60):
            model = with_heads(tiny(OUTPUT, dropout=0.5))
            torch.manual_seed(seed)
            algorithm = meta("first", outer_dropout=True, batch_tasks=together)
            losses.append(algorithm.accumulate(model, EpisodeSampler(TASKS, 3, 4)[0]).outer)
        assert len(set(losses)) == 60
        means.append(torch.tensor(losses))
    error = sum(m.var() / 60 for m in means) ** 0.5
    assert abs(means[0].mean() - means[1].mean()) < 4 * error


@pytest.mark.parametrize("algorithm", [meta("first"), meta("second"), FineTunePriming(outer_dropout=False)])
def test_word_gradients_are_the_dense_ones(algorithm, monkeypatch):
    gradients = []
    for off in (False, True):
        model = with_heads(tiny())
        if off:
            monkeypatch.setattr("pemeta.embeddings._suitable", lambda *_: False)
        algorithm.accumulate(model, EpisodeSampler(TASKS, 3, 4)[0])
        table = model.backbone.get_input_embeddings()
        assert not table.sparse
        assert not table.weight.grad.is_sparse
        gradients.append(table.weight.grad)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-10)
    assert gradients[0].any()


def test_memory_of_a_clone_is_that_of_what_it_owns():
    model = model_of(LoRA(rank=2), "bert")
    before = {p.data_ptr() for p in model.parameters()}
    clone = PrimingLearner(model, 0.1).clone("en")
    clone.adapt_to([batch("bert", 1)], "en")
    own = [p for p in clone.module.parameters() if p.data_ptr() not in before]
    assert sum(p.numel() for p in own) == model.num_stored("en")
