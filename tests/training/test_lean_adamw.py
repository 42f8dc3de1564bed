"""AdamW with moments in 8 bits or paged: near PyTorch's, exact after an interruption, refused where it cannot be."""

import importlib.util

import pytest
import torch
from interrupted_runs import interrupt_at, same
from tiny_models import data
from torch import nn
from torch.optim import AdamW
from transformers import BertConfig, BertModel

from pemeta import FineTuning, Full, MetaPriming, PEModel, Task, finetune, prime
from pemeta.errors import ConfigError, OutputError
from pemeta.training import lean_adamw
from pemeta.training.lean_adamw import moment_bytes, require_kind
from pemeta.training.optimizer import LossScale, Optimization
from pemeta.utils.files import read_tensors

EIGHT = "adamw_8bit"
needs_package = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed (the extra lean)"
)
CPU, TASK = torch.device("cpu"), Task.token_classification("en", data(0))
PRIMING = MetaPriming(
    outer_steps=5, outer_lr=1e-3, inner_steps=1, support_size=3, query_size=3, optimizer=EIGHT, padding="padded"
)
TUNING = FineTuning(epochs=3, batch_size=5, optimizer=EIGHT, padding="padded")


def model(dtype=torch.float32):
    """With word embeddings that are large enough for moments in 8 bits."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=700,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=16,
    )
    return PEModel(BertModel(config, add_pooling_layer=False).to(dtype), Full())


def gradient(step, parameter):
    generator = torch.Generator().manual_seed(step)
    return 1e-2 * (1 + torch.randn(parameter.shape, generator=generator))


@needs_package
@pytest.mark.parametrize(("size", "tolerance"), [((7, 8), 1e-6), ((128, 64), 0.1)], ids=["float32", "8 bits"])
def test_steps_are_near_those_of_pytorch(size, tolerance):
    """Small parameters keep float32 moments; for large ones, rounding moves each value by a part of a step."""
    torch.manual_seed(0)
    start = torch.randn(size)
    ours, theirs = (nn.Parameter(start.clone()) for _ in range(2))
    optimization = Optimization([ours], 1e-2, 100, kind=EIGHT)
    oracle = AdamW([theirs], 1e-2, weight_decay=0.01)
    for step in range(20):
        ours.grad, theirs.grad = gradient(step, ours), gradient(step, ours)
        oracle.param_groups[0]["lr"] = optimization.learning_rate
        optimization.step()
        oracle.step()
    moved = (theirs - start).abs().mean()
    assert moved > 0.1
    assert (ours - theirs).abs().mean() < tolerance * moved


def test_a_fused_step_is_pytorchs():
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(50, 4)) for _ in range(2))
    optimization, oracle = Optimization([ours], 1e-2, 10, kind="adamw_fused"), AdamW([theirs], 1e-2, fused=True)
    for step in range(5):
        ours.grad, theirs.grad = gradient(step, ours), gradient(step, ours)
        oracle.param_groups[0]["lr"] = optimization.learning_rate
        optimization.step()
        oracle.step()
    assert torch.equal(ours, theirs)


def test_a_fused_run_goes_on_bit_by_bit(tmp_path, monkeypatch):
    settings = TUNING.model_copy(update={"optimizer": "adamw_fused"})
    whole, path = model(), tmp_path / "c.safetensors"
    finetune(whole, TASK, data(1), settings, progress=False)
    interrupt_at(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        finetune(model(), TASK, data(1), settings, progress=False, checkpoint=path)
    monkeypatch.undo()
    parts = model()
    finetune(parts, TASK, data(1), settings, progress=False, checkpoint=path)
    assert same(whole, parts)


@needs_package
def test_moments_take_what_is_said():
    parameters = [nn.Parameter(torch.randn(size)) for size in ((128, 64), (5, 4), (4097,))]
    optimization = Optimization(parameters, 1e-2, 10, kind=EIGHT)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimization.step()
    kept = [one for state in optimization.optimizer.moments().values() for one in state.values() if one.ndim]
    assert sum(one.nbytes for one in kept) == sum(moment_bytes(EIGHT, parameters))
    assert sum(moment_bytes(EIGHT, parameters)) < 0.3 * sum(moment_bytes("adamw", parameters))


def test_what_is_paged_is_counted_apart():
    large, small = torch.empty(1000, 200, device="meta"), torch.empty(10, 10, device="meta")
    assert moment_bytes("adamw_paged", [large, small]) == (800, 1_600_000)
    stay, paged = moment_bytes("adamw_8bit_paged", [large, small])
    assert (stay, paged) == (800 + 8 * 782, 400_000)


@needs_package
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_priming_goes_on_bit_by_bit(tmp_path, monkeypatch, dtype):
    whole, path = model(dtype), tmp_path / "c.safetensors"
    history = prime(whole, [TASK], PRIMING, seed=3, progress=False)
    interrupt_at(monkeypatch, 6)
    with pytest.raises(KeyboardInterrupt):
        prime(model(dtype), [TASK], PRIMING, seed=3, progress=False, checkpoint=path)
    monkeypatch.undo()
    values, _ = read_tensors(path)
    kinds = {value.dtype for key, value in values.items() if key.startswith("optimizer.")}
    assert kinds == {torch.uint8, torch.float32, torch.int64}
    parts = model(dtype)
    again = prime(parts, [TASK], PRIMING, seed=3, progress=False, checkpoint=path)
    assert again.losses == history.losses
    assert same(whole, parts)
    other = PRIMING.model_copy(update={"optimizer": "adamw"})
    with pytest.raises(OutputError, match=r"settings\.optimizer was 'adamw_8bit' and is 'adamw' now"):
        prime(model(dtype), [TASK], other, seed=3, progress=False, checkpoint=path)


@needs_package
def test_fine_tuning_goes_on_bit_by_bit(tmp_path, monkeypatch):
    whole, path = model(), tmp_path / "c.safetensors"
    history = finetune(whole, TASK, data(1), TUNING, seed=3, progress=False)
    interrupt_at(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        finetune(model(), TASK, data(1), TUNING, seed=3, progress=False, checkpoint=path)
    monkeypatch.undo()
    parts = model()
    again = finetune(parts, TASK, data(1), TUNING, seed=3, progress=False, checkpoint=path)
    assert again.losses == history.losses
    assert same(whole, parts)


@needs_package
def test_a_state_of_other_parameters_is_refused():
    def stepped(*sizes):
        parameters = [nn.Parameter(torch.ones(size)) for size in sizes]
        optimization = Optimization(parameters, 1e-2, 10, scale=LossScale(2.0), kind=EIGHT)
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        optimization.step()
        return optimization

    one, other = stepped(5000, 3), stepped(3, 5000)
    with pytest.raises(ValueError, match="the optimiser's state of parameter 0 does not fit"):
        other.load_moments(one.optimizer.moments(), one.groups())
    with pytest.raises(ValueError, match="the optimiser's state of parameter 1 does not fit"):
        stepped(5000).load_moments(one.optimizer.moments(), one.groups())


@needs_package
def test_float64_is_refused():
    with pytest.raises(ConfigError, match="moves parameters in float32 at most; found float64; set optimizer: adamw"):
        Optimization([nn.Parameter(torch.ones(2, dtype=torch.float64))], 1e-2, 10, kind=EIGHT)


@pytest.mark.parametrize("kind", ["adamw_8bit", "adamw_paged", "adamw_8bit_paged"])
def test_a_missing_package_is_named(monkeypatch, kind):
    monkeypatch.setattr(lean_adamw, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=rf"optimizer: {kind} is a step of .* not installed; run `pip install 'pemeta\[lean\]'`"
    ):
        require_kind(kind, CPU)


@pytest.mark.parametrize(("kind", "other"), [("adamw_paged", "adamw"), ("adamw_8bit_paged", "adamw_8bit")])
def test_what_pages_needs_a_gpu(monkeypatch, kind, other):
    monkeypatch.setattr(lean_adamw, "find_spec", lambda name: object())
    with pytest.raises(
        ConfigError, match=rf"{kind} keeps moments .* but this run is on 'cpu'; set optimizer: {other}$"
    ):
        finetune(model(), TASK, data(1), TUNING.model_copy(update={"optimizer": kind}), progress=False)


def test_devices_without_8_bit_steps(monkeypatch):
    monkeypatch.setattr(lean_adamw, "find_spec", lambda name: object())
    with pytest.raises(ConfigError, match="bitsandbytes has no 8-bit step for 'mps' devices; set optimizer: adamw"):
        require_kind(EIGHT, torch.device("mps"))
    assert require_kind("adamw", torch.device("mps")) is None


def test_moments_of_the_outer_optimiser_must_be_adamws_own():
    with pytest.raises(
        ConfigError, match=r"inner_rule\.moments: outer reads AdamW's own moments, but optimizer: adamw_8bit"
    ):
        MetaPriming(inner_rule={"name": "adam", "moments": "outer"}, optimizer=EIGHT)
