"""Runs on packed rows: results equal to padded ones, batches by tokens, and checkpoints from which runs go on."""

from functools import partial

import numpy as np
import pytest
import torch
from interrupted_runs import interrupt_at, same
from tiny_models import TASKS, data, tiny

from pemeta import Adapter, FineTuning, LoRA, MetaPriming, Prefix, Prompt, Task, evaluate, finetune, predict, prime
from pemeta.backbone import packed_passes
from pemeta.errors import OutputError
from pemeta.model.whole_passes import WholePasses

TARGET = Task.token_classification("af", data(5))
VALIDATION = data(6)
SETTINGS = FineTuning(epochs=2, batch_size=5, lr=0.02)
PRIMING = MetaPriming(outer_steps=3, outer_lr=0.01, support_size=3, query_size=3, inner_steps=2, outer_dropout=False)

METHODS = [
    Adapter(bottleneck=4),
    LoRA(rank=2),
    LoRA(rank=2, top_layers=1),  # cached inputs of the top layer
    Prefix(length=3),
    Prompt(length=3),
]
each = pytest.mark.parametrize("method", METHODS, ids=["adapter", "lora", "top lora", "prefix", "prompt"])
fine_tuned = partial(finetune, task=TARGET, validation=VALIDATION, seed=3, progress=False)


def rows_counted(monkeypatch):
    """Of each batch that is placed, whether it has rows."""
    found, placed = [], WholePasses.placed

    def counting(model, batch):
        made = placed(model, batch)
        found.append("packed.place" in made)
        return made

    monkeypatch.setattr(WholePasses, "placed", counting)
    return found


@each
@pytest.mark.parametrize("reuse", [True, False])
def test_fine_tuning_finds_the_same_values(monkeypatch, method, reuse):
    padded, packed = tiny(method), tiny(method)
    settings = SETTINGS.model_copy(update={"reuse_trunk": reuse, "padding": "padded"})
    expected = fine_tuned(padded, settings=settings)
    rows = rows_counted(monkeypatch)
    found = fine_tuned(packed, settings=settings.model_copy(update={"padding": "packed"}))
    assert found.losses == pytest.approx(expected.losses, abs=1e-9)
    assert found.validation_scores == expected.validation_scores
    for a, b in zip(packed.parameters(), padded.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
    assert any(rows) == (not (reuse and method.output_only))
    assert (found.packed, expected.packed) == (any(rows), False)
    assert packed.padding == "padded"  # as before


@each
@pytest.mark.parametrize("batch_tasks", [True, False])
def test_priming_finds_the_same_values(monkeypatch, method, batch_tasks):
    padded, packed = tiny(method), tiny(method)
    algorithm = PRIMING.model_copy(update={"batch_tasks": batch_tasks, "padding": "padded"})
    expected = prime(padded, TASKS, algorithm, seed=3, progress=False)
    rows = rows_counted(monkeypatch)
    found = prime(packed, TASKS, algorithm.model_copy(update={"padding": "packed"}), seed=3, progress=False)
    assert all(rows)
    assert [one.outer for one in found.losses] == pytest.approx([one.outer for one in expected.losses], abs=1e-9)
    for a, b in zip(packed.parameters(), padded.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-8)
    assert (found.packed, expected.packed) == (True, False)


def test_evaluation_and_predictions_are_the_same():
    model = tiny()
    model.add_head("af", TARGET.make_head)
    expected, scores = predict(model, VALIDATION, "af"), evaluate(model, VALIDATION, "af")
    model.padding = "packed"
    assert predict(model, VALIDATION, "af") == expected
    assert predict(model, VALIDATION, "af", max_tokens=9) == expected
    assert evaluate(model, VALIDATION, "af", max_tokens=9) == scores


@pytest.mark.parametrize("padding", ["padded", "packed", "auto"])
@pytest.mark.parametrize("bucket", [True, False])
def test_batches_hold_as_many_tokens_as_they_may(padding, bucket):
    train, most = data(1, 60), 20
    settings = FineTuning(epochs=3, max_tokens=most, padding=padding, bucket_by_length=bucket)
    steps = settings.steps_of_epochs(train, 0, "t")
    lengths = train.lengths()
    for epoch in range(3):
        batches = settings.batches(train, 0, "t", epoch)
        assert len(batches) == steps[epoch]
        assert sorted(np.concatenate(batches).tolist()) == list(range(60))
        sizes = [lengths[b].max() * len(b) if padding != "packed" else lengths[b].sum() for b in batches]
        assert max(sizes) <= most
        assert np.mean(sizes) > 0.7 * most
    assert FineTuning(epochs=2, max_tokens=1).steps_of_epochs(train, 0, "t") == (60, 60)  # each alone


@pytest.mark.parametrize("step", [1, 5, 8])
def test_a_run_by_tokens_on_rows_goes_on_bit_by_bit(tmp_path, monkeypatch, step):
    """With dropout, whose draw depends on the rows; and with epochs of different numbers of steps."""
    settings = SETTINGS.model_copy(update={"epochs": 3, "max_tokens": 20, "padding": "packed", "dropout": True})
    steps = settings.steps_of_epochs(TARGET.train, 3, "af")
    whole, parts, path = tiny(LoRA(rank=2)), tiny(LoRA(rank=2)), tmp_path / "c.safetensors"
    history = fine_tuned(whole, settings=settings)
    assert len(history.losses) == len(history.validation_scores) == 3
    interrupt_at(monkeypatch, step)
    with pytest.raises(KeyboardInterrupt, match=f"stopped after step {step} of {sum(steps)}"):
        fine_tuned(parts, settings=settings, checkpoint=path)
    parts = tiny(LoRA(rank=2))
    again = fine_tuned(parts, settings=settings, checkpoint=path)
    assert (again.losses, again.validation_scores) == (history.losses, history.validation_scores)
    assert same(whole, parts)
    assert history.packed
    assert fine_tuned(tiny(LoRA(rank=2)), settings=settings, checkpoint=path).packed  # also with no step left


def test_priming_on_rows_goes_on_bit_by_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(packed_passes, "LEAST_SAVED", 0)  # of a tiny model
    algorithm = PRIMING.model_copy(update={"padding": "auto", "outer_dropout": True, "inner_dropout": True})
    run = partial(prime, tasks=TASKS, algorithm=algorithm, seed=3, progress=False)
    whole, path = tiny(), tmp_path / "c.safetensors"
    assert run(whole).packed
    interrupt_at(monkeypatch, 9)
    with pytest.raises(KeyboardInterrupt):
        run(tiny(), checkpoint=path)
    parts = tiny()
    assert run(parts, checkpoint=path).packed
    assert same(whole, parts)


def test_tiny_runs_are_padded_by_default(monkeypatch):
    """Bit for bit, and without a trial: there is too little to save."""
    monkeypatch.setattr(packed_passes, "found_form", None)
    for settings in (SETTINGS, PRIMING):
        assert settings.padding == "auto"
    default, padded = tiny(), tiny()
    found = prime(default, TASKS, PRIMING, seed=3, progress=False), fine_tuned(default, settings=SETTINGS)
    assert not any(one.packed for one in found)
    prime(padded, TASKS, PRIMING.model_copy(update={"padding": "padded"}), seed=3, progress=False)
    fine_tuned(padded, settings=SETTINGS.model_copy(update={"padding": "padded"}))
    assert same(default, padded)


def test_a_checkpoint_says_which_way_its_run_went(tmp_path, monkeypatch):
    """What was packed does not go on padded, where the same settings would run so by now."""
    settings = SETTINGS.model_copy(update={"padding": "auto"})
    path = tmp_path / "c.safetensors"
    interrupt_at(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        fine_tuned(tiny(), settings=settings, checkpoint=path)
    monkeypatch.setattr(WholePasses, "packs", False)
    with pytest.raises(OutputError, match="packed"):
        fine_tuned(tiny(), settings=settings, checkpoint=path)


@pytest.mark.parametrize("packs", [True, False])
def test_a_batch_has_no_more_tokens_than_it_may_where_the_backbone_is_padded_after_all(monkeypatch, packs):
    """Cut by their own tokens, padded batches would be as much larger as their longest sentence is."""
    if not packs:
        monkeypatch.setattr(WholePasses, "packs", False)
        monkeypatch.setattr(WholePasses, "_rows", lambda model, batch: None)
    sizes, placed, model = [], WholePasses.placed, tiny(LoRA(rank=2))

    def sized(model, batch):
        sizes.append(batch["input_ids"].numel())
        return placed(model, batch)

    monkeypatch.setattr(WholePasses, "placed", sized)
    settings = SETTINGS.model_copy(update={"epochs": 1, "max_tokens": 20, "padding": "packed"})
    fine_tuned(model, settings=settings)
    model.padding = "packed"
    predict(model, VALIDATION, "af", max_tokens=20)
    assert (max(sizes[: len(sizes) // 3]) > 20) == packs
