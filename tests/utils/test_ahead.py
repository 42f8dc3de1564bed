"""Batches made ahead: for CUDA only, in another thread, and the same as those made when they are asked for."""

import contextlib
import threading

import pytest
import torch
from tiny_models import METHODS, TASKS, data, shaken, tiny

from pemeta import Episode, FineTuning, MetaPriming, evaluate, finetune, prime
from pemeta.data.encoding import Encoded
from pemeta.utils import ahead as module
from pemeta.utils.ahead import Ahead, in_turn

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 1)
PRIMING = {"outer_steps": 4, "support_size": 3, "query_size": 3, "inner_steps": 2}


@pytest.fixture
def on_gpu(monkeypatch):
    """The GPUs that threads have chosen; all is made ahead, as if the CPU were one, and in the main thread's stream."""
    chosen, streams = [], []

    def device(given):
        chosen.append((given, threading.current_thread()))
        return contextlib.nullcontext()

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda given: threading.current_thread())
    monkeypatch.setattr(torch.cuda, "stream", lambda of: contextlib.nullcontext(streams.append(of)))
    monkeypatch.setattr(Ahead, "on", True)
    yield chosen
    assert all(stream is threading.main_thread() for stream in streams)
    assert len(streams) == len(chosen)


@pytest.fixture
def batches(monkeypatch):
    """The threads in which batches are made."""
    seen, batch = [], Encoded.batch

    def recorded(self, indices):
        seen.append(threading.current_thread() is threading.main_thread())
        return batch(self, indices)

    monkeypatch.setattr(Encoded, "batch", recorded)
    return seen


def test_a_processor_makes_nothing_ahead():
    made = []
    ahead = Ahead(lambda number: made.append((number, threading.current_thread())), 5, CPU)
    for number in (0, 1, 1, 3):
        ahead.take(number)
    assert made == [(number, threading.main_thread()) for number in (0, 1, 1, 3)]


def test_the_next_one_is_made_in_a_thread_on_the_same_gpu(on_gpu):
    made = []
    ahead = Ahead(lambda number: made.append((number, threading.current_thread())) or -number, 3, CUDA)
    assert [ahead.take(number) for number in range(3)] == [0, -1, -2]
    ahead.close()
    [first, second, third] = made
    assert first == (0, threading.main_thread())
    assert [second[0], third[0]] == [1, 2]
    assert second[1] is third[1] is not threading.main_thread()
    assert on_gpu == [(CUDA, second[1]), (CUDA, second[1])]
    assert not second[1].is_alive()


def test_a_step_that_is_tried_again_or_left_out_is_made_of_its_own_number(on_gpu):
    ahead = Ahead(lambda number: -number, 10, CUDA)
    assert [ahead.take(number) for number in (0, 1, 1, 2, 7, 3)] == [0, -1, -1, -2, -7, -3]
    ahead.close()


def test_an_error_is_raised_by_the_step_that_it_belongs_to(on_gpu):
    def make(number):
        if number == 1:
            raise ValueError("no such row")
        return number

    turns = in_turn(make, 3, CUDA)
    assert next(turns) == 0
    with pytest.raises(ValueError, match="no such row"):
        next(turns)
    assert [one for one in threading.enumerate() if one.name.startswith("pemeta-ahead")] == []


@pytest.mark.parametrize("settings", [{}, {"fresh_support": True}, {"hybrid": 0.5}])
def test_priming_is_the_same_to_the_bit(settings, on_gpu, batches, monkeypatch):
    algorithm, results, in_main = MetaPriming(**PRIMING, **settings), [], []
    for on in (True, False):
        monkeypatch.setattr(Ahead, "on", on)
        batches.clear()
        model = shaken(tiny(METHODS["lora"][0]))
        history = prime(model, TASKS, algorithm, progress=False)
        results.append((history.losses, list(model.parameters())))
        in_main.append(sum(batches))
    (ours, values), (theirs, others) = results
    assert ours == theirs
    assert all(map(torch.equal, values, others))
    assert in_main[0] < in_main[1]
    if not settings:
        assert in_main[0] <= 8  # until what a step asks for is known, after the first one
        assert in_main[1] == 4 * 4


def test_fine_tuning_and_evaluation_are_the_same_to_the_bit(on_gpu, batches, monkeypatch):
    settings, results, in_main = FineTuning(epochs=2, batch_size=4, reuse_trunk=False, dropout=True), [], []
    for on in (True, False):
        monkeypatch.setattr(Ahead, "on", on)
        batches.clear()
        model = shaken(tiny(METHODS["lora"][0]))
        history = finetune(model, TASKS[0], data(7), settings, progress=False)
        scores = evaluate(model, data(7), TASKS[0].name, batch_size=4)
        results.append((history.losses, history.validation_scores, scores, list(model.parameters())))
        in_main.append(sum(batches))
    assert results[0][:3] == results[1][:3]
    assert all(map(torch.equal, results[0][3], results[1][3]))
    assert in_main[0] == 1 + 2 + 1  # the first of training, of validation after each epoch, and of evaluation
    assert in_main[1] > 10


def test_batches_of_an_episode_that_are_prepared_are_made_once(batches):
    task = TASKS[0]
    episode = Episode(task, (0, 1), (4, 5, 6))
    episode.make_ahead([(0, 2), (2, 5)], CPU)
    assert len(batches) == 2
    assert episode.support["input_ids"].shape[0] == 2
    assert torch.equal(episode.query["labels"], task.train.batch([4, 5, 6])["labels"])
    assert len(batches) == 3  # the oracle's
    assert episode.both["labels"].shape[0] == 5
    assert episode.asked == ((0, 2), (2, 5), (0, 5))
    assert module.Ahead(len, 0, CUDA).on
