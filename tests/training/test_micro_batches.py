"""Batches in parts: gradients equal to those of the whole batch, with labels that parts have different numbers of."""

import numpy as np
import pytest
import torch
from short_completions import PROMPTED, gradients
from tiny_models import data, tiny
from tiny_tasks import EACH_KIND, tiny_gpt2

from pemeta import FineTunePriming, FineTuning, LoRA, MetaPriming, ReptilePriming, Task, finetune, prime
from pemeta.errors import ConfigError
from pemeta.estimate.counter import CostCounter
from pemeta.heads import TokenClassificationHead
from pemeta.tasks.episodes import EpisodeSampler


def agree(ours, expected):
    assert len(ours) == len(expected) > 0
    for one, other in zip(ours, expected, strict=True):
        for a, b in zip(one, other, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("task", [PROMPTED, *(task for task, _ in EACH_KIND)], ids=lambda task: task.name)
@pytest.mark.parametrize("size", [1, 3])
def test_fine_tuning_in_parts_has_the_gradient_of_the_whole_batch(monkeypatch, task, size):
    def tuned(micro):
        settings = FineTuning(epochs=1, batch_size=5, micro_batch_size=micro, lr=1e-12)
        return finetune(tiny_gpt2(LoRA(rank=2), dropout=0.0), task, task.train, settings, progress=False)

    whole, one = gradients(monkeypatch, lambda: tuned(None))
    parts, other = gradients(monkeypatch, lambda: tuned(size))
    agree(parts, whole)
    assert other.losses == pytest.approx(one.losses, abs=1e-12)


@pytest.mark.parametrize(
    "algorithm",
    [
        MetaPriming(outer_dropout=False),
        MetaPriming(outer_dropout=False, first_order=False, outer_loss="mean", sentences="both"),
        FineTunePriming(outer_dropout=False),
    ],
    ids=["meta", "second order", "finetune"],
)
def test_priming_in_parts_has_the_gradient_of_the_whole_batch(monkeypatch, algorithm):
    settings = {"outer_steps": 2, "support_size": 4, "query_size": 5, "outer_lr": 1e-12}

    def primed(micro):
        own = algorithm.model_copy(update={**settings, "micro_batch_size": micro})
        model = tiny_gpt2(LoRA(rank=2), dropout=0.0)
        return prime(model, [PROMPTED, EACH_KIND[0][0]], own, progress=False)

    whole, one = gradients(monkeypatch, lambda: primed(None))
    parts, other = gradients(monkeypatch, lambda: primed(2))
    agree(parts, whole)
    assert [step.outer for step in other.losses] == pytest.approx([step.outer for step in one.losses], abs=1e-12)


def test_passes_have_no_more_examples_than_asked_for(monkeypatch):
    """Support sets apart, which inner steps see as a whole."""
    model, sizes = tiny(), []
    original = type(model).loss

    def noted(self, batch, task):
        sizes.append(len(batch["labels"]))
        return original(self, batch, task)

    monkeypatch.setattr(type(model), "loss", noted)
    task = Task.token_classification("en", data(0))
    prime(
        model,
        [task],
        MetaPriming(outer_steps=1, inner_steps=1, support_size=4, query_size=5, micro_batch_size=2),
        progress=False,
    )
    assert sizes[-3:] == [2, 2, 1]
    sizes.clear()
    finetune(model, task, data(1), FineTuning(epochs=1, batch_size=8, micro_batch_size=3), progress=False)
    assert sizes == [3, 3, 2, 3, 1]


def test_a_part_holds_less():
    """Activations of a training pass, counted without values."""
    held = {}
    for micro in (None, 2):
        model = tiny_gpt2(LoRA(rank=2), dropout=0.0)
        model.add_head("prompted", PROMPTED.make_head)
        settings = FineTuning(micro_batch_size=micro)
        batches = [PROMPTED.train.batch(part) for part in settings.parts(np.arange(8))]
        with CostCounter() as counter:
            before = counter.known(model.parameters())
            for batch in batches:
                model.loss(batch, "prompted").backward()
            held[micro] = counter.peaks[""].held - before
    gradients = sum(parameter.numel() for parameter in model.parameters()) * 8
    assert held[2] - gradients < 0.5 * (held[None] - gradients)


def test_parts_of_an_episode():
    [[episode]] = [EpisodeSampler([PROMPTED], 4, 5)[0]]
    assert [len(batch["labels"]) for batch in episode.parts("query", 2)] == [2, 2, 1]
    assert [len(batch["labels"]) for batch in episode.parts("both", None)] == [9]
    first, *_ = episode.parts("both", 4)
    assert torch.equal(first["input_ids"], episode.support["input_ids"])


class OwnHead(TokenClassificationHead):
    def labelled(self, batch):
        return None


def test_a_head_that_does_not_say_what_its_loss_is_the_mean_over_is_refused():
    task = Task("en", data(0), lambda width: OwnHead(width, 3))
    settings = FineTuning(epochs=1, batch_size=4, micro_batch_size=2)
    with pytest.raises(ConfigError, match=r"micro_batch_size weighs .* OwnHead does not say .*; define its method lab"):
        finetune(tiny(), task, data(1), settings, progress=False)
    finetune(tiny(), task, data(1), settings.model_copy(update={"micro_batch_size": None}), progress=False)


@pytest.mark.parametrize(
    "make", [lambda: ReptilePriming(micro_batch_size=2), lambda: MetaPriming(micro_batch_size=2, batch_tasks=True)]
)
def test_what_has_no_batch_to_split_is_refused(make):
    with pytest.raises(ConfigError, match="micro_batch_size splits the examples of the outer loss; found 2"):
        make()
