"""Stopping when somebody asks for it: between two steps and not inside one."""

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
    """Within the block the first Ctrl-C (SIGINT) or SIGTERM is only noted; the value given tells whether one came.

    The block asks between its steps, saves, and leaves; a second signal interrupts at once. Outside the main
    thread, where Python delivers no signals, nothing is noted. A block within another notes with it.
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
        # Who reads it may have been stopped too, or something is being written just now.
        with suppress(OSError, RuntimeError, ValueError):
            print("\nstopping after this step; once more to stop at once", file=sys.stderr, flush=True)  # noqa: T201

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
    """Within the block SIGTERM is what Ctrl-C is, so that whoever sends it learns how to go on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
