"""One process per case: it makes its contender, then does one step each time it is asked, and waits in between."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

from speedbench.cases import Case

PRELOADED = ["speedbench.shapes", "speedbench.measure", "speedbench.contenders.base", "pemeta.priming.learner"]
ANSWER_SECONDS = 1800


class WorkerError(Exception):
    """A worker could not do what it was asked; the message says why."""


class Worker:
    """The controller's end of a worker process.

    A request is a word; the answer a pair (whether it worked, result or error in words).
    """

    def __init__(self, case: Case, device: str = "cpu") -> None:
        self._connection, theirs = multiprocessing.Pipe()
        self._process = _context().Process(target=serve, args=(theirs, case, device), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, word: str) -> Any:
        """One of three things; the first request makes the contender, which takes a while.

        ``step``: do one; a :class:`speedbench.measure.Measured`. ``gradients``: some of those that it left. ``rest``:
        drop what the step left and give memory back; what is held between steps, and other facts.

        Raises:
            WorkerError: the worker failed or died.
        """
        try:
            self._connection.send(word)
            if not self._connection.poll(ANSWER_SECONDS):
                raise WorkerError(f"no answer within {ANSWER_SECONDS} s")
            worked, answer = self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join(5)
            code = self._process.exitcode
            hint = ", perhaps for want of memory" if code == -signal.SIGKILL else ""
            raise WorkerError(f"the process died with exit code {code}{hint}") from None
        if not worked:
            raise WorkerError(answer)
        return answer

    def close(self) -> None:
        """End the process."""
        self._connection.close()  # which the worker takes as the end
        self._process.join(2)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _context() -> Any:
    """Workers fork from a process that has imported the libraries and done nothing with them yet."""
    here = str(Path(__file__).parents[1])
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if here not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([here, *filter(None, paths)])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def serve(connection: Connection, case: Case, device: str) -> None:
    """The worker's life: make the contender, answer requests until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the controller's to handle
    contender: Any = None
    while True:
        try:
            word = connection.recv()
        except (EOFError, ConnectionError):
            return
        try:
            if contender is None:
                contender = _make(case, device)
            connection.send((True, _answer(contender, word)))
        except (EOFError, ConnectionError):
            return
        except Exception as error:
            if os.environ.get("SPEED_DEBUG"):
                traceback.print_exc()
            connection.send((False, _in_words(error)))


def _make(case: Case, device: str) -> Any:
    from speedbench.contenders import make_contender  # here: the controller does without torch

    return make_contender(case, device)


def _answer(contender: Any, word: str) -> Any:
    from speedbench.measure import measured, release

    if word == "step":
        return measured(contender.step, contender.device)
    if word == "gradients":
        return contender.gradients()
    if word == "rest":
        found = {"held_bytes": contender.held_bytes(), "facts": contender.facts()}
        contender.reset()
        release()
        return found
    raise ValueError(f"unknown request {word!r}")


def _in_words(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:400]
