"""Interrupts by the user, handled between two steps and not inside one."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType


class Stopped(KeyboardInterrupt):
    """A training run that was interrupted and has stopped between two steps."""


_noted: list[list[int]] = []  # signals, of each deferred_interrupt that is on


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Defer the first Ctrl-C (SIGINT) or SIGTERM in the block; yields a function that returns whether one was received.

    The block checks it between steps, saves, and returns; a second signal interrupts at once. Outside the main
    thread, where Python delivers no signals, nothing is deferred. A block within another shares what that one received.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    if _noted:
        outer = _noted[-1]
        yield lambda: bool(outer)
        return
    seen: list[int] = []
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}

    def note(kind: int, frame: FrameType | None) -> None:
        seen.append(kind)
        signal.signal(kind, signal.default_int_handler)
        # The reader of stderr may be gone, or a write to it may be in progress.
        with suppress(OSError, RuntimeError, ValueError):
            print("\nstopping after this step; repeat to stop at once", file=sys.stderr, flush=True)  # noqa: T201

    for kind in before:
        signal.signal(kind, note)
    _noted.append(seen)
    try:
        yield lambda: bool(seen)
    finally:
        _noted.pop()
        for kind, handler in before.items():
            signal.signal(kind, signal.SIG_DFL if handler is None else handler)  # None: not set from Python


@contextmanager
def termination_interrupts() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C within the block, so that the user is told how to resume."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
