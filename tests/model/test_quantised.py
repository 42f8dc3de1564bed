"""θ_a-only priming and fine-tuning on a quantised base: θ_p is left as it is, and nothing tries to move or write it."""

import importlib.util
import warnings

import pytest
import torch
from architectures import backbone
from interrupted_runs import interrupt_at
from tiny_tasks import VOCABULARY, blocks
from torch import nn
from torch.nn import functional as F
from torch.testing._internal.two_tensor import TwoTensor
from transformers import LlamaConfig, LlamaModel

from pemeta import Adapter, FineTuning, Full, LoRA, MetaPriming, PEModel, Task, finetune, prime, save_peft
from pemeta.errors import ModelError
from pemeta.model.digests import theta_p_digest

TEXT = Task.causal_lm("text", blocks(3))
PRIMING = MetaPriming(outer_steps=3, inner_steps=2, support_size=3, query_size=3, primes=("theta_a",))


class Int8Linear(nn.Linear):
    """A linear map with weights of 8 bits and a scale for each output, as packages for quantisation have it."""

    def __init__(self, linear):
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        scale = linear.weight.detach().abs().amax(1, keepdim=True) / 127
        codes = (linear.weight.detach() / scale).round().to(torch.int8)
        self.weight = nn.Parameter(codes, requires_grad=False)
        self.register_buffer("scale", scale)

    def forward(self, x):
        return F.linear(x, self.weight.to(x.dtype) * self.scale)


class Packed(nn.Module):
    """A linear map with its values in buffers, as GPTQ's and AWQ's."""

    def __init__(self, linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        made = Int8Linear(linear)
        self.register_buffer("qweight", made.weight.detach())
        self.register_buffer("scales", made.scale)

    def forward(self, x):
        return F.linear(x, self.qweight.to(x.dtype) * self.scales)


def plain():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=32,
        tie_word_embeddings=True,
    )
    return LlamaModel(config)


def replaced(make):
    model = plain()
    for name, part in list(model.named_modules()):
        if type(part) is nn.Linear:
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, make(part))
    if make is Packed:
        model.config.quantization_config = {"quant_method": "gptq", "bits": 8}
    return model


def by_torchao():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        model = plain()
        quantize_(model, Int8WeightOnlyConfig())
    return model


BASES = {"parameters": lambda: replaced(Int8Linear), "buffers": lambda: replaced(Packed), "torchao": by_torchao}


def on(base):
    """With a method that the base takes: LoRA is for linear maps, which those with values in buffers are not."""
    return PEModel(BASES[base](), Adapter(bottleneck=4) if base == "buffers" else LoRA(rank=2))


needs_torchao = pytest.mark.skipif(not importlib.util.find_spec("torchao"), reason="torchao is not installed")
each_base = pytest.mark.parametrize("base", ["parameters", "buffers", pytest.param("torchao", marks=needs_torchao)])


@each_base
def test_theta_a_is_primed_and_tuned_and_theta_p_is_not(base):
    model = on(base)
    before, start = theta_p_digest(model), model.state(model.partition().theta_a)
    history = prime(model, [TEXT], PRIMING, progress=False)
    primed = model.state(model.partition().theta_a)
    assert any(not torch.equal(primed[name], value) for name, value in start.items())
    assert all(step.outer > 0 for step in history.losses)
    tuned = finetune(model, TEXT, blocks(4), FineTuning(epochs=4, lr=1e-2), progress=False)
    assert tuned.losses[-1] < tuned.losses[0]
    assert theta_p_digest(model) == before
    theta_p = model.partition().theta_p
    assert all(parameter.grad is None for name, parameter in model.named_parameters() if name in theta_p)


@each_base
def test_gradients_of_theta_a_are_those_of_the_same_numbers_in_floating_point(base):
    quantised = on(base)
    dense = plain()
    with torch.no_grad():
        for name, part in dense.named_modules():
            if type(part) is nn.Linear:  # what the quantised map gives for each unit vector, before θ_a has moved
                part.weight.copy_(quantised.backbone.get_submodule(name)(torch.eye(part.in_features)).T)
    whole = PEModel(dense, quantised.method)
    for model in (quantised, whole):
        model.add_head("text", TEXT.make_head)
        model.eval()
    whole.load_state(quantised.state(quantised.partition().theta_a))
    batch = TEXT.train.batch(range(4))
    names = quantised.partition().theta_a
    found = []
    for model in (quantised, whole):
        loss = model.loss(batch, "text")
        found.append(torch.autograd.grad(loss, [model.get_parameter(name) for name in names]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@each_base
def test_an_interrupted_run_goes_on(tmp_path, monkeypatch, base):
    whole, path = on(base), tmp_path / "c.safetensors"
    history = prime(whole, [TEXT], PRIMING, progress=False)
    interrupt_at(monkeypatch, 5)
    with pytest.raises(KeyboardInterrupt):
        prime(on(base), [TEXT], PRIMING, progress=False, checkpoint=path)
    monkeypatch.undo()
    parts = on(base)
    assert prime(parts, [TEXT], PRIMING, progress=False, checkpoint=path).losses == history.losses


@pytest.mark.parametrize("base", ["parameters", pytest.param("torchao", marks=needs_torchao)])
def test_what_adapts_quantised_weights_is_refused(base):
    with pytest.raises(
        ModelError, match=r"full adapts layers\.0\..*weight, which is quantised .* load the backbone unq"
    ):
        PEModel(BASES[base](), Full())


def test_lora_is_not_for_values_in_buffers():
    with pytest.raises(ModelError, match="lora cannot be attached to LlamaModel: no query was found"):
        PEModel(replaced(Packed), LoRA(rank=2))


def test_priming_theta_p_is_refused():
    model = PEModel(replaced(Int8Linear), LoRA(rank=2))
    with pytest.raises(
        ModelError,
        match=r"priming moves backbone\.layers\.0\..*, which is quantised \(torch\.int8\) and takes no gradient; set",
    ):
        prime(model, [TEXT], MetaPriming(outer_steps=1, support_size=2, query_size=2), progress=False)


def test_a_part_of_theta_p_in_floating_point_is_primed():
    model = PEModel(replaced(Int8Linear), LoRA(rank=2))
    norm = model.backbone.norm.weight.detach().clone()
    prime(model, [TEXT], PRIMING.model_copy(update={"primes": ("theta_a", "norm.*")}), progress=False)
    assert not torch.equal(model.backbone.norm.weight, norm)


@each_base
def test_a_task_is_saved_and_the_base_is_not(tmp_path, base):
    model = on(base)
    finetune(model, TEXT, blocks(4), FineTuning(epochs=1), progress=False)
    with pytest.raises(ModelError, match=r"the backbone is quantised .* save what was trained with save_task"):
        model.save_pretrained(tmp_path / "model")
    model.save_task(tmp_path / "task", "text")
    again = on(base)
    again.load_task(tmp_path / "task")
    batch = TEXT.train.batch(range(4))
    with torch.no_grad():
        assert torch.equal(model.eval()(batch, "text"), again.eval()(batch, "text"))
    other = PEModel(plain(), model.method)
    with pytest.raises(ModelError, match="belongs to another primed model"):
        other.load_task(tmp_path / "task")


def test_lora_on_a_quantised_base_goes_to_peft(tmp_path):
    pytest.importorskip("peft")
    model = PEModel(replaced(Int8Linear), LoRA(rank=2))
    save_peft(model, tmp_path / "adapter", base="somewhere")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()


def test_digests_see_quantised_values():
    one, other = (PEModel(replaced(Int8Linear), LoRA(rank=2)) for _ in range(2))
    assert theta_p_digest(one) == theta_p_digest(other)
    with torch.no_grad():
        other.backbone.layers[0].mlp.up_proj.weight[0, 0] += 1
    assert theta_p_digest(one) != theta_p_digest(other)
    packed, changed = (PEModel(replaced(Packed), Adapter(bottleneck=2)) for _ in range(2))
    assert theta_p_digest(packed) == theta_p_digest(changed)
    changed.backbone.layers[0].mlp.up_proj.qweight[0, 0] += 1
    assert theta_p_digest(packed) != theta_p_digest(changed)


def test_parameters_that_only_say_that_they_are_floating_point_are_not_primed():
    """Those of torchao and quanto hold other tensors."""
    model = backbone("bert")
    layer = model.encoder.layer[0].output.dense
    layer.weight = nn.Parameter(TwoTensor(layer.weight.detach(), layer.weight.detach()))
    assert layer.weight.is_floating_point()
    with pytest.raises(
        ModelError, match=r"full adapts encoder\.layer\.0\.output\.dense\.weight, which .*\(TwoTensor\)"
    ):
        PEModel(model, Full())
    assert not [name for name, _ in model.named_parameters() if "pemeta" in name]
