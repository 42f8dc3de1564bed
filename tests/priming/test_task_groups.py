"""All tasks of a meta-batch in one pass, each with θ_a of its own: equal to each by itself, by an explicit unroll."""

import copy
from collections import Counter

import pytest
import torch
from algorithm_cases import OBJECTIVES, RULES, SETS, SMALL
from architectures import ARCHITECTURES, backbone, untouched
from padding_models import made
from tiny_models import METHODS, shaken
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BertConfig, BertModel
from unroll import FLOAT32, HEAD, Made, episodes, largest_error, meta, model_of

from pemeta import Adapter, BitFit, Full, LoRA, MetaPriming, PEModel, PrimingLearner, ReptilePriming
from pemeta.backbone.row_groups import Groups, NotByRowsError, by_groups, find_holders
from pemeta.errors import ModelError
from pemeta.heads.token_classification import TokenClassificationHead
from pemeta.methods.base import PEMethod
from pemeta.priming.algorithms import OuterStep
from pemeta.priming.inner_rules import SGD
from pemeta.priming.task_groups import TaskGroup

GROUPED = {name: method for name, (method, _) in METHODS.items() if method.by_example}
APART = {("bitfit", "deberta-v2")}  # its layers map positions, which are no task's, by maps with biases
EVERY = [(n, a) for n in GROUPED for a in ARCHITECTURES if GROUPED[n].unsupported(untouched(a)) is None]
SOME = [(n, a) for n, a in EVERY if a == "bert" or (n == "lora" and a in ("gpt2", "t5", "qwen3", "vit"))]
SOME += [("bitfit", "deberta-v2"), ("layer_norm", "modernbert"), ("prefix", "llama")]
LORA = LoRA(rank=2)
each_order = pytest.mark.parametrize("order", ["first", "second"])


@pytest.fixture
def passes(monkeypatch):
    """The number of tasks in each pass of a group."""
    found, losses_at = [], TaskGroup.losses_at

    def watched(self, values, batches):
        found.append(len(batches))
        return losses_at(self, values, batches)

    monkeypatch.setattr(TaskGroup, "losses_at", watched)
    return found


def error(method, algorithm, architecture="bert", supports=1, **changes):
    model = changes.get("model") or model_of(method, architecture)
    drawn = episodes(architecture, supports, shorter=0 if architecture == "vit" else 2)
    return largest_error(model, algorithm, changes.get("oracle") or copy.deepcopy(model), drawn, 3)


def equals_the_unroll(name, architecture, order, passes):
    atol = 1e-7 if architecture in FLOAT32 else 1e-10
    assert error(GROUPED[name], meta(order, batch_tasks=True), architecture) < atol
    assert passes == ([] if (name, architecture) in APART else [2, 2, 2])


@each_order
@pytest.mark.parametrize(("name", "architecture"), SOME)
def test_an_outer_step_equals_the_unroll(name, architecture, order, passes):
    equals_the_unroll(name, architecture, order, passes)


@pytest.mark.long
@each_order
@pytest.mark.parametrize(("name", "architecture"), [pair for pair in EVERY if pair not in SOME])
def test_an_outer_step_of_any_other_equals_the_unroll(name, architecture, order, passes):
    equals_the_unroll(name, architecture, order, passes)


def test_the_methods_that_act_on_each_example_say_so():
    assert set(METHODS) - set(GROUPED) == {"full", "head_only", "peft", "prompt"}


@each_order
def test_tasks_whose_sentences_are_in_rows_run_one_after_the_other(order, passes):
    """Such a row has sentences of one task only, and tasks have unequally many."""
    model = model_of(LORA, "bert")
    model.padding = "packed"
    assert model.packs
    assert error(LORA, meta(order, batch_tasks=True), model=model) < 1e-10
    assert not passes


def test_last_hidden_states_need_no_rows(passes):
    model = model_of(Adapter(bottleneck=4, init_std=0.3), "bert")
    model.padding = "packed"
    assert error(model.method, meta("first", batch_tasks=True), model=model) < 1e-10
    assert set(passes) == {2}


# Whatever an inner loop may be asked for.


@each_order
@pytest.mark.parametrize("rule", RULES)
def test_every_inner_rule(rule, order, passes):
    algorithm = MetaPriming(**SMALL, inner_rule=RULES[rule], first_order=order == "first", batch_tasks=True)
    assert error(LORA, algorithm) < 1e-10
    assert set(passes) == {2}


def test_moments_of_the_outer_optimiser(passes):
    """Which each task starts from."""
    found = []
    for together in (False, True):
        model = model_of(LORA, "bert")
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        rule = {"name": "adam", "moments": "outer"}
        algorithm = MetaPriming(**SMALL, inner_rule=rule, batch_tasks=together)
        for number in range(2):
            optimizer.zero_grad()
            algorithm.accumulate(model, episodes("bert"), OuterStep(number, optimizer=optimizer))
            optimizer.step()
        found.append(torch.cat([p.flatten() for p in model.parameters()]))
    torch.testing.assert_close(*found, rtol=0, atol=1e-8)
    assert passes


class Halved(SGD):
    """Moves a parameter by its whole gradient's norm, without saying that it may not see several tasks' at once."""

    def update(self, value, gradient, name, moments, number, rate):
        return value - rate * gradient / (1 + gradient.norm())


class HalvedAtOnce(SGD):
    """The same, of all parameters in one method."""

    def update_all(self, values, gradients, moments, number, rate):
        return {name: values[name] - rate * grad / (1 + grad.norm()) for name, grad in gradients.items()}


@pytest.mark.parametrize("rule", [Halved(), HalvedAtOnce()], ids=lambda rule: type(rule).__name__)
def test_a_rule_that_looks_at_whole_parameters_sees_those_of_a_task(rule):
    assert SGD().joins_tasks
    assert not rule.joins_tasks
    assert not SGD(max_grad_norm=1.0).joins_tasks
    found = []
    for together in (False, True):
        model = model_of(LORA, "bert")
        MetaPriming(**SMALL, inner_rule=rule, batch_tasks=together).accumulate(model, episodes("bert"))
        found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(*found, rtol=0, atol=1e-10)


@each_order
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_outer_loss(objective, order, passes):
    settings = SMALL | OBJECTIVES[objective]
    assert error(LORA, MetaPriming(**settings, first_order=order == "first", batch_tasks=True)) < 1e-10
    assert passes or objective == "plain"


@pytest.mark.parametrize("primes", SETS)
def test_every_part_that_may_be_primed(primes, passes):
    assert error(LORA, MetaPriming(**SMALL, **SETS[primes], first_order=False, batch_tasks=True)) < 1e-10
    assert passes


@each_order
@pytest.mark.parametrize("name", ["adapter", "adapter-top", "lora"])
def test_a_support_set_for_each_step_and_layers_below_theta_a(name, order, passes):
    algorithm = meta(order, fresh_support=True, batch_tasks=True)
    assert error(GROUPED[name], algorithm, supports=2) < 1e-10
    assert passes == [2, 2, 2]


@pytest.mark.parametrize("primes", [("theta_a",), ("theta_a", "theta_h")])
def test_an_outer_gradient_that_is_no_loss(primes, passes):
    algorithm = ReptilePriming(**SMALL, inner_method=None, primes=primes, batch_tasks=True)
    assert error(LORA, algorithm) < 1e-10
    assert passes == [2, 2, 2]


@each_order
@pytest.mark.parametrize("name", ["lora", "adapter-houlsby", "bitfit", "ia3", "prefix-network"])
def test_checkpointed_layers_run_again_with_the_values_of_all_tasks(name, order, passes):
    model = model_of(GROUPED[name], "bert")
    oracle = copy.deepcopy(model)
    model.checkpoint_layers()
    assert error(None, meta(order, batch_tasks=True), model=model, oracle=oracle) < 1e-10
    assert passes == [2, 2, 2]
    assert not any("forward" in vars(part) for part in model.modules())


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_task_that_shares_its_head_adapts_values_of_its_own(attention, passes):
    found = []
    for together in (False, True):
        model = PEModel(backbone("bert", attention), LORA, seed=0)
        model.add_head("en", HEAD)
        model.share_head("es", "en")
        algorithm = MetaPriming(
            **SMALL, source_heads="shared", primes=("theta_p", "theta_a", "theta_h"), batch_tasks=together
        )
        losses = algorithm.accumulate(model, episodes("bert"))
        found.append((losses, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    assert found[0][0].inner == pytest.approx(found[1][0].inner, abs=1e-10)
    assert found[0][1].keys() == found[1][1].keys()
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], gradient, rtol=0, atol=1e-10, msg=name)
    assert passes


@pytest.mark.parametrize("half", ["autocast", "parameters"])
@pytest.mark.parametrize("name", ["lora", "bitfit", "layer_norm", "ia3", "prefix", "adapter"])
def test_in_bfloat16_it_is_close_and_the_types_are_those_of_each_task(name, half, passes):
    found, types = [], []
    for together in (False, True):
        model = model_of(GROUPED[name], "bert").float()
        if half == "autocast":
            model.autocast_dtype = torch.bfloat16
        else:
            model.to(torch.bfloat16)
        own = []
        for part in model.backbone.encoder.modules():
            if isinstance(part, nn.Linear | nn.LayerNorm):
                part.register_forward_hook(lambda part, inputs, output, own=own: own.append(output.dtype))
        meta("first", batch_tasks=together).accumulate(model, episodes("bert"))
        types.append(set(own))
        found.append(torch.cat([p.grad.flatten().float() for p in model.parameters() if p.grad is not None]))
    assert types[0] == types[1]
    assert (found[0] - found[1]).norm() < 0.1 * found[0].norm()
    assert passes == [2, 2, 2]


# Where it is not done.


class Told(LoRA):
    """A method that says it acts on each example, in spite of its hook."""


@pytest.mark.parametrize("fault", ["the batch's mean", "another order", "a part of the rows", "no rows"])
def test_a_part_that_mixes_examples_is_found(fault, passes):
    model = model_of(Told(rank=2), "bert")
    part = model.backbone.get_submodule("encoder.layer.0.attention.self.query.pemeta_lora.down")

    def mixed(module, arguments):
        rows = arguments[0]
        if fault == "the batch's mean":
            return (rows + rows.mean(0, keepdim=True),)
        return (
            rows.flip(0) if fault == "another order" else rows[:1] if fault == "no rows" else rows[: len(rows) - 1],
        )

    def after(module, arguments, output):
        return output.mean(0, keepdim=True) if "rows" in fault else output

    part.register_forward_pre_hook(mixed)
    part.register_forward_hook(after)
    oracle = copy.deepcopy(model)
    assert error(None, meta("first", batch_tasks=True), model=model, oracle=oracle) < 1e-10
    assert passes == []


def test_a_backbone_that_depends_on_padding_runs_each_task(passes):
    model = PEModel(made("convbert"), LORA)
    for task in ("en", "es"):
        model.add_head(task, HEAD)
    meta("first", batch_tasks=True).accumulate(model, episodes("bert", shorter=2))
    assert passes == []
    meta("first", batch_tasks=True).accumulate(model, episodes("bert"))
    assert passes == [2, 2, 2]


class Reads(TokenClassificationHead):
    """A head that looks at θ_a."""

    def forward(self, hidden, batch, backbone):
        return super().forward(hidden, batch, backbone) * (1 + backbone.encoder.layer[1].output.dense.bias.sum())


def test_a_head_that_reads_theta_a_is_found(passes):
    model = PEModel(backbone("bert"), BitFit())
    for task in ("en", "es"):
        model.add_head(task, lambda width: Reads(width, 3))
    assert error(None, meta("first", batch_tasks=True), model=shaken(model)) < 1e-10
    assert passes == []


def test_tasks_of_different_sizes_run_each_by_itself(passes):
    first, second = episodes("bert")
    smaller = Made(second.task, tuple({k: v[:1] for k, v in s.items()} for s in second.all_supports), second.query)
    model = model_of(LORA, "bert")
    assert largest_error(model, meta("second", batch_tasks=True), copy.deepcopy(model), [first, smaller]) < 1e-10
    assert passes == []
    smaller = Made(second.task, second.all_supports, {k: v[:1] for k, v in second.query.items()})
    model = model_of(LORA, "bert")
    for order in ("first", "second"):
        model.zero_grad()
        algorithm = meta(order, batch_tasks=True)
        assert largest_error(model, algorithm, copy.deepcopy(model), [first, smaller]) < 1e-10
    assert passes == [2, 2] * 2  # the inner loops; queries one after the other


def test_what_adapts_in_another_way_runs_each_task(passes):
    class Own(PrimingLearner):
        """Might do anything."""

    class Mine(MetaPriming):
        """An algorithm of a user's."""

        def make_learner(self, model, step, **options):
            return Own(model, self.inner_lr, **options)

        def outer_gradient(self, clone, original, query):
            return super().outer_gradient(clone, original, query)

    model = model_of(LORA, "bert")
    Mine(**SMALL, batch_tasks=True).accumulate(model, episodes("bert"))
    MetaPriming(**SMALL, batch_tasks=True).accumulate(model_of(Full(), "bert"), episodes("bert"))
    model.backbone.compile(backend="eager")
    assert not TaskGroup.fits(PrimingLearner(model))
    assert passes == []


def test_an_outer_gradient_of_ones_own_is_taken_of_each_task(passes):
    """Where only the method for one task is overridden."""
    seen = []

    class Mine(MetaPriming):
        """An algorithm of a user's."""

        def outer_gradient(self, clone, original, query):
            seen.append(query.task)
            return super().outer_gradient(clone, original, query)

    for order in ("first", "second"):
        assert error(LORA, Mine(**SMALL, first_order=order == "first", batch_tasks=True)) < 1e-10
    assert (seen, passes) == (["en", "es"] * 2, [2, 2, 2] * 2)


@each_order
@pytest.mark.parametrize("rule", ["momentum", "warmed up"])
def test_clones_of_a_group_can_go_on(rule, order, passes):
    """With the moments and the number of steps of their task."""
    found = []

    class Further(MetaPriming):
        """Takes one more step on the query set."""

        name = f"further-{rule}-{order}".replace(" ", "-")

        def outer_gradient(self, clone, original, query):
            clone.adapt(clone.loss(query.batch, query.task))
            return super().outer_gradient(clone, original, query)

    for together in (False, True):
        model = model_of(LORA, "bert")
        settings = SMALL | {"inner_rule": RULES[rule], "first_order": order == "first", "batch_tasks": together}
        Further(**settings).accumulate(model, episodes("bert"))
        found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)
    assert passes == [2, 2, 2]


def test_a_method_does_not_act_on_each_example_unless_it_says_so():
    assert not PEMethod.by_example.fget(LORA)


# The trial.


def test_it_is_tried_once_for_each_length_and_leaves_no_trace():
    model = model_of(LORA, "bert").train()
    backbone_passes = []
    model.backbone.register_forward_hook(lambda *_: backbone_passes.append(1))
    learner, drawn = PrimingLearner(model), episodes("bert")
    group = TaskGroup([learner.clone(one.task.name) for one in drawn])
    before = torch.get_rng_state(), {n: p.clone() for n, p in model.named_parameters()}
    batches = [one.support for one in drawn]
    for expected in (3, 0):
        backbone_passes.clear()
        assert group.joins(batches)
        assert TaskGroup([learner.clone(one.task.name) for one in drawn]).joins(batches)
        assert len(backbone_passes) == expected
    assert torch.equal(torch.get_rng_state(), before[0])
    assert all(torch.equal(p, before[1][n]) for n, p in model.named_parameters())
    assert all(part.training for part in model.modules())


def test_values_of_another_method_are_not_touched_by_a_change_of_the_module():
    model, drawn = model_of(LORA, "bert"), episodes("bert")
    learner = PrimingLearner(model)
    group = TaskGroup([learner.clone(one.task.name) for one in drawn])
    batches = [one.support for one in drawn]
    assert group.joins(batches)
    model.backbone.encoder.layer[0].attention.self.query.weight = nn.Parameter(torch.zeros(8, 8).double())
    with pytest.raises(ModelError, match="was added or replaced after this learner was made; make a new learner"):
        group.losses(batches)


# Parts.


@pytest.mark.parametrize("keys", [("weight",), ("bias",), ("weight", "bias")], ids="-".join)
@pytest.mark.parametrize(
    "part", [nn.Linear(4, 3), nn.LayerNorm(4), nn.RMSNorm(4), nn.Conv1d(3, 2, 1), nn.LayerNorm((3, 4))], ids=repr
)
def test_a_part_by_groups_is_the_part_on_each_group(part, keys):
    if not (keys := [key for key in keys if key in dict(part.named_parameters())]):
        pytest.skip("the part has no such parameter")
    part, generator = copy.deepcopy(part).double(), torch.Generator().manual_seed(0)
    values = {k: torch.randn(2, *getattr(part, k).shape, generator=generator).double() for k in keys}
    rows = torch.randn(6, 3, 4, generator=generator).double()
    own = [{key: value[task] for key, value in values.items()} for task in range(2)]
    expected = [torch.func.functional_call(part, one, (rows[i : i + 3],)) for one, i in zip(own, (0, 3), strict=True)]
    holders = find_holders(part, keys)
    part._parameters.update(values)
    with by_groups(holders, Groups(2, 6)):
        torch.testing.assert_close(part(rows), torch.cat(expected), rtol=0, atol=1e-12)
        with pytest.raises(NotByRowsError, match="set batch_tasks: false"):
            part(rows[:5])
    assert "forward" not in vars(part)


class Placed(nn.Module):
    """Adds what belongs to positions, and a bias."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(4))

    def forward(self, rows, positions):
        return rows + positions[-rows.shape[1] :] + self.bias


def test_what_a_part_gets_for_each_position_is_never_taken_for_examples():
    """As it would be in batches in which there are as many positions, or twice as many, as examples."""
    part, rows = Placed(), torch.randn(6, 3, 4)
    holders = find_holders(part, ["bias"])
    part._parameters["bias"] = torch.stack([torch.zeros(4), torch.ones(4)])
    with by_groups(holders, Groups(2, 6)):
        found = part(rows, torch.full((1, 4), 5.0))
        torch.testing.assert_close(found, rows + 5 + torch.tensor([0.0, 0, 0, 1, 1, 1])[:, None, None])
        with pytest.raises(NotByRowsError):
            part(rows, torch.zeros(5, 4))


# What it saves.

VIEWS = {"view", "_unsafe_view", "t", "transpose", "unsqueeze", "squeeze", "expand", "select", "slice", "detach"}
VIEWS |= {"alias", "permute", "split", "unbind", "as_strided"}


class Operations(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self):
        super().__init__()
        self.names = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names[func._overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def operations(method, together):
    """Operations, but views, of an outer step with five inner steps on a backbone of twelve layers."""
    torch.manual_seed(0)
    config = BertConfig(hidden_size=8, num_hidden_layers=12, num_attention_heads=2, intermediate_size=12, vocab_size=30)
    model = PEModel(BertModel(config, add_pooling_layer=False), method)
    for task in ("en", "es"):
        model.add_head(task, HEAD)
    algorithm, drawn = MetaPriming(inner_steps=5, outer_dropout=False, batch_tasks=together), episodes("bert")
    algorithm.accumulate(model, drawn)  # which tries
    with Operations() as counted:
        algorithm.accumulate(model, drawn)
    return sum(count for name, count in counted.names.items() if name not in VIEWS)


@pytest.mark.parametrize(
    ("method", "most"),
    [(LORA, 0.6), (Adapter(bottleneck=4), 0.6), (GROUPED["adapter-houlsby"], 0.6), (BitFit(), 0.8)],
    ids=["lora", "output", "houlsby", "bitfit"],
)
def test_two_tasks_in_one_pass_ask_little_more_of_a_device_than_one(method, most):
    assert operations(method, True) <= most * operations(method, False)
