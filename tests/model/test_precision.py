"""Autocast in bfloat16 and float16, and the scale of losses that float16 needs."""

import copy

import pytest
import torch
from interrupted_runs import interrupt_at
from tiny_models import TASKS, data, tiny, with_heads

from pemeta import BitFit, EpisodeSampler, FineTunePriming, FineTuning, LoRA, MetaPriming, finetune, prime
from pemeta.errors import TrainingError
from pemeta.priming.algorithms import OuterStep
from pemeta.training.evaluation import predict
from pemeta.training.optimizer import LossScale, Optimization

HALF = [torch.bfloat16, torch.float16]
each_half = pytest.mark.parametrize("dtype", HALF, ids=["bf16", "fp16"])


def single(dtype, method=None, attention="sdpa"):
    model = tiny(*([] if method is None else [method]), attention=attention, dropout=0.0).float()
    model.autocast_dtype = dtype
    return model


@pytest.mark.parametrize("first_order", [True, False])
@pytest.mark.parametrize("method", [None, LoRA(rank=2), BitFit()], ids=["adapter", "lora", "bitfit"])
@each_half
def test_a_step_is_near_that_in_single_precision_and_parameters_stay_single(dtype, method, first_order):
    algorithm = MetaPriming(inner_steps=3, inner_lr=0.1, first_order=first_order)
    gradients = []
    for precision in (None, dtype):
        model = with_heads(single(precision, method))
        seen = set()
        model.backbone.encoder.layer[0].output.dense.register_forward_hook(lambda m, i, o, seen=seen: seen.add(o.dtype))
        algorithm.accumulate(model, EpisodeSampler(TASKS, 3, 4)[0], OuterStep(0, 2.0**8 if precision else 1.0))
        assert seen == {precision or torch.float32}
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        flat = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        gradients.append(flat / (2.0**8 if precision else 1))
    exact, found = gradients
    assert not torch.equal(exact, found)
    assert (found - exact).norm() < 0.1 * exact.norm()


@each_half
def test_logits_are_in_single_precision_and_predictions_agree(dtype):
    plain = with_heads(single(None)).eval()
    half = copy.deepcopy(plain)
    half.autocast_dtype = dtype
    batch = TASKS[0].train.batch([0, 1])
    assert half(batch, "en").dtype == half.loss(batch, "en").dtype == torch.float32
    torch.testing.assert_close(half(batch, "en"), plain(batch, "en"), rtol=0.05, atol=0.05)
    assert len(predict(half, TASKS[0].train, "en")) == len(TASKS[0].train)


@pytest.mark.parametrize("algorithm", [MetaPriming(inner_steps=3, first_order=order) for order in (True, False)])
def test_the_scale_is_a_factor_on_the_gradient_and_nothing_else(algorithm):
    algorithm = algorithm.model_copy(update={"outer_dropout": False})
    results = []
    for scale in (1.0, 1024.0):
        model = with_heads(tiny())
        losses = algorithm.accumulate(model, EpisodeSampler(TASKS, 3, 4)[0], OuterStep(0, scale))
        gradients = {n: p.grad / scale for n, p in model.named_parameters() if p.grad is not None}
        results.append((losses, gradients, model.state(model.partition().theta_h)))
    (a, plain, heads), (b, scaled, scaled_heads) = results
    assert a.outer == pytest.approx(b.outer, abs=1e-10)
    for before, after in ((plain, scaled), (heads, scaled_heads)):
        for name, value in before.items():
            torch.testing.assert_close(after[name], value, rtol=0, atol=1e-10, msg=name)


class ToRight(LossScale):
    """The scale is lowered at once to the value that the other run starts with."""

    def lower(self):
        lowered.append(self.value)
        self.value, self.good_steps = 2.0**8, 0
        return True


lowered: list[float] = []


@pytest.mark.parametrize("algorithm", [MetaPriming, FineTunePriming])
def test_a_scale_that_is_too_high_is_lowered_and_the_step_taken_again(algorithm, monkeypatch):
    """The heads too, which a failed attempt may have changed, equal those of a run with the right initial scale."""
    lowered.clear()
    found = []
    for make in (lambda: LossScale(2.0**8), lambda: ToRight(2.0**60)):
        monkeypatch.setattr(LossScale, "suited_to", lambda dtype, make=make: make())
        model = single(torch.float16)
        settings = {"outer_steps": 3, "outer_lr": 0.01, "support_size": 3, "query_size": 3, "outer_dropout": False}
        assert len(prime(model, TASKS, algorithm(**settings), progress=False).losses) == 3
        found.append(model.state())
    assert lowered == [2.0**60]
    right, high = found
    assert all(torch.equal(high[name], value) for name, value in right.items())


def test_a_scale_that_cannot_be_lowered_further_is_an_error():
    model = single(torch.float16)
    with torch.no_grad():
        model.backbone.embeddings.word_embeddings.weight.fill_(torch.nan)
    with pytest.raises(TrainingError, match="priming, step 1: the inner loss of step 1 is nan; lower inner_lr"):
        prime(model, TASKS, MetaPriming(outer_steps=1, support_size=3, query_size=3), progress=False)


def test_a_scale_that_was_not_to_blame_is_restored():
    scale = LossScale(8.0)
    scale.succeeded()
    assert [scale.lower() for _ in range(4)] == [True, True, True, False]
    assert (scale.value, scale.good_steps) == (8, 1)


def test_the_scale_grows_after_patience_and_survives_a_checkpoint(tmp_path, monkeypatch):
    scale = LossScale(4.0, patience=2)
    for _ in range(4):
        scale.succeeded()
    assert scale.value == 16
    assert scale.lower()
    assert (scale.value, scale.good_steps) == (8, 0)
    assert not LossScale().lower()
    assert LossScale.suited_to(torch.float16).value == 2**16
    assert LossScale.suited_to(torch.bfloat16).value == LossScale.suited_to(None).value == 1

    monkeypatch.setattr(LossScale, "suited_to", classmethod(lambda cls, dtype: cls(2.0**8, patience=2)))
    algorithm = MetaPriming(outer_steps=6, outer_lr=0.01, support_size=3, query_size=3)
    whole = single(torch.float16)
    history = prime(whole, TASKS, algorithm, progress=False)
    calls = interrupt_at(monkeypatch, 4, MetaPriming, "accumulate")
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        prime(single(torch.float16), TASKS, algorithm, progress=False, checkpoint=path)
    parts = single(torch.float16)
    again = prime(parts, TASKS, algorithm, progress=False, checkpoint=path)
    assert [step.loss_scale for *_, step in calls] == [256, 256, 512, 512, 1024, 1024]
    assert again.losses == history.losses
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))


def test_unscaling_comes_before_clipping():
    moved = []
    for scale in (1.0, 64.0):
        weight = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
        optimization = Optimization([weight], 0.1, 10, max_grad_norm=1.0, scale=LossScale(scale))
        ((weight * torch.tensor([0.1, 0.2, 0.3])).sum() * scale).backward()
        optimization.step()
        moved.append((weight.detach().clone(), weight.grad.clone()))
    for a, b in zip(*moved, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@each_half
def test_fine_tuning_in_half_precision(dtype):
    settings = FineTuning(epochs=2, lr=0.01)
    plain, half = single(None), single(dtype)
    histories = [finetune(m, TASKS[0], data(5), settings, progress=False) for m in (plain, half)]
    assert histories[1].losses == pytest.approx(histories[0].losses, abs=0.05)
    assert {p.dtype for p in half.parameters()} == {torch.float32}


def test_fine_tuning_lowers_a_scale_that_is_too_high(monkeypatch):
    found = []
    for start in (2.0**8, 2.0**60):
        scale = LossScale(start)
        monkeypatch.setattr(LossScale, "suited_to", classmethod(lambda cls, dtype, scale=scale: scale))
        model = single(torch.float16)
        found.append(finetune(model, TASKS[0], data(5), FineTuning(epochs=2, lr=0.01), progress=False).losses)
        assert 2**8 <= scale.value < 2**60
    assert found[0] == pytest.approx(found[1], abs=0.02)
    with torch.no_grad():
        model.backbone.encoder.layer[0].output.dense.weight.fill_(torch.nan)
    with pytest.raises(TrainingError, match=r"fine-tuning en, epoch 1: the loss is nan; lower lr \(now 1e-05\)"):
        finetune(model, TASKS[0], data(5), FineTuning(epochs=1, lr=1e-5), progress=False)
