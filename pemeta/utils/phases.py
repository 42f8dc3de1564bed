"""Named phases of a step: code marks them, and the profiler and any observers see them.

Code marks a phase with :func:`phase`, wherever it happens::

    with phase("inner loop"):
        ...

An observer is a function from a phase's name to a context manager, which is entered and left with the phase::

    seconds: Counter[str] = Counter()

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds[name] += time.perf_counter() - started

    with observed(timed):
        algorithm.accumulate(model, episodes)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from typing import TypeAlias

from torch.profiler import record_function

PREFIX = "pemeta: "
"""Beginning of the names that phases have in the profiler."""

PhaseObserver: TypeAlias = Callable[[str], AbstractContextManager[object]]
"""Returns, for a phase's name, a context manager that is entered and left with the phase; it suppresses no errors."""

_observers: ContextVar[tuple[PhaseObserver, ...]] = ContextVar("observers of phases", default=())


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Mark the block as a phase, for the profiler (as ``pemeta: NAME``) and for this thread's observers.

    Phases may be nested; observers then see the inner phase within the outer one. Without a profiler and observers,
    it costs about ten microseconds.

    Args:
        name: what the block does; several blocks of one name are one phase that occurs several times.
    """
    with ExitStack() as stack:
        stack.enter_context(record_function(PREFIX + name))
        for observer in _observers.get():
            stack.enter_context(observer(name))
        yield


@contextmanager
def observed(observer: PhaseObserver) -> Iterator[None]:
    """Let an observer see the phases that this thread enters within the block, beside any observers already there."""
    token = _observers.set((*_observers.get(), observer))
    try:
        yield
    finally:
        _observers.reset(token)
