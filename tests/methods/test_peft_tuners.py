"""Every tuner of the installed peft: its gradients are those of finite differences, it is refused, or it is named."""

import copy
import re

import pytest
import torch
import transformers as t
from architectures import backbone, batch
from tiny_models import TASKS, shaken

from pemeta import FineTuning, MetaPriming, Peft, PEModel, PrimingLearner, finetune, prime
from pemeta.errors import ConfigError, ModelError
from pemeta.heads import TokenClassification
from pemeta.methods.base import is_added

mapping = pytest.importorskip("peft.mapping")
BaseTuner = pytest.importorskip("peft.tuners.tuners_utils").BaseTuner
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of peft itself
HEAD = TokenClassification(labels=("O", "B-PER", "I-PER"))
TUNERS = sorted(str(kind.value) for kind in mapping.PEFT_TYPE_TO_TUNER_MAPPING)
INSERTING = {k.value for k, tuner in mapping.PEFT_TYPE_TO_TUNER_MAPPING.items() if issubclass(tuner, BaseTuner)}
NORMS = {"target_modules": ["output.LayerNorm"]}
# What a tuner needs to fit a map from 8 features to 8; all others do with the module's name.
NEEDS = {
    "ADALORA": {"r": 2, "total_step": 10},
    "C3A": {"block_size": 4},
    "FOURIERFT": {"n_frequency": 10},
    "WAVEFT": {"n_frequency": 8},
    "LN_TUNING": NORMS,
    "LORA": {"r": 2},
    "OFT": {"oft_block_size": 2},
    "BOFT": {"boft_block_size": 2},
    "HRA": {"r": 2},
    "SHIRA": {"r": 1},
    "MISS": {"r": 2},
    "PSOFT": {"r": 2},
    "ROAD": {"group_size": 2},
    "SUPERTUNING": {"sparsity": 0.5},
    "VBLORA": {"vector_length": 4, "num_vectors": 8, "topk": 2},
    "TRAINABLE_TOKENS": {"target_modules": ["word_embeddings"], "token_indices": [3, 4, 5]},
}


def method(kind, **more):
    return Peft(config={"peft_type": kind, "target_modules": ["query"], **NEEDS.get(kind, {}), **more})


def attached(kind, **more):
    model = PEModel(backbone("bert").to(torch.float32 if kind == "PSOFT" else None), method(kind, **more)).double()
    model.add_head("en", HEAD)
    return shaken(model)


def agrees(model, names):
    """Whether autograd's derivative of the loss along a random direction is that of finite differences."""
    parameters, data = [model.get_parameter(name) for name in names], batch("bert")
    model.zero_grad()
    model.loss(data, "en").backward()
    generator = torch.Generator().manual_seed(3)
    along = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    exact = sum(float((p.grad * d).sum()) for p, d in zip(parameters, along, strict=True) if p.grad is not None)
    before = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def loss(step):
        for parameter, value, direction in zip(parameters, before, along, strict=True):
            parameter.copy_(value + step * direction)
        found = float(model.loss(data, "en"))
        for parameter, value in zip(parameters, before, strict=True):
            parameter.copy_(value)
        return found

    # Some tuners compute in float32, where a small step drowns in rounding.
    return any(
        abs((loss(step) - loss(-step)) / (2 * step) - exact) <= accuracy * abs(exact) + 1e-9
        for step, accuracy in ((1e-5, 1e-4), (1e-4, 1e-3), (1e-3, 1e-2), (1e-2, 3e-2))
    )


# Why the others cannot be used, by the rule that finds it.
REFUSED = {
    "HRA": "gives the backbone's own weight no gradient",
    "SHIRA": "gives the backbone's own weight no gradient",
    "FROD": "computes without the backbone's own weight",
    "LN_TUNING": "computes without the backbone's own weight",
    "POLY": "fails in a pass",
    "SHADOW": "outside of the backbone",
    "OSF": "changes the gradient of .* by a hook",
    "C3A": "passes on a gradient that is not of finite differences",
    **dict.fromkeys(("ADAMSS", "DELORA", "PSOFT", "SUPERTUNING", "TINYLORA"), "keeps values beside its parameters"),
    "XLORA": "peft cannot be attached|unknown key of XLORA 'target_modules'",
    # These insert no layers.
    **dict.fromkeys(set(TUNERS) - INSERTING, "puts no layers into a backbone"),
}


@pytest.mark.parametrize("kind", [kind for kind in TUNERS if kind in REFUSED])
def test_what_is_not_right_is_refused_in_a_sentence(kind):
    with pytest.raises((ConfigError, ModelError), match=REFUSED[kind]) as error:
        attached(kind)
    assert "\n" not in str(error.value)
    remedies = "use another tuner|change the method's config|use .*LORA|Known: |rejects"
    assert re.search(remedies, str(error.value))


@pytest.mark.parametrize("kind", [kind for kind in TUNERS if kind not in REFUSED])
def test_the_gradients_of_every_other_tuner_are_those_of_finite_differences(kind):
    model = attached(kind)
    parts = model.partition()
    own = [name for name in parts.theta_p if "base_layer" in name]
    assert parts.theta_a
    assert not any(map(is_added, parts.theta_p))
    for names in (parts.theta_a, parts.theta_p, *([name] for name in own)):
        assert agrees(model, names), names
    assert all(model.get_parameter(name).grad is not None for name in (*parts.theta_a, *parts.theta_p))


@pytest.mark.long
@pytest.mark.parametrize("kind", [kind for kind in TUNERS if kind not in REFUSED])
def test_every_other_tuner_computes_the_same_after_priming_saving_and_loading(kind, tmp_path):
    model = PEModel(backbone("bert").float(), method(kind), seed=5)
    model.add_head("en", HEAD)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.save_pretrained(tmp_path / "model")
    model.save_task(tmp_path / "model" / "tasks" / "en", "en")
    again = PEModel.from_pretrained(tmp_path / "model", attention="eager")
    again.load_task(tmp_path / "model" / "tasks" / "en")
    torch.testing.assert_close(again.eval()(batch("bert"), "en"), model.eval()(batch("bert"), "en"), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["HRA", "FROD"])
def test_of_a_large_layer_only_the_graph_is_tried(kind, monkeypatch):
    monkeypatch.setattr("pemeta.methods.peft_probe.LARGEST", 0)
    attached("LORA")
    with pytest.raises(ModelError, match="gives the backbone's own weight no gradient"):
        attached(kind)


def test_tokens_have_to_be_chosen():
    with pytest.raises(ModelError, match=r"the tuner TRAINABLE_TOKENS cannot be primed: embeddings.* fails in a pass"):
        attached("TRAINABLE_TOKENS", token_indices=[])


def structure(module):
    """Names of parts and parameters in their order, flags, hooks, and what the module itself has as attributes."""
    parts = [
        (n, type(p), p.training, len(p._forward_hooks), len(p._forward_pre_hooks)) for n, p in module.named_modules()
    ]
    flags = [(name, p.requires_grad, id(p)) for name, p in module.named_parameters(remove_duplicate=False)]
    return parts, flags, [name for name, _ in module.named_buffers()], set(vars(module)), module.config.to_dict()


@pytest.mark.parametrize("kind", TUNERS)
def test_a_backbone_is_as_before_when_a_tuner_is_refused_or_detached(kind):
    plain = backbone("bert").train()
    plain.embeddings.LayerNorm.requires_grad_(False)
    before, values = structure(plain), copy.deepcopy(plain.state_dict())
    torch.manual_seed(0)
    random = torch.get_rng_state()
    if kind in REFUSED:
        with pytest.raises((ConfigError, ModelError)):  # in float64, PSOFT fails before its reason is found
            PEModel(plain, method(kind))
    else:
        model = PEModel(plain, method(kind))
        model.detach(model.method)
    assert structure(plain) == before
    assert all(torch.equal(value, values[name]) for name, value in plain.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("kind", ["HRA", "SHIRA", "FROD", "LN_TUNING", "DELORA"])
def test_a_frozen_backbone_takes_a_tuner_that_is_wrong_only_for_theta_p(kind):
    """The remedy that the message has."""
    frozen = backbone("bert").float().requires_grad_(False)
    model = PEModel(frozen, method(kind))
    before = model.state()
    algorithm = MetaPriming(outer_steps=2, outer_lr=0.01, primes=("theta_a",), support_size=3, query_size=3)
    prime(model, TASKS, algorithm, progress=False)
    finetune(model, TASKS[0], TASKS[1].train, FineTuning(epochs=1, lr=0.01), progress=False)
    moved = {name for name in before if not torch.equal(model.state()[name], before[name])}
    assert moved == {*model.partition().theta_a}


def test_a_gradient_that_is_not_of_finite_differences_by_design_is_named(capsys, monkeypatch):
    monkeypatch.setattr("pemeta.utils.messages._said", set())
    attached("LORA", use_dora=True)
    assert "the tuner LORA treats a part of what it computes as constant" in capsys.readouterr().err
    attached("LORA")
    assert capsys.readouterr().err == ""


def test_of_several_processes_only_the_first_says_so(capsys, monkeypatch):
    monkeypatch.setattr("pemeta.utils.messages._said", set())
    monkeypatch.setattr("pemeta.utils.distributed.Processes.first", False)
    attached("LORA", use_dora=True)
    assert "the tuner LORA" not in capsys.readouterr().err


EXPERTS = {
    "qwen3 moe": (t.Qwen3MoeConfig, t.Qwen3MoeModel, {"moe_intermediate_size": 6, "num_experts": 4, "head_dim": 4}),
    "mixtral": (t.MixtralConfig, t.MixtralModel, {"num_local_experts": 4}),
}


def experts(kind):
    config_class, model_class, fields = EXPERTS[kind]
    shape = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
    torch.manual_seed(0)
    config = config_class(**shape, **fields, vocab_size=30, num_key_value_heads=1, num_experts_per_tok=2)
    config._experts_implementation = "eager"
    return model_class(config).double().eval()


@pytest.mark.parametrize("kind", EXPERTS)
def test_layers_around_fused_experts(kind, tmp_path):
    """PEFT nests one around another: what is computed, saved, loaded and left after detaching."""
    plain = experts(kind)
    before, data = structure(plain), {"input_ids": torch.arange(3, 15).view(2, 6)}
    expected = plain(**data).last_hidden_state
    model = PEModel(plain, Peft(config={"peft_type": "LORA", "r": 2, "target_modules": "all-linear"}))
    model.add_head("en", HEAD)
    shaken(model)
    assert any("experts.base_layer.base_layer" in name for name, _ in model.named_parameters())
    order = [name for name, _ in model.named_parameters()]
    clone = PrimingLearner(model, 0.1).clone("en")
    labels = {"labels": torch.zeros(2, 6, dtype=torch.long)}
    for _ in range(2):
        clone.adapt(clone.loss(data | labels, "en"))
    clone.loss(data | labels, "en").backward()
    assert [name for name, _ in model.named_parameters()] == order
    assert all(model.get_parameter(name).grad is not None for name in model.partition().theta_p)
    tuned = model(data, "en")
    model.save_pretrained(tmp_path / "model")
    model.save_task(tmp_path / "model" / "tasks" / "en", "en")
    again = PEModel.from_pretrained(tmp_path / "model", attention="eager")
    again.backbone.config._experts_implementation = "eager"
    again.load_task(tmp_path / "model" / "tasks" / "en")
    torch.testing.assert_close(again.eval()(data, "en"), tuned, rtol=0, atol=1e-6)
    model.detach(model.method)
    assert structure(plain) == before
    assert torch.equal(plain(**data).last_hidden_state, expected)
