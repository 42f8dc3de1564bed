"""Processes that tests start: waited for by events, not by the clock, and ended with all that they started.

Whatever happens: at the end of the ``with`` block, at the end of the session, and, by :func:`watchdog`, when the tests
themselves are killed. Every process is found by a mark in its environment, which all that it starts inherit; process
groups and sessions would not do, since torchrun and the workers of ``--jobs`` open their own.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import psutil

MARK = "PEMETA_TESTS_PROCESS"
SAFETY_NET = 30 * 60
"""Seconds after which a test no longer waits: only so that nothing hangs for ever, however busy the machine is."""

_numbers = itertools.count()


@contextmanager
def started(*command: object, environment: Mapping[str, str] = os.environ, **options: Any) -> Iterator[Any]:
    """Start Python with some arguments; at the end of the block nothing of it is left.

    Args:
        command: what follows ``python``.
        environment: in which it runs.
        options: of :class:`subprocess.Popen`; its output is text, read through pipes.
    """
    mark = f"{os.environ[MARK]}{next(_numbers)}."
    with subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**environment, MARK: mark},
        start_new_session=True,  # a Ctrl-C on the terminal is for the tests
        **{"encoding": "utf-8", **options},
    ) as process:
        try:
            yield process
        finally:
            end_all(mark)


def finished(*command: object, check: bool = False, **options: Any) -> subprocess.CompletedProcess[str]:
    """Start Python as :func:`started` does, and wait until it ends; with ``check`` it must end well."""
    with started(*command, **options) as process:
        out, err = process.communicate(timeout=SAFETY_NET)
    assert process.returncode == 0 or not check, err
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def wait_until(condition: Callable[[], object], process: Any = None) -> None:
    """Wait for an event that has to be looked for, such as a file that appears.

    Args:
        condition: whether it has happened.
        process: what makes it happen; if it ends before, the test fails at once.
    """
    end = time.monotonic() + SAFETY_NET
    while not condition():
        if process is not None and process.poll() is not None and not condition():
            raise AssertionError(f"ended with {process.returncode} before that: {process.communicate()}")
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def end_all(mark: str) -> None:
    """Kill every other process whose mark begins so, and wait until none is left."""
    while found := _marked(mark):
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        time.sleep(0.01)


def _marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # another user's, or gone by now
            if process.pid != os.getpid() and process.environ().get(MARK, "").startswith(mark):
                found.append(process)
    return found


@contextmanager
def watchdog() -> Iterator[None]:
    """Mark all that this process starts within the block, and end it: also where this process is killed."""
    mark = f"{uuid.uuid4().hex}."
    # It sees the end of its input when this process ends, however that is.
    with subprocess.Popen([sys.executable, __file__, mark], stdin=subprocess.PIPE, start_new_session=True):
        os.environ[MARK] = mark
        try:
            yield
        finally:
            del os.environ[MARK]
            end_all(mark)


if __name__ == "__main__":
    sys.stdin.read()
    end_all(sys.argv[1])
