"""Checkpointed layers and lower precision, for language models with labels on completions alone."""

import copy

import pytest
import torch
from interrupted_runs import same
from short_completions import COMPLETIONS, PROMPTED, gradients
from tiny_tasks import VOCABULARY
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from pemeta import FineTuning, LoRA, MetaPriming, PEModel, finetune, prime
from pemeta.estimate.counter import CostCounter

PRIMING = MetaPriming(outer_steps=2, inner_steps=2, support_size=4, query_size=5, outer_dropout=False, padding="padded")
TUNING = FineTuning(epochs=1, batch_size=6, padding="padded")


def language_model(dtype=torch.float64, layers=2):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=32,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config).to(dtype)


def model_of(dtype=torch.float64, **settings):
    model = PEModel(language_model(dtype, **settings), LoRA(rank=2))
    with torch.no_grad():
        for name in model.partition().theta_a:
            model.get_parameter(name).add_(0.1)
    return model


def runs(model):
    yield lambda: prime(model, [PROMPTED], PRIMING, progress=False)
    yield lambda: finetune(model, PROMPTED, COMPLETIONS, TUNING, progress=False)


@pytest.mark.parametrize("which", [0, 1], ids=["priming", "fine-tuning"])
def test_checkpointed_layers_change_no_gradient(monkeypatch, which):
    found = []
    for checkpointed in (False, True):
        model = model_of()
        if checkpointed:
            model.checkpoint_layers()
        found.append(gradients(monkeypatch, list(runs(model))[which])[0])
    for plain, other in zip(*found, strict=True):
        for one, two in zip(plain, other, strict=True):
            assert (one is None) == (two is None)
            if one is not None:
                torch.testing.assert_close(one, two, rtol=0, atol=1e-12)


@pytest.mark.long
def test_checkpointed_layers_hold_less():
    held, batch = {}, PROMPTED.train.batch(range(12))
    for checkpointed in (False, True):
        model = model_of(layers=6)
        model.checkpoint_layers(checkpointed)
        model.add_head("prompted", PROMPTED.make_head)
        with CostCounter() as counter:
            before = counter.known(model.parameters())
            model.loss(batch, "prompted").backward()
            gradients_held = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
        held[checkpointed] = max(peak.held for peak in counter.peaks.values()) - before - gradients_held
    assert held[True] < 0.6 * held[False]


def test_the_loss_in_bfloat16_is_that_of_transformers_under_autocast():
    model, batch = model_of(torch.float32), PROMPTED.train.batch(range(6))
    theirs = language_model(torch.float32)
    model.add_head("prompted", PROMPTED.make_head)
    with torch.no_grad():  # a pair that adds nothing
        for name in model.partition().theta_a:
            model.get_parameter(name).zero_()
    model.autocast_dtype = torch.bfloat16
    ours = model.eval().loss(batch, "prompted")
    with torch.autocast("cpu", torch.bfloat16):
        logits = theirs(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = F.cross_entropy(logits[:, :-1].float().flatten(0, 1), batch["labels"][:, 1:].flatten())
    assert ours.dtype == torch.float32
    assert ours.item() == pytest.approx(expected.item(), rel=1e-3)


@pytest.mark.long
@pytest.mark.parametrize("held", [torch.float32, torch.bfloat16], ids=["autocast", "parameters in bfloat16"])
@pytest.mark.parametrize("which", [0, 1], ids=["priming", "fine-tuning"])
def test_in_bfloat16_gradients_are_near_those_in_float32(monkeypatch, held, which):
    exact = gradients(monkeypatch, list(runs(model_of(torch.float32)))[which])[0]
    model = model_of(held)
    if held is torch.float32:
        model.autocast_dtype = torch.bfloat16
    before = copy.deepcopy(model)
    found = gradients(monkeypatch, list(runs(model))[which])[0]
    assert not same(before, model) if which == 0 else True
    for one, two in zip(exact[0], found[0], strict=True):
        assert (one is None) == (two is None)
        if one is not None and one.norm() > 1e-4:
            cosine = F.cosine_similarity(one.flatten().float(), two.flatten().float(), dim=0)
            assert cosine > 0.97
