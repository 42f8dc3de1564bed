"""All tasks of a meta-batch in one pass, each with θ_a of its own: equal to each by itself, by an explicit unroll."""

import pytest
import torch
from architectures import ARCHITECTURES, untouched
from tiny_models import METHODS
from unroll import FLOAT32, episodes, largest_error, meta, model_of

from pemeta.priming.task_groups import TaskGroup

GROUPED = {name: method for name, (method, _) in METHODS.items() if method.by_example}
each_order = pytest.mark.parametrize("order", ["first", "second"])


@pytest.fixture
def passes(monkeypatch):
    """The number of tasks in each pass of a group."""
    found, losses_at = [], TaskGroup.losses_at

    def watched(self, values, batches):
        found.append(len(batches))
        return losses_at(self, values, batches)

    monkeypatch.setattr(TaskGroup, "losses_at", watched)
    return found


def pairs():
    every = [(name, a) for name in GROUPED for a in ARCHITECTURES]
    return [(n, a) for n, a in every if GROUPED[n].unsupported(untouched(a)) is None]


def error(name, architecture, order, **settings):
    model = model_of(GROUPED[name], architecture)
    drawn = episodes(architecture, shorter=0 if architecture == "vit" else 2)
    return largest_error(model, meta(order, batch_tasks=True, **settings), model_of(GROUPED[name], architecture), drawn)


@each_order
@pytest.mark.parametrize(("name", "architecture"), pairs())
def test_an_outer_step_equals_the_unroll(name, architecture, order, passes):
    exact = order == "first" or architecture not in FLOAT32
    assert error(name, architecture, order) < (1e-10 if exact else 1e-7)
    assert passes == [2, 2, 2]
