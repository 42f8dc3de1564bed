"""Phases: observers see each one entered and left, whatever happens in it, and only in their own thread."""

import threading
from contextlib import contextmanager

import pytest
import torch

from pemeta.utils.phases import PREFIX, observed, phase


class Recorder:
    """An observer that writes down what it sees."""

    def __init__(self):
        self.seen = []

    @contextmanager
    def __call__(self, name):
        self.seen.append(f"+{name}")
        try:
            yield
        finally:
            self.seen.append(f"-{name}")


def test_an_observer_sees_phases_entered_and_left():
    recorder = Recorder()
    with phase("before"), observed(recorder):
        with phase("outer"), phase("inner"):
            pass
        with phase("outer"):
            pass
    with phase("after"):
        pass
    assert recorder.seen == ["+outer", "+inner", "-inner", "-outer", "+outer", "-outer"]


def test_several_observers_see_the_same_phases():
    always, briefly = Recorder(), Recorder()
    with observed(always):
        with observed(briefly), phase("one"):
            pass
        with phase("two"):
            pass
    assert always.seen == ["+one", "-one", "+two", "-two"]
    assert briefly.seen == ["+one", "-one"]


def test_an_observer_that_comes_or_goes_within_a_phase_sees_no_half_of_it():
    late, early = Recorder(), Recorder()
    with phase("outer"), observed(late), phase("inner"):
        pass
    leaving = observed(early)
    with leaving, phase("outer"):
        pass
    assert late.seen == ["+inner", "-inner"]
    assert early.seen == ["+outer", "-outer"]


def test_an_exception_leaves_all_phases_and_observers():
    recorder = Recorder()
    with pytest.raises(KeyError, match="x"), observed(recorder), phase("outer"), phase("inner"):
        raise KeyError("x")
    with phase("later"):
        pass
    assert recorder.seen == ["+outer", "+inner", "-inner", "-outer"]


def test_an_observer_that_fails_leaves_those_that_came_before():
    recorder = Recorder()

    @contextmanager
    def failing(name):
        raise ValueError(name)
        yield

    with observed(recorder):
        with pytest.raises(ValueError, match="inner"), observed(failing), phase("inner"):
            pytest.fail("the phase began without its observer")
        with phase("later"):
            pass
    assert recorder.seen == ["+inner", "-inner", "+later", "-later"]


def test_threads_do_not_see_each_others_phases():
    here, there = Recorder(), Recorder()
    inside, done = threading.Event(), threading.Event()

    def other():
        with phase("unseen"), observed(there), phase("there"):
            inside.set()
            done.wait(30)

    thread = threading.Thread(target=other)
    with observed(here):
        thread.start()
        assert inside.wait(30)
        with phase("here"):
            pass
        done.set()
        thread.join(30)
    assert here.seen == ["+here", "-here"]
    assert there.seen == ["+there", "-there"]


def test_the_profiler_sees_phases_as_ranges():
    with (
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler,
        phase("a phase below θ_a"),
    ):
        torch.ones(2) + 1
    found = {event.name: event for event in profiler.events()}
    within = found[f"{PREFIX}a phase below θ_a"]
    assert PREFIX == "pemeta: "
    assert within.time_range.start <= found["aten::add"].time_range.start <= within.time_range.end
