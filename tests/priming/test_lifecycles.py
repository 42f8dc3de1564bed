"""A learner and its clones when the model changes under them: right, or refused when a pass runs."""

import copy
from functools import partial

import pytest
import torch
from learner_models import ADAPTER, INNER_LR, batch, tied, tiny_model
from tiny_models import shaken, tiny, with_heads
from torch import nn

from pemeta import BitFit, Full, HeadOnly, LoRA, Partition, PEModel, PrimingLearner
from pemeta.errors import ConfigError, DataError, ModelError
from pemeta.heads import TokenClassification

HEAD = TokenClassification(labels=("O", "B-PER", "I-PER"))
LORA = LoRA(rank=2)
UP = "backbone.pemeta_adapter.up"


def replace(model, path, key):
    part = model.get_submodule(path)
    setattr(part, key, nn.Parameter(getattr(part, key).detach().clone()))


def share(model):
    model.share_head("en", "es")


def again(model):
    model.detach(ADAPTER)
    model.attach(ADAPTER, seed=5)


def untie(model):
    model.backbone.extra = nn.Linear(2, 2).double()


CHANGES = {
    "a new head": (lambda model: model.add_head("de", HEAD), r"heads\.task_de\.\S+ was added or replaced"),
    "a head replaced": (lambda model: model.add_head("en", HEAD), r"heads\.task_en\.\S+ was added or replaced"),
    "another task's head dropped": (lambda model: model.drop_head("es"), r"heads\.task_es\.\S+ was removed"),
    "a head shared": (share, r"heads\.task_en\.\S+ was removed"),
    "a method attached": (lambda model: model.attach(LORA), r"pemeta_lora\.\S+ was added or replaced"),
    "the method detached": (lambda model: model.detach(ADAPTER), r"pemeta_adapter\.\S+ was removed"),
    "the method attached again": (again, r"pemeta_adapter\.\S+ was added or replaced"),
    "θ_a replaced": (partial(replace, path=UP, key="weight"), rf"{UP}\.weight was added or replaced"),
    "θ_p replaced": (
        partial(replace, path="backbone.encoder.layer.0.output.dense", key="bias"),
        r"layer\.0\.output\.dense\.bias was added or replaced",
    ),
    "a part of its own": (untie, r"backbone\.extra\.weight was added or replaced"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_module_with_other_parameters_is_refused(change):
    """By clones that were made before, when they compute, and for new ones; and a new learner is right."""
    how, says = CHANGES[change]
    model = tiny_model(ADAPTER)
    learner = PrimingLearner(model, INNER_LR)
    clone = learner.clone("en")
    clone.adapt(clone.loss(batch(1), "en"))
    how(model)
    for compute in (
        lambda: clone.loss(batch(1), "en"),
        lambda: clone(batch(1), "en"),
        lambda: clone.module.loss(batch(1), "en"),
        lambda: clone.adapt_to([batch(1)], "en"),
        lambda: learner.clone("en"),
        learner.clone,
    ):
        with pytest.raises(ModelError, match=rf"{says} after this learner was made; make a new learner"):
            compute()
    if not model.attached:
        model.attach(ADAPTER)
    own = PrimingLearner(model, INNER_LR).clone("es" if change == "a head shared" else "en")
    task = own.task
    assert own.adapt_to([batch(1)] * 3, task)[2] < own.losses[0]


def test_a_new_head_adapts_with_a_new_learner():
    """The case that was silently wrong: the head's values stayed as they were."""
    model = tiny_model(LORA)
    learner = PrimingLearner(model, INNER_LR)
    model.add_head("de", HEAD)
    with pytest.raises(ModelError, match=r"heads\.task_de\.\S+ was added or replaced after this learner was made"):
        learner.clone("de")
    clone = PrimingLearner(model, INNER_LR).clone("de")
    clone.adapt_to([batch(1)], "de")
    adapted = clone.module.head("de").classifier.weight
    assert not torch.equal(adapted, model.head("de").classifier.weight)


def test_resized_embeddings_are_refused():
    model = tiny_model(Full())
    learner = PrimingLearner(model, INNER_LR)
    clone = learner.clone("en")
    model.backbone.resize_token_embeddings(40)
    with pytest.raises(
        ModelError, match=r"word_embeddings\.weight was (added or replaced|converted, moved or resized)"
    ):
        clone.loss(batch(1), "en")
    PrimingLearner(model, INNER_LR).clone("en").adapt_to([batch(1)], "en")


def test_a_tie_that_was_undone_is_refused():
    module, partition = tied()
    learner = PrimingLearner(module, INNER_LR, partition=partition)
    clone = learner.clone()
    module.high.weight = nn.Parameter(module.low.weight.detach().clone())
    for compute in (lambda: clone(torch.ones(2, 3).double()), learner.clone):
        with pytest.raises(ModelError, match=r"high\.weight was added or replaced after this learner was made"):
            compute()


def test_parts_without_parameters_may_come_and_go():
    model = tiny_model(LORA)
    clone, plain = (PrimingLearner(one, INNER_LR).clone("en") for one in (model, tiny_model(LORA)))
    model.backbone.encoder.layer[0].output.dropout = nn.Dropout(0.5)
    model.backbone.extra = nn.Identity()
    model.eval()
    assert clone.adapt_to([batch(1)] * 2, "en") == plain.adapt_to([batch(1)] * 2, "en")
    model.attach(BitFit())  # adds none either
    clone.adapt(clone.loss(batch(1), "en"))


def test_a_forward_of_its_own_is_found_when_a_pass_runs():
    """Hooks of accelerate, which put other parameters in place than the clone's."""
    model = tiny_model(ADAPTER)
    clone = PrimingLearner(model).clone("en")
    layer = model.backbone.encoder.layer[0]
    layer.forward = layer.forward
    with pytest.raises(ModelError, match=r"backbone\.encoder\.layer\.0 has a forward of its own"):
        clone.loss(batch(1), "en")


def test_a_partition_of_another_time_or_module_is_refused():
    model = tiny_model(ADAPTER)
    old = model.partition()
    model.add_head("de", HEAD)
    learner = PrimingLearner(model, partition=old)
    with pytest.raises(ModelError, match=r"heads\.task_de\.\S+ is not in this learner's partition"):
        learner.clone("de")
    model.drop_head("es")
    with pytest.raises(ModelError, match=r"heads\.task_es\.\S+ is in the partition, but it is not the first name"):
        PrimingLearner(model, partition=old)
    module, _ = tied()
    with pytest.raises(ModelError, match=r"high\.weight is in the partition, but it is not the first name"):
        PrimingLearner(module, partition=Partition((), ("high.weight",), ()))


# Checkpointing and attention


def calm(method, attention="eager"):
    """In training mode, in which transformers checkpoints, without dropout."""
    return shaken(with_heads(tiny(method, attention, dropout=0.0))).train()


def outer_gradients(model, learner, steps=2, between=lambda: None):
    clone = learner.clone("en")
    for _ in range(steps):
        between()
        clone.adapt(clone.loss(batch(1), "en"))
    kept = clone.loss(batch(3), "en")
    clone.adapt(clone.loss(batch(1), "en"))
    (clone.loss(batch(2), "en") + kept).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("first_order", [True, False])
@pytest.mark.parametrize("moment", ["after the learner", "between passes"])
def test_checkpointing_that_is_switched_on_later_is_right(first_order, moment):
    """Meta-gradients were off by 4 %: a layer was rerun with the original's parameters."""
    plain, model = calm(LORA), calm(LORA)
    expected = outer_gradients(plain, PrimingLearner(plain, 0.5, first_order=first_order))
    learner = PrimingLearner(model, 0.5, first_order=first_order)
    switch = model.backbone.activation_checkpointing_enable
    if moment == "after the learner":
        switch()
    found = outer_gradients(model, learner, between=switch if moment == "between passes" else lambda: None)
    assert model.backbone.is_activation_checkpointing
    assert_close(found, expected)


def test_attention_may_be_set_at_any_time(monkeypatch):
    plain, model = tiny_model(LORA), tiny_model(LORA)
    expected = outer_gradients(plain, PrimingLearner(plain, 0.1, first_order=False))
    learner = PrimingLearner(model, 0.1, first_order=False)
    assert not learner.math_attention
    model.backbone.set_attn_implementation("sdpa")
    assert learner.math_attention
    assert_close(outer_gradients(model, learner), expected)
    clone = learner.clone("en")
    monkeypatch.setattr(model.backbone.config, "_attn_implementation_internal", "flex_attention")
    with pytest.raises(ModelError, match="'flex_attention' attention lacks"):
        clone.loss(batch(1), "en")


@pytest.mark.parametrize(("first", "then"), [(LORA, ADAPTER), (ADAPTER, LORA)], ids=["lora", "adapter"])
def test_the_method_that_fine_tuning_uses_may_be_another_one_later(first, then):
    """A learner adapts that of the time when it was made, and reuses what does not depend on it."""
    losses = []
    for later in (first, then):
        model = tiny_model(first)
        model.attach(then)
        clone = PrimingLearner(shaken(model), INNER_LR).clone("en")
        model.method = later
        losses.append(clone.adapt_to([batch(1)] * 3, "en"))
    assert losses[0] == losses[1]
    assert losses[0][2] < losses[0][0]


# Values, types and flags of parameters


@pytest.mark.parametrize("method", [ADAPTER, LORA, HeadOnly()], ids=["adapter", "lora", "head_only"])
def test_a_clone_of_another_type_is_refused(method):
    model = tiny_model(method)
    learner = PrimingLearner(model, INNER_LR)
    clone = learner.clone("en")
    model.float()
    with pytest.raises(
        ModelError, match=r"was converted, moved or resized .*then torch\.float64 .*now torch\.float32 "
    ):
        clone.loss(batch(1), "en")
    assert learner.clone("en").adapt_to([batch(1)] * 2, "en")[0] > 0


@pytest.mark.parametrize("thaw", [True, False])
def test_a_clone_that_is_connected_otherwise_is_refused(thaw):
    model = tiny_model(ADAPTER)
    model.requires_grad_(not thaw)
    learner = PrimingLearner(model, INNER_LR)
    clone = learner.clone("en")
    model.requires_grad_(thaw)
    with pytest.raises(
        ModelError, match=rf"{UP.rpartition('.')[0]}\.\S+ was frozen or thawed after this clone was made"
    ):
        clone.loss(batch(1), "en")
    with torch.no_grad():
        clone.module(batch(1), "en")  # nothing is connected here
    fresh = learner.clone("en")
    fresh.loss(batch(1), "en").backward()
    assert (model.get_parameter(f"{UP}.weight").grad is not None) == thaw


def test_frozen_heads_and_theta_p_change_nothing_for_a_clone():
    model = tiny_model(ADAPTER)
    clone = PrimingLearner(model, INNER_LR).clone("en")
    model.head("en").requires_grad_(False)
    model.backbone.embeddings.requires_grad_(False)
    clone.adapt_to([batch(1)], "en")
    clone.loss(batch(1), "en").backward()
    assert model.backbone.embeddings.word_embeddings.weight.grad is None
    assert model.backbone.encoder.layer[0].output.dense.weight.grad is not None


def test_a_clone_keeps_its_values_and_shares_theta_p_that_is_loaded_in_between():
    model, other = tiny_model(ADAPTER), tiny_model(ADAPTER)
    clone = PrimingLearner(model, INNER_LR).clone("en")
    clone.adapt(clone.loss(batch(1), "en"))
    own = {name: value.detach().clone() for name, value in clone.adapted_parameters().items()}
    values = {name: value + 0.1 for name, value in model.state_dict().items()}
    model.load_state_dict(values)
    assert all(torch.equal(value, own[name]) for name, value in clone.adapted_parameters().items())
    other.load_state_dict({**values, **own})
    assert torch.equal(clone.loss(batch(2), "en"), other.loss(batch(2), "en"))


def test_modes_may_change_between_passes():
    model = shaken(with_heads(tiny(LORA, dropout=0.5))).eval()
    clone = PrimingLearner(model, INNER_LR).clone("en")
    sure = clone.loss(batch(1), "en")
    model.train()
    assert clone.loss(batch(1), "en") != sure
    model.eval()
    assert clone.loss(batch(1), "en") == sure


# The original, and losses that are none


def test_the_original_is_not_adapted_and_the_optimiser_keeps_its_parameters():
    model = tiny_model(LORA)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    learner, before = PrimingLearner(model), model.state()
    for adapt in (
        lambda: learner.adapt(learner.loss(batch(1), "en")),
        lambda: learner.adapt_to([batch(1)], "en"),
        lambda: learner.adapt_to([], "en"),
    ):
        with pytest.raises(ConfigError, match="this learner is the original, which does not adapt; call clone"):
            adapt()
    assert [id(p) for p in model.parameters()] == [id(p) for p in optimizer.param_groups[0]["params"]]
    assert all(torch.equal(value, before[name]) for name, value in model.state().items())


def test_a_loss_of_others_is_refused():
    learner = PrimingLearner(tiny_model(LORA))
    clone, other = learner.clone("en"), learner.clone("en")
    first = clone.loss(batch(1), "en")
    clone.adapt(first)
    for loss in (other.loss(batch(1), "en"), learner.loss(batch(1), "en"), first):
        with pytest.raises(
            ModelError, match="this loss depends on none of the clone's present values; compute it with"
        ):
            clone.adapt(loss)


def test_what_is_no_loss_is_refused():
    clone = PrimingLearner(tiny_model(ADAPTER)).clone("en")
    with pytest.raises(ModelError, match=r"adapt takes a loss, which is a scalar; found a tensor of shape \(2, 5, 3\)"):
        clone.adapt(clone(batch(1), "en"))
    with pytest.raises(ModelError, match=r"adapt takes a loss, which is a scalar; found 0\.5"):
        clone.adapt(0.5)
    for around in (torch.no_grad, torch.inference_mode):
        with around():
            loss = clone.module.loss(batch(1), "en")
            with pytest.raises(ModelError, match="this loss was computed without a graph"):
                clone.adapt(loss)
            clone.adapt(clone.loss(batch(1), "en"))


@pytest.mark.parametrize(
    ("rate", "says"),
    [
        ([0.1, 0.2], r"must be a number; found \[0\.1, 0\.2\]"),
        ("0.1", "must be a number; found '0.1'"),
        (True, "must be a number; found True"),
        (torch.ones(2), "must be a number; found tensor"),
        (0, "must be positive; found 0"),
        (float("nan"), "must be positive; found nan"),
        (float("inf"), "must be finite; found inf"),
    ],
)
def test_wrong_rates(rate, says):
    with pytest.raises(ConfigError, match=f"inner_lr {says}"):
        PrimingLearner(tiny_model(ADAPTER), rate)


def test_a_rate_may_be_learned():
    rate = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    clone = PrimingLearner(tiny_model(ADAPTER), rate, first_order=False).clone("en")
    clone.adapt(clone.loss(batch(1), "en"))
    clone.loss(batch(2), "en").backward()
    assert rate.grad


def test_tasks_are_refused_by_a_module_without_tasks():
    module, partition = tied()
    learner = PrimingLearner(module, partition=partition)
    for call in (lambda: learner.clone("en"), lambda: learner.clone().loss(batch(1), "en")):
        with pytest.raises(
            ConfigError, match="a Tied has no tasks; call adapt with a loss for each step, and clone wi"
        ):
            call()


@pytest.mark.parametrize("first_order", [True, False])
def test_a_clone_whose_inner_loop_failed_is_refused(first_order):
    """It has released its graph, so that its query loss would give θ_a no meta-gradient."""
    learner = PrimingLearner(tiny_model(ADAPTER), INNER_LR, first_order=first_order)
    clone = learner.clone("en")
    with pytest.raises(DataError, match="a loss needs labels"):
        clone.adapt_to([batch(1), {"input_ids": batch(1)["input_ids"]}], "en")
    for again in (clone, clone.clone("en")):
        for call in (lambda one: one.loss(batch(1), "en"), lambda one: one.adapt_to([batch(1)], "en")):
            with pytest.raises(ModelError, match=r"an inner loop of this clone has failed .*; make a new clone"):
                call(again)
    learner.clone("en").adapt_to([batch(1)], "en")


def test_copies_of_changed_learners_are_of_the_changed_module():
    model = tiny_model(ADAPTER)
    learner = PrimingLearner(model, INNER_LR)
    made = copy.deepcopy(learner)
    made.shared.add_head("de", HEAD)
    learner.clone("en").adapt_to([batch(1)], "en")
    with pytest.raises(ModelError, match=r"heads\.task_de\.\S+ was added"):
        made.clone("en")
    assert isinstance(made.shared, PEModel)
