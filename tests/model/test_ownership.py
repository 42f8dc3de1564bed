"""A backbone has one model: two would compute with each other's methods, and save what cannot be loaded."""

import copy
import pickle

import pytest
import torch
from tiny_models import ADAPTER, METHODS, TASKS, each_method, tiny, with_heads

from pemeta import Adapter, BitFit, Compose, HeadOnly, LoRA, PEMethod, PEModel
from pemeta.errors import ConfigError, ModelError

HOULSBY = Adapter(bottleneck=4, placement="houlsby", init_std=0.3)
OTHERS = "is the backbone of another PEModel, with its method .* attach further methods to that model with attach"


@pytest.fixture(scope="module")
def words():
    return TASKS[0].train.batch(range(3))


@each_method
def test_a_second_model_is_refused_and_the_first_is_left_as_it_was(method, words):
    first = with_heads(tiny(method)).eval()
    expected, names = first(words, "en"), list(first.state())
    for second in (LoRA(rank=2), HeadOnly(), method):
        with pytest.raises(ModelError, match=OTHERS):
            PEModel(first.backbone, second)
    assert torch.equal(first(words, "en"), expected)
    assert list(first.state()) == names


@each_method
def test_a_backbone_is_free_again_when_its_model_is_gone_or_has_detached(method, words):
    plain = tiny(HeadOnly()).backbone.eval()
    inputs = {key: value for key, value in words.items() if key != "labels"}
    expected = plain(**inputs).last_hidden_state
    for how in ("gone", "detached"):
        first = tiny(method)
        backbone = first.backbone.eval()
        if how == "gone":
            del first
        else:
            first.detach(method)
        second = PEModel(backbone, LoRA(rank=2))
        assert torch.equal(backbone(**inputs).last_hidden_state, expected)  # LoRA begins with zero
        added = {name for name, _ in backbone.named_parameters()} - {name for name, _ in plain.named_parameters()}
        assert added == {name.removeprefix("backbone.") for name in second.partition().theta_a}
        if how == "detached":
            with pytest.raises(ModelError, match=OTHERS):
                first.attach(method)
            second.detach(LoRA(rank=2))
            first.attach(method)
            with pytest.raises(ModelError, match=OTHERS):
                second.attach(LoRA(rank=2))


def test_a_model_without_methods_does_not_compute_with_those_of_another(words):
    first = with_heads(tiny(LoRA(rank=2))).eval()
    first.detach(LoRA(rank=2))
    expected = first(words, "en")
    second = with_heads(PEModel(first.backbone, HOULSBY))
    for one in (first.loss, first):
        with pytest.raises(ModelError, match="computes with another PEModel's method adapter, which was att"):
            one(words, "en")
    second.detach(HOULSBY)
    assert torch.equal(first(words, "en"), expected)
    first.attach(LoRA(rank=2))
    assert torch.equal(first(words, "en"), expected)


class Failing(LoRA):
    """A method of a user that fails when it is half attached."""

    def attach(self, backbone):
        super().attach(backbone)
        raise RuntimeError("no idea")


@pytest.mark.parametrize(
    ("method", "says"),
    [
        (Failing(), "no idea"),
        (Compose(methods=(LoRA(), Adapter(bottleneck=2**40))), "not enough memory for its parameters"),
        (Compose(methods=(LoRA(), Adapter(bottleneck=2**62))), "not enough memory for its parameters"),
    ],
)
def test_what_could_not_be_attached_leaves_nothing(method, says, words):
    plain = tiny(HeadOnly()).backbone.eval()
    inputs = {key: value for key, value in words.items() if key != "labels"}
    expected, names = plain(**inputs).last_hidden_state, [name for name, _ in plain.named_parameters()]
    with pytest.raises((RuntimeError, ModelError), match=says):
        PEModel(plain, method)
    assert torch.equal(plain(**inputs).last_hidden_state, expected)
    assert [name for name, _ in plain.named_parameters()] == names
    PEModel(plain, LoRA())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_have_backbones_of_their_own(copied, words):
    first = with_heads(tiny(LoRA(rank=2))).eval()
    second = copied(first)
    second.attach(ADAPTER)
    second.detach(LoRA(rank=2))
    first.attach(BitFit())
    assert torch.equal(first(words, "en"), tiny_again(LoRA(rank=2))(words, "en"))
    for one in (first, second):
        with pytest.raises(ModelError, match=OTHERS):
            PEModel(one.backbone, HeadOnly())


def tiny_again(method):
    return with_heads(tiny(method)).eval()


@pytest.mark.parametrize("method", [one for one, _ in METHODS.values() if one.adds_modules], ids=lambda one: one.name)
def test_a_copied_backbone_with_modules_of_a_method_is_refused_and_the_remedy_works(method, words):
    first = tiny(method)
    made = copy.deepcopy(first.backbone).eval()
    with pytest.raises(ModelError, match=r"has a method attached already \(.*\), .*; detach it with the method's det"):
        PEModel(made, HeadOnly())
    method.detach(made)
    model = PEModel(made, HOULSBY)
    assert not {"pemeta" in name for name in model.partition().theta_p} - {False}


def test_a_method_that_was_attached_by_hand_is_refused():
    backbone = copy.deepcopy(tiny(HeadOnly()).backbone)
    LoRA(rank=2).attach(backbone)
    with pytest.raises(ModelError, match=r"has a method attached already \(.*pemeta_lora\)"):
        PEModel(backbone, ADAPTER)


def test_what_a_second_model_saves_is_loaded(tmp_path, words):
    """The case: θ_p of the second had the first one's modules, and its folder was refused as changed."""
    first = tiny()
    backbone = first.backbone
    del first
    second = with_heads(PEModel(backbone, LoRA(rank=2))).eval()
    second.save_pretrained(tmp_path / "model")
    second.save_task(tmp_path / "task", "en")
    loaded = PEModel.from_pretrained(tmp_path / "model", attention="eager").eval()
    loaded.load_task(tmp_path / "task")
    assert torch.equal(loaded(words, "en"), second(words, "en"))


def test_methods_are_what_a_configuration_may_hold():
    model = tiny("bitfit")
    assert model.method == BitFit()
    model.attach({"name": "lora", "rank": 2})
    assert model.attached == (BitFit(), LoRA(rank=2))
    with pytest.raises(ConfigError, match="unknown PE method 'lorra'; did you mean 'lora'"):
        tiny("lorra")
    with pytest.raises(ConfigError, match=r"expected a PE method: a name, or a mapping .* found <class"):
        tiny(PEMethod)
