"""What a priming step asks of a device: few reads, few operations, and values that stay what they were."""

import gc
import weakref

import pytest
import torch
from architectures import backbone, batch
from operations import Operations
from tiny_models import ADAPTER, TASKS, data, with_heads
from transformers import BertConfig, BertModel

from pemeta import (
    BitFit,
    FineTuning,
    LoRA,
    MetaPriming,
    PEModel,
    Prefix,
    PrimingLearner,
    ReptilePriming,
    Task,
    evaluate,
    finetune,
)
from pemeta.backbone.masks import is_full, masks_once
from pemeta.methods.lora import LowRank
from pemeta.priming.inner_rules import SGD, Momentum
from pemeta.priming.job import PrimingJob
from pemeta.priming.sparse_embeddings import sparse_word_gradients
from pemeta.utils.distributed import Processes
from pemeta.utils.modules import only_trainable

FOUR = TASKS + [Task.token_classification(name, data(seed)) for seed, name in enumerate(("de", "nl"), 5)]
LORA = LoRA()


def counted(method, algorithm, tasks=TASKS, layers=2):
    """What a third outer step asks for, in float32; the first ones also try what can be left out."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=16,
        attn_implementation="sdpa",
    )
    model = PEModel(BertModel(config, add_pooling_layer=False), method)
    algorithm.prepare(model, 0)
    for task in tasks:
        model.add_head(task.name, task.make_head)
    with only_trainable(model, algorithm.trained(model)) as trained:
        job = PrimingJob(model, algorithm.sampler(tasks, 0), algorithm, 0, trained.values(), None, Processes())

        def step(number):
            job.optimization.zero_grad()
            job.gradient(number)
            job.optimization.step()

        step(0)
        step(1)
        with Operations(model) as operations:
            step(2)
    return operations


def meta(steps, **settings):
    return MetaPriming(support_size=3, query_size=3, inner_steps=steps, outer_steps=9, **settings)


@pytest.mark.parametrize(
    "algorithm",
    [
        pytest.param(meta(5), id="five"),
        pytest.param(meta(1), id="one"),
        pytest.param(meta(3, batch_tasks=True), id="together"),
        pytest.param(meta(2, first_order=False), id="second", marks=pytest.mark.long),
        pytest.param(meta(2, inner_dropout=True), id="dropout", marks=pytest.mark.long),
        pytest.param(meta(2, outer_loss="mean"), id="mean", marks=pytest.mark.long),
        pytest.param(
            ReptilePriming(support_size=3, inner_steps=2, outer_steps=9), id="reptile", marks=pytest.mark.long
        ),
    ],
)
@pytest.mark.parametrize("method", [ADAPTER, LORA], ids=["adapter", "lora"])
def test_an_outer_step_is_waited_for_twice(method, algorithm):
    """For the losses, and for the gradient's norm; whatever the number of tasks."""
    for tasks in (TASKS, FOUR):
        reads = counted(method, algorithm, tasks).reads
        assert sum(reads.values()) == 2, reads


@pytest.mark.parametrize(("method", "most"), [(ADAPTER, 28), (LORA, 427)], ids=["adapter", "lora"])
def test_operations_of_an_inner_step(method, most):
    """Of twelve layers, views left out: 40 and 715 when each parameter, and each mask, was on its own."""
    long, short = (counted(method, meta(steps), layers=12).kernels for steps in (3, 2))
    assert long - short <= most * len(TASKS)


class Doubled(SGD):
    def update(self, value, gradient, name, moments, number, rate):
        return super().update(value, 2 * gradient, name, moments, number, rate)


@pytest.mark.parametrize("rule", [SGD(), Momentum(momentum=0.7), SGD(max_grad_norm=0.5)], ids=str)
def test_updates_at_once_are_those_of_each_parameter(rule):
    torch.manual_seed(0)
    start = {name: torch.randn(3, dtype=torch.float64) for name in "abc"}

    def derivatives(one_by_one):
        leaves = {name: value.clone().requires_grad_() for name, value in start.items()}
        values, moments = dict(leaves), {}
        for number in range(3):
            loss = sum(v.sin().sum() * k for k, v in enumerate(values.values(), 1)) * values["a"].prod()
            found = dict(zip(values, torch.autograd.grad(loss, list(values.values()), create_graph=True), strict=True))
            if one_by_one:
                each = {}
                if rule.max_grad_norm:
                    norm = (sum(g.square().sum() for g in found.values()) + 1e-24).sqrt()
                    found = {name: g * torch.clamp(rule.max_grad_norm / norm, max=1.0) for name, g in found.items()}
                for name, gradient in found.items():
                    each[name] = rule.update(values[name], gradient, name, moments, number, 0.1)
                values = each
            else:
                values = rule.step(values, found, moments, number, 0.1)
        return values, torch.autograd.grad(values["a"].cos().sum() + values["b"].prod(), list(leaves.values())[:2])

    (values, gradients), (expected, own) = derivatives(False), derivatives(True)
    for name, value in values.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-15)
    torch.testing.assert_close(gradients, own, rtol=0, atol=1e-14)


def test_a_rule_of_ones_own_is_heeded():
    value, gradient = {"a": torch.zeros(2)}, {"a": torch.ones(2)}
    assert Doubled().step(value, gradient, {}, 0, 0.5)["a"].tolist() == [-1.0, -1.0]
    assert SGD().step(value, gradient, {}, 0, 0.5)["a"].tolist() == [-0.5, -0.5]
    assert SGD().step(value, {}, {}, 0, 0.5) == {}


def test_the_graph_of_an_inner_loop_keeps_no_values_in_first_order():
    start = torch.zeros(2, requires_grad=True)
    before = start * 1
    gone = weakref.ref(before)
    after = SGD().step({"a": before}, {"a": torch.ones(2)}, {}, 0, 0.5)["a"]
    del before
    gc.collect()
    assert gone() is None
    assert torch.autograd.grad(after.sum(), start)[0].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("padding", [0, 3, None])
def test_sparse_gradients_of_words_are_those_of_the_dense_table(padding):
    """Also where positions of padding get a gradient, as the loss of every position gives them."""
    model = with_heads(PEModel(backbone("bert"), BitFit()))
    table = model.backbone.get_input_embeddings()
    table.padding_idx = padding
    ids = torch.tensor([[1, 3, 4, 0, 0], [3, 7, 3, 9, 0]])

    def gradient():
        for _ in range(2):
            table(ids).pow(3).sum().backward()
        found, table.weight.grad = table.weight.grad, None
        return found

    expected = gradient()
    with sparse_word_gradients(model, ["backbone.embeddings.word_embeddings.weight"]):
        torch.testing.assert_close(gradient(), expected, rtol=0, atol=1e-15)
        assert table.padding_idx == padding
    assert expected[4].any()
    assert padding is None or not expected[padding].any()


MASKING = ("bert", "xlm-roberta", "distilbert", "electra", "modernbert", "gpt2", "qwen3", "mistral", "t5")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", MASKING)
def test_masks_made_once_change_nothing(architecture, attention):
    model = PEModel(backbone(architecture, attention), LORA)
    if architecture == "mistral":
        model.backbone.config.sliding_window = 3  # shorter than a sentence
    for padded in (True, False):
        given = batch(architecture, 1, padded)
        expected = model.hidden_states(given)
        placed = model.placed(given)
        with masks_once(model.backbone):
            for _ in range(2):
                assert torch.equal(model.hidden_states(placed), expected)
                assert torch.equal(model.hidden_states(given), expected)


@pytest.mark.parametrize("architecture", ["bert", "gpt2", "mistral"])
def test_fine_tuning_and_evaluation_ask_nothing_of_a_mask(architecture):
    model = PEModel(backbone(architecture, "sdpa"), LORA)
    with Operations(model) as operations:
        finetune(model, TASKS[0], data(7), FineTuning(epochs=1), progress=False)
        evaluate(model, data(7), TASKS[0].name)
    assert any("evaluation.py" in line for line in operations.reads)
    assert not any("masking_utils" in line for line in operations.reads)


@pytest.mark.parametrize("method", [LORA, Prefix(length=2)], ids=["lora", "prefix"])
def test_a_mask_that_changes_is_seen(method):
    model = PEModel(backbone("bert", "sdpa"), method)
    given = model.placed({key: value.clone() for key, value in batch("bert", 1).items()})
    with masks_once(model.backbone):
        before = model.hidden_states(given)
        with torch.inference_mode():
            assert torch.equal(model.hidden_states(given), before)
        for width in (3, 2):
            given["attention_mask"][:, width:] = 0
            found = model.hidden_states(given)
            with torch.inference_mode():
                afresh = model.hidden_states({key: value.clone() for key, value in given.items()})
            assert torch.equal(found, afresh)
            assert not torch.equal(found, before)
            before = found


def test_a_mask_is_made_once_and_transformers_is_as_it_was():
    from transformers.models.bert import modeling_bert

    model = with_heads(PEModel(backbone("bert", "sdpa"), LORA))
    make = modeling_bert.create_bidirectional_mask
    attend = modeling_bert.ALL_ATTENTION_FUNCTIONS["sdpa"]
    with masks_once(model.backbone), masks_once(model.backbone):
        assert modeling_bert.create_bidirectional_mask is not make
    given = model.placed(batch("bert", 1))
    assert is_full.knows(given["attention_mask"])
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.where", lambda *a, where=torch.where: made.append(a) or where(*a))
        PrimingLearner(model, 0.1).clone("en").adapt_to([given] * 4, "en")
    assert len(made) == 1
    assert modeling_bert.create_bidirectional_mask is make
    assert modeling_bert.ALL_ATTENTION_FUNCTIONS["sdpa"] is attend


def test_a_low_rank_pair_adds_what_its_two_maps_do():
    torch.manual_seed(0)
    pair = LowRank(5, 4, 2, 1.5, 0.0).double()
    torch.nn.init.normal_(pair.up.weight)
    x, output = (torch.randn(2, 3, width, dtype=torch.float64, requires_grad=True) for width in (5, 4))
    names, values = zip(*pair.named_parameters(), strict=True)

    def beside(x, output, *own):
        return torch.func.functional_call(_Beside(pair), {f"pair.{n}": v for n, v in zip(names, own)}, (x, output))  # noqa: B905

    torch.testing.assert_close(beside(x, output, *values), output + pair(x))
    assert torch.autograd.gradcheck(beside, (x, output, *values))
    assert torch.autograd.gradgradcheck(beside, (x, output, *values))
    with torch.autocast("cpu", torch.bfloat16):
        lower = output.detach().bfloat16()
        narrow = pair.float().beside(x.float(), lower)
        torch.testing.assert_close(narrow, lower + pair(x.float()), rtol=0.02, atol=0.02)
    assert narrow.dtype == torch.bfloat16
    narrow.float().sum().backward()
    assert pair.up.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("place", ["", "up"])
def test_hooks_of_a_low_rank_pair_are_heeded(place):
    pair, x, output = LowRank(5, 4, 2, 1.5, 0.0), torch.randn(3, 5), torch.randn(3, 4)
    pair.up.weight.data += 1
    assert not torch.equal(pair.beside(x, output), output)
    pair.get_submodule(place).register_forward_hook(lambda part, inputs, out: out * 0)
    assert torch.equal(pair.beside(x, output), output)


class _Beside(torch.nn.Module):
    def __init__(self, pair):
        super().__init__()
        self.pair = pair

    def forward(self, x, output):
        return self.pair.beside(x, output)
