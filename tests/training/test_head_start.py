"""Fine-tuning from the head that priming has left: which head that is, its values at the start, and resuming."""

import signal
from functools import partial

import pytest
import torch
from tiny_models import TASKS, data, tiny

from pemeta import FineTuning, MetaPriming, Task, TokenClassification, finetune, prime
from pemeta.errors import ConfigError, OutputError
from pemeta.training.callbacks import Callback

SHARED = MetaPriming(
    outer_steps=4,
    outer_lr=0.05,
    inner_steps=2,
    support_size=3,
    query_size=3,
    primes=("theta_p", "theta_a", "theta_h"),
    source_heads="shared",
)
TARGET, VALIDATION = Task.token_classification("af", data(5)), data(6)
FROM_PRIMED = FineTuning(epochs=2, batch_size=5, lr=0.05, head="primed")

fine_tuned = partial(finetune, validation=VALIDATION, settings=FROM_PRIMED, progress=False)


class Start(Callback):
    """Takes down the model's values when a run starts."""

    def __init__(self, model):
        self.model, self.values = model, {}

    def on_start(self, state):
        self.values = self.model.state()


class StopAfter(Callback):
    def __init__(self, step):
        self.step = step

    def on_step(self, state):
        if state.step == self.step:
            signal.raise_signal(signal.SIGINT)


def primed(algorithm=SHARED):
    model = tiny()
    prime(model, TASKS, algorithm, seed=3, progress=False)
    return model


def head_values(model, task, state=None):
    prefix, state = f"{model.head_prefix(task)}.", state or model.state()
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def at_start(model, task, **changes):
    start = Start(model)
    fine_tuned(model, task, settings=FROM_PRIMED.model_copy(update=changes), callbacks=[start])
    return start.values


def test_a_head_starts_as_that_of_the_source_tasks_and_leaves_it_as_it_is():
    model = primed()
    source = head_values(model, "en")
    assert not same(source, head_values(with_new_head(), "en"))  # priming has moved it
    assert same(head_values(model, "af", at_start(model, TARGET)), source)
    assert same(head_values(model, "en"), source)
    assert not same(head_values(model, "af"), source)
    assert model.head("en") is model.head("es")


def with_new_head():
    model = tiny()
    model.add_head("en", TASKS[0].make_head, seed=3)
    return model


def test_a_new_head_does_not_depend_on_the_source_tasks():
    model, other = primed(), tiny()
    other.add_head("af", TARGET.make_head, seed=0)
    assert same(head_values(model, "af", at_start(model, TARGET, head="new")), head_values(other, "af"))


def test_the_head_of_several_tasks_comes_before_those_of_earlier_targets():
    model = primed()
    before, source = model.state(), head_values(model, "en")
    for name in ("af", "nl", "af"):
        model.load_state(before)
        task = Task.token_classification(name, data(5))
        assert same(head_values(model, name, at_start(model, task)), source)


@pytest.mark.parametrize("name", ["en", "es"])
def test_a_source_task_is_fine_tuned_from_its_own_head_and_the_other_keeps_it(name):
    """Also if the head was its own and the other one only used it."""
    model = primed()
    (other,) = {"en", "es"} - {name}
    source = head_values(model, name)
    assert same(head_values(model, name, at_start(model, TASKS[name == "es"])), source)
    assert same(head_values(model, other), source)
    assert not same(head_values(model, name), source)


def test_one_source_task_needs_no_sharing():
    model = tiny()
    prime(model, TASKS[:1], SHARED.model_copy(update={"source_heads": "carried"}), progress=False)
    source = head_values(model, "en")
    assert same(head_values(model, "af", at_start(model, TARGET)), source)


@pytest.mark.parametrize("step", [1, 3, 4])
def test_a_resumed_run_is_equal(tmp_path, step):
    path, whole, parts = tmp_path / "c.safetensors", primed(), primed()
    history = fine_tuned(whole, TARGET)
    with pytest.raises(KeyboardInterrupt):
        fine_tuned(primed(), TARGET, checkpoint=path, callbacks=[StopAfter(step)])
    with pytest.raises(OutputError, match="head"):
        fine_tuned(primed(), TARGET, settings=FROM_PRIMED.model_copy(update={"head": "new"}), checkpoint=path)
    again = fine_tuned(parts, TARGET, checkpoint=path)
    assert (again.losses, again.validation_scores) == (history.losses, history.validation_scores)
    assert same(whole.state(), parts.state())


def test_validation_during_priming_starts_from_the_primed_head():
    """The score is that of fine-tuning the last values, and differs from that with a new head."""
    validation = {"validate_every": 4, "validation_finetuning": FROM_PRIMED}
    model, other = tiny(), primed()
    history = prime(
        model,
        TASKS,
        SHARED.model_copy(update=validation),
        seed=3,
        validation_tasks=[(TARGET, VALIDATION)],
        progress=False,
    )
    expected = max(fine_tuned(other, TARGET, seed=3).validation_scores)
    assert history.validation_scores == [(4, expected)]
    assert model.tasks == ("en", "es")


# Bad input

OTHER_LABELS = Task("af", data(5), TokenClassification(labels=("O", "B-X", "I-X")))
BY_FUNCTION = Task("af", data(5), lambda width: TokenClassification(labels=TARGET.train.outputs)(width))


@pytest.mark.parametrize(
    ("model", "task", "says"),
    [
        (
            tiny,
            TARGET,
            "with the labels of task 'af', but the model has none; prime with source_heads: shared on tasks",
        ),
        (primed, OTHER_LABELS, "a head with the labels of task 'af', but the model has none"),
        (
            lambda: primed(SHARED.model_copy(update={"source_heads": "carried"})),
            TARGET,
            r"but the model has several \(of en, es\); prime with source_heads: shared, remove all but one with drop_h",
        ),
        (primed, BY_FUNCTION, "needs to compare heads, but that of task 'af' is made by a function; make it from a He"),
    ],
    ids=["unprimed", "other labels", "several", "function"],
)
def test_a_head_that_is_not_there_is_refused_and_nothing_changes(model, task, says):
    model = model()
    before = model.state()
    with pytest.raises(ConfigError, match=says):
        fine_tuned(model, task)
    assert same(model.state(), before)


def test_validation_tasks_need_a_source_task_with_their_labels():
    algorithm = SHARED.model_copy(update={"validate_every": 2, "validation_finetuning": FROM_PRIMED})
    with pytest.raises(ConfigError, match="validation task 'af' cannot start from a primed head, because no source"):
        prime(tiny(), TASKS, algorithm, validation_tasks=[(OTHER_LABELS, VALIDATION)], progress=False)


@pytest.mark.parametrize("name", ["meta", "finetune", "persistent"])
def test_validation_from_a_primed_head_needs_a_shared_one(name):
    from pemeta.priming.algorithms import PrimingAlgorithm

    with pytest.raises(ConfigError, match=r"validation_finetuning\.head: primed needs source_heads: shared, so that"):
        PrimingAlgorithm.parse({"name": name, "validation_finetuning": {"head": "primed"}})
