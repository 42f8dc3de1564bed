"""Backbones whose parameters are in half precision: θ_a and heads are in float32, and outputs near float32's."""

import copy

import pytest
import torch
from architectures import ARCHITECTURES, batch
from half_models import HALF, half_model, in_float32
from safetensors import safe_open
from tiny_models import METHODS, TASKS, tiny, with_heads
from torch import nn
from transformers import AutoModel

from pemeta import PEModel, Prefix, TaskModel, to_transformers
from pemeta.errors import ModelError
from pemeta.heads import CausalLM, TokenClassification
from pemeta.methods import BitFit, LoRA, Peft
from pemeta.training.optimizer import LossScale

each_dtype = pytest.mark.parametrize("dtype", HALF, ids=["bf16", "fp16"])
NEAR = {torch.bfloat16: 0.05, torch.float16: 0.01}


def added(model):
    """Types of what methods and heads have added, and of the rest."""
    names = [name for name, _ in model.named_parameters()]
    own = {name for name in names if name.startswith("heads.") or ".pemeta_" in name}
    return ({model.get_parameter(n).dtype for n in names if (n in own) is which} for which in (True, False))


@each_dtype
@pytest.mark.parametrize("name", METHODS)
def test_what_is_added_is_in_float32_and_outputs_are_near(name, dtype):
    model = half_model(METHODS[name][0], dtype=dtype)
    own, rest = added(model)
    assert (own, rest) == ({torch.float32}, {dtype})
    other, data = in_float32(model), batch("bert", 3)
    assert {p.dtype for p in other.parameters()} == {torch.float32}
    logits, expected = model(data, "en"), other(data, "en")
    assert logits.dtype == model.loss(data, "en").dtype == torch.float32
    assert not torch.equal(logits, expected)
    assert (logits - expected).norm() < NEAR[dtype] * expected.norm()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_backbone_in_half_precision_stays_what_it_is(architecture):
    """Only what is after it differs by more than rounding: methods act in float32, and round what they change."""
    model = half_model(LoRA(rank=2), architecture)
    hidden = model.hidden_states(batch(architecture))
    assert hidden.dtype == torch.bfloat16
    expected = in_float32(model).hidden_states(batch(architecture))
    assert (hidden.float() - expected).norm() < 0.06 * expected.norm()


@pytest.mark.parametrize("convert", [nn.Module.bfloat16, nn.Module.half, lambda model: model.to(torch.bfloat16)])
@pytest.mark.parametrize("name", ["adapter", "lora", "ia3", "prompt", "peft"])
def test_converting_a_model_leaves_what_is_added_in_float32(name, convert):
    model = with_heads(tiny(METHODS[name][0]).float()).eval()
    before, logits = model.state(model.partition().theta_a), model(TASKS[0].train.batch([0, 1]), "en")
    convert(model)
    assert {torch.float32} == next(added(model))
    assert all(torch.equal(value, model.state((key,))[key]) for key, value in before.items())
    assert (model(TASKS[0].train.batch([0, 1]), "en") - logits).norm() < 0.1 * logits.norm()


@pytest.mark.parametrize("name", ["adapter", "lora", "ia3"])
def test_a_backbone_that_is_converted_with_its_method_computes(name):
    """As ``model.backbone`` is a module of its own."""
    model = half_model(METHODS[name][0])
    expected = model(batch("bert"), "en")
    model.backbone.to(torch.bfloat16)
    assert (model(batch("bert"), "en") - expected).norm() < 0.05 * expected.norm()


def test_heads_that_come_later_are_in_float32_too():
    model = half_model(LoRA(rank=2))
    model.add_head("de", TokenClassification(labels=("O", "B-X", "I-X")))
    model.attach(Prefix(length=2))
    assert {torch.float32} == next(added(model))


@pytest.mark.parametrize("output", ["tied", "own"])
def test_a_language_model(output):
    model = half_model(LoRA(rank=2), "gpt2")
    model.add_head("lm", CausalLM(vocab_size=30, output=output))
    data = {**batch("gpt2"), "labels": batch("gpt2")["input_ids"]}
    logits, expected = model(data, "lm"), in_float32(model)(data, "lm")
    assert logits.dtype == torch.float32
    assert (logits - expected).norm() < 0.05 * expected.norm()
    model.loss(data, "lm").backward()
    assert model.get_parameter("backbone.wte.weight").grad.dtype == torch.bfloat16


def test_float_inputs_are_given_in_the_backbone_s_type():
    model = half_model(LoRA(rank=2), "vit")
    data = batch("vit")
    assert data["pixel_values"].dtype == torch.float64
    assert torch.equal(model(data, "en"), model({**data, "pixel_values": data["pixel_values"].bfloat16()}, "en"))


def test_losses_are_scaled_for_parameters_in_float16():
    model = tiny().float()
    assert LossScale.suited_to(model.compute_dtype).value == 1
    assert LossScale.suited_to(model.half().compute_dtype).value == 2**16
    model.float().autocast_dtype = torch.float16
    assert LossScale.suited_to(model.compute_dtype).value == 2**16


@pytest.mark.parametrize("name", ["adapter", "lora", "bitfit", "prefix"])
def test_a_saved_model_keeps_its_types(tmp_path, name):
    model = half_model(METHODS[name][0])
    model.save_pretrained(tmp_path)
    model.save_task(tmp_path / "tasks" / "en", "en")
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert {str(file.get_slice(key).get_dtype()) for key in file.keys()} == {"BF16"}  # noqa: SIM118
    plain = AutoModel.from_pretrained(tmp_path)
    assert {p.dtype for p in plain.parameters()} == {torch.bfloat16}

    for dtype in (None, torch.float32):
        loaded = PEModel.from_pretrained(tmp_path, attention="eager", dtype=dtype).eval()
        loaded.load_task(tmp_path / "tasks" / "en")
        assert next(loaded.backbone.parameters()).dtype == (dtype or torch.bfloat16)
        assert {torch.float32} == next(added(loaded))
        expected = (model if dtype is None else in_float32(model))(batch("bert"), "en")
        assert torch.equal(loaded(batch("bert"), "en"), expected)


def test_a_model_saved_in_float32_is_loaded_in_half_precision_with_theta_a_as_it_is(tmp_path):
    model = in_float32(half_model(LoRA(rank=2)))
    model.save_pretrained(tmp_path)
    loaded = PEModel.from_pretrained(tmp_path, attention="eager", dtype=torch.bfloat16)
    own, rest = added(loaded)
    assert (own, rest) == ({torch.float32}, {torch.bfloat16})
    assert all(torch.equal(loaded.get_parameter(n), model.get_parameter(n)) for n in model.partition().theta_a)


def test_under_autocast_nothing_is_cast_here():
    """What a method changes stays in the type that it had before there was half precision."""
    seen = []
    model = with_heads(tiny(METHODS["ia3"][0]).float()).eval()
    part = next(METHODS["ia3"][0].parts(model.backbone))
    part.register_forward_hook(lambda module, arguments, output: seen.append(output.dtype))
    model.autocast_dtype = torch.bfloat16
    model(TASKS[0].train.batch([0]), "en")
    assert seen == [torch.float32]  # a float32 factor times a bfloat16 output


TUNERS = [
    {"peft_type": "LORA", "use_dora": True, "r": 2, "target_modules": ["query"]},
    {"peft_type": "VERA", "r": 2, "target_modules": ["attention.output.dense"]},
    {"peft_type": "OFT", "oft_block_size": 2, "target_modules": ["query"]},
    {"peft_type": "LOHA", "r": 2, "target_modules": ["query"]},
    {"peft_type": "LOKR", "r": 2, "target_modules": ["query"]},
    {"peft_type": "IA3"},
]


@pytest.mark.parametrize("config", TUNERS, ids=lambda config: config["peft_type"])
def test_tuners_of_the_peft_package_are_in_float32(config):
    model = half_model(Peft(config=config))
    assert {torch.float32} == next(added(model))
    data = batch("bert")
    logits, expected = model(data, "en"), copy.deepcopy(model).float()(data, "en")
    assert (logits - expected).norm() < 0.05 * expected.norm()
    model.loss(data, "en").backward()
    assert all(model.get_parameter(name).grad is not None for name in model.partition().theta_a)


def test_an_exported_model_is_in_the_backbone_s_type(tmp_path):
    model = half_model(LoRA(rank=2))
    exported = to_transformers(model, "en")
    assert {p.dtype for p in exported.parameters()} == {torch.bfloat16}
    data = batch("bert")
    logits = exported(input_ids=data["input_ids"], attention_mask=data["attention_mask"]).logits
    assert (logits - model(data, "en"))[data["attention_mask"] == 1].abs().max() < 0.1


def test_the_trainer_of_transformers_is_refused_a_theta_a_that_it_would_not_move():
    with pytest.raises(ModelError, match=r"bias is a part of θ_a in bfloat16, .*; load the backbone in float32"):
        TaskModel(half_model(BitFit()), "en")
    TaskModel(half_model(BitFit()).float(), "en")
    TaskModel(half_model(LoRA(rank=2)), "en")
