"""Optimisers move float32 values of parameters in half precision: oracles, checkpoints, and changes from outside."""

import copy

import pytest
import torch
from half_models import HALF
from interrupted_runs import interrupt_at, same
from tiny_models import METHODS, TASKS, data, tiny
from torch import nn
from torch.optim import AdamW

from pemeta import FineTuning, MetaPriming, Task, finetune, prime
from pemeta.errors import OutputError
from pemeta.training.master_values import MasterAdamW
from pemeta.training.optimizer import LossScale, Optimization
from pemeta.utils.files import read_tensors, write_tensors

PRIMING = MetaPriming(outer_steps=7, outer_lr=1e-4, inner_lr=1e-3, support_size=3, query_size=3, inner_dropout=True)
TARGET, VALIDATION = Task.token_classification("af", data(5)), data(6)
FINE_TUNING = FineTuning(epochs=4, batch_size=5, lr=1e-4, dropout=True)  # three steps an epoch
each_dtype = pytest.mark.parametrize("dtype", HALF, ids=["bf16", "fp16"])


def parameters(*dtypes):
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter((0.1 * torch.randn(5, 4, generator=generator)).to(dtype)) for dtype in dtypes]


def gradients_at(step, values):
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(value.shape, generator=generator) * 1e-3 for value in values]


@each_dtype
@pytest.mark.parametrize("scale", [1.0, 2.0**10])
def test_it_is_adamw_on_float32_values_that_are_rounded_after_each_step(dtype, scale):
    own = parameters(dtype, torch.float32)
    theirs = [nn.Parameter(parameter.detach().float()) for parameter in own]
    optimization = Optimization(own, 1e-4, 40, max_grad_norm=0.001, scale=LossScale(scale))
    oracle = AdamW(theirs, lr=1e-4, weight_decay=0.01)
    for step in range(30):
        optimization.zero_grad()
        for parameter, other, gradient in zip(own, theirs, gradients_at(step, own), strict=True):
            parameter.grad = (gradient * scale).to(parameter.dtype)
            other.grad = parameter.grad.float() / scale
        oracle.param_groups[0]["lr"] = optimization.learning_rate
        norm = nn.utils.clip_grad_norm_(theirs, 0.001)
        oracle.step()
        assert optimization.step() == pytest.approx(norm.item())
        assert all(torch.equal(a, b.to(a.dtype)) for a, b in zip(own, theirs, strict=True))


def test_parameters_in_float32_and_float64_are_moved_themselves():
    own = parameters(torch.float32, torch.float64)
    optimizer = Optimization(own, 1e-4, 10).optimizer
    assert all(a is b for a, b in zip(optimizer.moved, own, strict=True))
    assert optimizer.master_values() == {}


def test_updates_that_a_parameter_cannot_take_add_up():
    """A bfloat16 near 0.1 is 5e-4 from the next; hundred steps of 1e-5 are two of these."""
    weight = nn.Parameter(torch.full((3,), 0.1, dtype=torch.bfloat16))
    optimization = Optimization([weight], 1e-5, 10**6, weight_decay=0.0)
    for step in range(100):
        weight.grad = torch.ones_like(weight)
        optimization.step()
        assert (weight == 0.1).all() if step < 10 else True
    assert (0.1 - weight.float()).tolist() == pytest.approx([1e-3] * 3, abs=5e-4)


@each_dtype
@pytest.mark.parametrize("how", ["in place", "data"])
def test_what_changes_a_parameter_from_outside_counts(dtype, how):
    (weight,) = parameters(dtype)
    optimization = Optimization([weight], 1e-5, 10)
    for _ in range(2):
        weight.grad = torch.ones_like(weight)
        optimization.step()
    before = optimization.optimizer.master_values()["0"].clone()
    with torch.no_grad():
        (weight.data if how == "data" else weight)[0] = 3.0
    weight.grad = torch.ones_like(weight)
    optimization.step()
    after = optimization.optimizer.master_values()["0"]
    assert (after[0] - 3.0).abs().max() < 1e-3
    assert (after[1:] - before[1:]).abs().max() < 2e-5
    assert torch.equal(weight, after.to(dtype))


def test_gradients_too_small_for_float16_are_not_lost():
    """1e-9 is zero in float16; scaled it is not, and unscaled it is in float32."""
    (weight,) = parameters(torch.float16)
    optimization = Optimization([weight], 1e-3, 10, scale=LossScale.suited_to(torch.float16))
    (weight.sum().float() * 1e-9 * optimization.scale.value).backward()
    before = weight.detach().clone()
    assert optimization.step() == pytest.approx(1e-9 * weight.numel() ** 0.5, rel=0.05)
    assert not (weight == before).any()


def test_all_gradients_are_forgotten():
    own = parameters(torch.bfloat16, torch.float32)
    optimization = Optimization(own, 1e-3, 10)
    for parameter in own:
        parameter.grad = torch.full_like(parameter, torch.nan)
    with pytest.raises(Exception, match="the gradient's norm is nan"):
        optimization.step()
    optimization.zero_grad()
    assert all(parameter.grad is None for parameter in (*own, *optimization.optimizer.moved))


def half(name):
    return tiny(METHODS[name][0]).to(torch.bfloat16)


@pytest.mark.parametrize("name", ["lora", "bitfit"])
def test_priming_goes_on_bit_by_bit(tmp_path, monkeypatch, name):
    whole, path = half(name), tmp_path / "c.safetensors"
    history = prime(whole, TASKS, PRIMING, seed=3, progress=False)
    interrupt_at(monkeypatch, 40)
    with pytest.raises(KeyboardInterrupt):
        prime(half(name), TASKS, PRIMING, seed=3, progress=False, checkpoint=path)
    monkeypatch.undo()
    values, beside = read_tensors(path)
    assert {values[key].dtype for key in values if key.startswith(("master.", "optimizer."))} == {torch.float32}
    without = {key: value for key, value in values.items() if not key.startswith("master.")}
    assert len(without) < len(values)
    write_tensors(tmp_path / "without.safetensors", without, beside)
    parts = half(name)
    again = prime(parts, TASKS, PRIMING, seed=3, progress=False, checkpoint=path)
    assert again.losses == history.losses
    assert same(whole, parts)
    with pytest.raises(OutputError, match="does not hold the float32 values of exactly the parameters in half"):
        prime(half(name), TASKS, PRIMING, seed=3, progress=False, checkpoint=tmp_path / "without.safetensors")


@pytest.mark.parametrize("name", ["bitfit", "full"])
def test_fine_tuning_goes_on_bit_by_bit(tmp_path, monkeypatch, name):
    whole, path = half(name), tmp_path / "c.safetensors"
    history = finetune(whole, TARGET, VALIDATION, FINE_TUNING, seed=3, progress=False)
    interrupt_at(monkeypatch, 7)
    with pytest.raises(KeyboardInterrupt):
        finetune(half(name), TARGET, VALIDATION, FINE_TUNING, seed=3, progress=False, checkpoint=path)
    parts = half(name)
    again = finetune(parts, TARGET, VALIDATION, FINE_TUNING, seed=3, progress=False, checkpoint=path)
    assert again.losses == history.losses
    assert same(whole, parts)


def test_a_copy_of_a_model_in_training_is_independent():
    """As averages of weights along the way are made."""
    model = half("full")
    optimization = Optimization(model.parameters(), 1e-2, 10)
    average = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimization.step()
    assert same(average, half("full"))
    assert not same(average, model)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_only_cuda_has_a_fused_step_by_itself(device):
    """On a CPU the results stay those of the step as it was."""
    [group] = MasterAdamW([nn.Parameter(torch.ones(2, device=device))], 0.1, 0.0).param_groups
    assert (group["fused"], group["foreach"]) == (None, None)


def test_on_cuda_all_parameters_move_in_one_operation(monkeypatch):
    chosen = {}

    class OnGpu(nn.Parameter):
        device = torch.device("cuda", 0)

    monkeypatch.setattr(torch.optim.AdamW, "__init__", lambda self, parameters, **options: chosen.update(options))
    MasterAdamW([OnGpu(torch.ones(2))], 0.1, 0.0)
    assert chosen["fused"] is True
    MasterAdamW([OnGpu(torch.ones(2)), nn.Parameter(torch.ones(2))], 0.1, 0.0)
    assert chosen["fused"] is None


@pytest.mark.parametrize("before", [None, True])
def test_a_state_goes_on_with_the_step_of_this_device(before):
    """A fused step's state goes on without it, and the reverse; values and rates are equal up to rounding."""
    torch.manual_seed(0)
    gradients, after = torch.randn(4, 3), None if before else True
    plain, first, second = (nn.Parameter(torch.ones(3)) for _ in range(3))
    oracle, started = AdamW([plain], 0.1), MasterAdamW([first], 0.1, 0.01, before)
    for gradient in gradients[:2]:
        plain.grad, first.grad = gradient.clone(), gradient.clone()
        oracle.step()
        started.step()
    second.data.copy_(first)
    found = started.state_dict()
    continued = MasterAdamW([second], 0.5, 0.0, after)
    continued.load_moments(found["state"], found["param_groups"])
    [group] = continued.param_groups
    assert (group["fused"], group["lr"], group["weight_decay"]) == (after, 0.1, 0.01)
    for gradient in gradients[2:]:
        plain.grad, second.grad = gradient.clone(), gradient.clone()
        oracle.step()
        continued.step()
    torch.testing.assert_close(second, plain)
