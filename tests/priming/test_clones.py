"""A clone holds values and no module: sharing, copies, threads, hooks, compiled graphs, and surrounding modes."""

import copy
import gc
import pickle
import threading
import weakref

import pytest
import torch
import torch._dynamo.testing
from learner_models import ADAPTER, INNER_LR, batch, tied, tiny_model
from tiny_models import each_method
from torch import nn

from pemeta import Full, LoRA, PrimingLearner
from pemeta.errors import ConfigError, ModelError
from pemeta.heads import TokenClassification

HEAD = TokenClassification(labels=("O", "B-PER", "I-PER"))


def adapted(model, steps=2, **settings):
    clone = PrimingLearner(model, INNER_LR, **settings).clone("en")
    for _ in range(steps):
        clone.adapt(clone.loss(batch(1), "en"))
    return clone


def values(clone):
    return {name: value.detach().clone() for name, value in clone.adapted_parameters().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def own_objects(module):
    return dict(module.named_parameters(remove_duplicate=False))


# The shared module


@each_method
def test_the_module_has_its_own_parameters_again_after_each_pass(method):
    model = tiny_model(method)
    before = own_objects(model)
    clone = adapted(model)
    clone.module.loss(batch(2), "en").backward()
    assert all(parameter is before[name] for name, parameter in own_objects(model).items())


def test_whatever_is_raised(monkeypatch):
    model = tiny_model(ADAPTER)
    before = own_objects(model)
    clone = adapted(model)
    monkeypatch.setattr(type(model), "loss", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        clone.loss(batch(1), "en")
    monkeypatch.undo()
    assert all(parameter is before[name] for name, parameter in own_objects(model).items())
    clone.loss(batch(1), "en")  # nothing is held on to


def test_a_tied_parameter_is_replaced_under_all_its_names():
    module, partition = tied()
    clone = PrimingLearner(module, INNER_LR, partition=partition).clone()
    clone.adapt(clone(torch.ones(2, 3).double()).square().mean())
    with clone.placed():
        assert module.low.weight is module.high.weight
        assert module.low.weight is clone.adapted_parameters()["low.weight"]
    assert isinstance(module.low.weight, nn.Parameter)


def test_clones_do_not_hold_modules():
    """As few objects as there are values: a clone is cheap whatever the size of the module."""
    model = tiny_model(LoRA(rank=2))
    learner = PrimingLearner(model, INNER_LR)
    learner.clone("en")
    gc.collect()
    before = {id(one) for one in gc.get_objects() if issubclass(type(one), nn.Module)}
    clone = learner.clone("en")
    made = [one for one in gc.get_objects() if issubclass(type(one), nn.Module) and id(one) not in before]
    assert made == [clone]


@pytest.mark.parametrize("first_order", [True, False])
def test_a_clone_is_freed_with_its_last_reference(first_order):
    """And its graph with it: a cycle would hold it until the garbage collector comes."""
    clone = adapted(tiny_model(ADAPTER), first_order=first_order)
    clone.module.loss(batch(2), "en").backward()
    gone = weakref.ref(clone)
    gc.disable()
    try:
        del clone
        assert gone() is None
    finally:
        gc.enable()


def test_hooks_see_every_pass():
    model = tiny_model(ADAPTER)
    seen = []
    model.backbone.register_forward_hook(lambda module, *_: seen.append(module))
    clone = adapted(model, steps=3)
    clone.module.loss(batch(2), "en")
    assert seen == [model.backbone] * 4


def test_a_head_that_was_replaced_since_is_refused():
    model = tiny_model(ADAPTER)
    learner = PrimingLearner(model)
    learner.clone("en")
    model.add_head("en", HEAD)
    with pytest.raises(ModelError, match=r"heads\.task_en\.\S+ was added or replaced after this learner was made"):
        learner.clone("en")
    model.add_head("de", HEAD)
    with pytest.raises(ModelError, match=r"heads\.task_de\.\S+ was added or replaced after this learner was made"):
        learner.clone("de")


def test_the_original_does_not_adapt():
    with pytest.raises(ConfigError, match="call clone"):
        PrimingLearner(tiny_model(ADAPTER)).adapted_parameters()


# The view


def test_a_view_sees_the_clones_values():
    model = tiny_model(ADAPTER)
    clone = adapted(model)
    of_clone = values(clone)
    name = "backbone.pemeta_adapter.up.weight"
    assert torch.equal(clone.module.backbone.pemeta_adapter.up.weight, of_clone[name])
    assert torch.equal(clone.module.state()[name], of_clone[name])
    assert torch.equal(dict(clone.module.named_parameters())[name], of_clone[name])
    assert torch.equal(dict(clone.named_parameters())[f"module.{name}"], of_clone[name])
    assert not torch.equal(model.get_parameter(name), of_clone[name])
    layers = clone.module.backbone.encoder.layer
    assert len(layers) == len(list(layers)) == len(model.backbone.encoder.layer)
    assert repr(layers[0]) == "View of BertLayer"
    view = clone.module
    assert view.eval() is view
    assert torch.equal(clone.module(batch(1), "en"), clone(batch(1), "en"))


def test_a_clone_passes_its_values_on():
    """What a learner does not have itself it takes from the module: with the clone's values too."""
    model = tiny_model(ADAPTER)
    clone = adapted(model)
    name, own = "backbone.pemeta_adapter.up.weight", model.state()
    expected = values(clone)[name]
    assert torch.equal(clone.state()[name], expected)
    assert torch.equal(clone.state_dict()[f"module.{name}"], expected)
    assert torch.equal(clone.backbone.pemeta_adapter.up.weight, expected)
    learner = PrimingLearner(model)
    assert torch.equal(learner.state_dict()[f"module.{name}"], own[name])
    assert learner.backbone is model.backbone
    with pytest.raises(AttributeError, match="'nothing'"):
        _ = clone.nothing


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_view_is_not_copied(copied):
    with pytest.raises(TypeError, match="copy or pickle the clone"):
        copied(adapted(tiny_model(ADAPTER)).module)


def test_a_view_cannot_be_written_to():
    clone = adapted(tiny_model(ADAPTER))
    with pytest.raises(AttributeError, match="set 'scale' on the original module"):
        clone.module.scale = 2


# Clones of clones, copies, pickles


@pytest.mark.parametrize("first_order", [True, False])
def test_a_clone_of_a_clone_goes_on_from_its_values(first_order):
    """Two steps by a clone and two by its clone are four steps by one, and the original gets the same gradients."""
    gradients, ends = [], []
    for again in (False, True):
        model = tiny_model(ADAPTER)
        clone = adapted(model, 2, first_order=first_order)
        halfway = values(clone)
        later = clone.clone("en") if again else clone
        for _ in range(2):
            later.adapt(later.loss(batch(1), "en"))
        later.loss(batch(2), "en").backward()
        assert equal(values(clone), halfway) == again
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        ends.append(values(later))
    theta_a = "backbone.pemeta_adapter.up.weight"
    assert equal(*ends)
    if first_order:  # in second order the head's values are where the second clone's graph begins
        assert equal(*gradients)
    assert theta_a in gradients[1]


def test_a_shallow_copy_has_values_of_its_own():
    model = tiny_model(ADAPTER)
    clone = adapted(model)
    before, other = values(clone), copy.copy(clone)
    assert equal(values(other), before)
    other.adapt(other.loss(batch(1), "en"))
    assert equal(values(clone), before)
    assert not equal(values(other), before)
    assert torch.equal(other.module(batch(1), "en"), other(batch(1), "en"))
    original = copy.copy(PrimingLearner(model, INNER_LR))
    assert original.module is model


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda clone: pickle.loads(pickle.dumps(clone))])
def test_a_deep_copy_is_a_learner_of_its_own(copied):
    model = tiny_model(ADAPTER)
    clone = adapted(model)
    made = copied(clone)
    assert type(made) is PrimingLearner
    assert made.inner_lr == clone.inner_lr
    found = {name: parameter.detach() for name, parameter in made.module.named_parameters()}
    assert all(torch.equal(found[name], value) for name, value in values(clone).items())
    assert not {id(p) for p in made.module.parameters()} & {id(p) for p in model.parameters()}
    assert torch.equal(made.loss(batch(2), "en"), clone.loss(batch(2), "en"))
    own = made.clone("en")
    own.adapt(own.loss(batch(1), "en"))
    clone.adapt(clone.loss(batch(1), "en"))
    assert equal(values(own), values(clone))


def test_an_original_that_is_copied_with_its_module_stays_on_it():
    learner = PrimingLearner(tiny_model(ADAPTER))
    made, model = copy.deepcopy((learner, learner.module))
    assert made.module is model
    clone, model = copy.deepcopy((adapted(learner.module), learner.module))
    assert clone.module is not model  # they have different values
    assert equal(model.state(), learner.module.state())


def test_a_deep_copy_keeps_ties():
    module, partition = tied()
    clone = PrimingLearner(module, INNER_LR, partition=partition).clone()
    made = copy.deepcopy(clone)
    assert made.module.low.weight is made.module.high.weight
    assert made.module.two.weight is made.module.one.weight


# Threads


def test_two_clones_cannot_compute_at_once():
    model = tiny_model(ADAPTER)
    learner = PrimingLearner(model, INNER_LR)
    one, other = learner.clone("en"), learner.clone("en")
    with one.placed():
        with one.placed():  # the same one may
            one.loss(batch(1), "en")
        for refused in (other, learner):
            with pytest.raises(ModelError, match="another clone is computing with the module that they share"):
                refused.loss(batch(1), "en")
    other.loss(batch(1), "en")


def test_no_clone_is_made_while_another_computes():
    """It would start from the other's values."""
    learner = PrimingLearner(tiny_model(ADAPTER), INNER_LR)
    one, other = adapted(learner.module), learner.clone("en")
    with one.placed():
        for refused in (learner, other):
            with pytest.raises(ModelError, match="another clone is computing"):
                refused.clone("en")
        assert equal(values(one.clone("en")), values(one))
    learner.clone("en")


def test_a_block_of_several_passes_computes_with_the_values_of_each():
    clone, other = (PrimingLearner(tiny_model(ADAPTER), INNER_LR).clone("en") for _ in range(2))
    before = own_objects(clone.shared)
    with clone.placed():
        for _ in range(3):
            clone.adapt(clone.loss(batch(1), "en"))
        loss = clone.loss(batch(2), "en")
    for _ in range(3):
        other.adapt(other.loss(batch(1), "en"))
    assert torch.equal(loss, other.loss(batch(2), "en"))
    assert all(parameter is before[name] for name, parameter in own_objects(clone.shared).items())


def test_nothing_else_computes_between_the_steps_of_an_inner_loop(monkeypatch):
    """θ_p is constant there, so that another thread's query pass would give it no gradient."""
    learner = PrimingLearner(tiny_model(ADAPTER), INNER_LR)
    clone, other = learner.clone("en"), learner.clone("en")
    refused, original = [], PrimingLearner._step

    def compute():
        with pytest.raises(ModelError, match="another clone is computing"):
            other.loss(batch(2), "en")
        refused.append(True)

    def step(self, loss):
        original(self, loss)
        thread = threading.Thread(target=compute)
        thread.start()
        thread.join()

    monkeypatch.setattr(PrimingLearner, "_step", step)
    clone.adapt_to([batch(1)] * 2, "en")
    assert refused == [True, True]


def test_a_place_that_is_gone_does_not_lock_the_module():
    model = tiny_model(ADAPTER)
    clone = adapted(model)
    parameters = model.backbone.pemeta_adapter.up._parameters
    weight = parameters.pop("weight")
    with pytest.raises(ModelError, match=r"up\.weight was removed after this learner was made"):
        clone.loss(batch(1), "en")
    parameters["weight"] = weight
    clone.loss(batch(1), "en")


def test_threads_are_refused_and_not_mixed_up():
    model = tiny_model(ADAPTER)
    clone = PrimingLearner(model, INNER_LR).clone("en")
    errors = []

    def compute():
        try:
            clone.loss(batch(1), "en")
        except ModelError as error:
            errors.append(error)

    with clone.placed():
        thread = threading.Thread(target=compute)
        thread.start()
        thread.join()
    assert len(errors) == 1
    thread = threading.Thread(target=compute)
    thread.start()
    thread.join()
    assert len(errors) == 1


# What surrounds it


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("first_order", [True, False])
def test_adapting_under_an_ambient_mode(around, first_order):
    """Also with batches that were made in inference mode."""
    expected = values(adapted(tiny_model(ADAPTER), first_order=first_order))
    with around():
        model = PrimingLearner(tiny_model_outside(), INNER_LR, first_order=first_order)
        clone = model.clone("en")
        for _ in range(2):
            clone.adapt(clone.loss(batch(1), "en"))
        again = PrimingLearner(tiny_model_outside(), INNER_LR, first_order=first_order).clone("en")
        again.adapt_to([batch(1)] * 2, "en")
    assert equal(values(clone), expected)
    assert all(torch.allclose(value, expected[name], atol=1e-12) for name, value in values(again).items())


def tiny_model_outside():
    """A model whose parameters are no inference tensors, wherever it is made."""
    with torch.inference_mode(False), torch.enable_grad():
        return tiny_model(ADAPTER)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch._dynamo looks at it
@pytest.mark.parametrize("method", [LoRA(rank=2), Full()])
def test_a_compiled_backbone_is_not_compiled_again_for_each_clone(method):
    """One graph for the original's parameters and one for clones' values, whatever the number of tasks and steps."""
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    plain, model = tiny_model(method), tiny_model(method)
    model.backbone.compile(backend=counter)
    data = {name: {**batch(seed)} for name, seed in (("en", 1), ("es", 2))}

    def run():
        learner = PrimingLearner(model, INNER_LR)
        found = []
        for task in ("en", "es"):
            clone = learner.clone(task)
            for _ in range(3):
                clone.adapt(clone.loss(data[task], task))
            found.append(values(clone))
        return found

    first = run()
    compiled = counter.frame_count
    assert 0 < compiled <= 3
    for _ in range(3):
        again = run()
    assert counter.frame_count == compiled
    assert all(equal(one, other) for one, other in zip(first, again, strict=True))
    clone = PrimingLearner(plain, INNER_LR).clone("en")
    for _ in range(3):
        clone.adapt(clone.loss(data["en"], "en"))
    expected = values(clone)
    assert all(torch.allclose(value, expected[name], atol=1e-10) for name, value in first[0].items())
