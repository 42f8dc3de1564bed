"""Worker processes that do the stages of a grid, several at a time."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from typing_extensions import Self

from pemeta.errors import PemetaError
from pemeta.experiments.backbones import Home
from pemeta.experiments.config import GridConfig
from pemeta.experiments.executor import Executor
from pemeta.experiments.stage import Outcome, Stage

PATIENCE = 10.0
"""Seconds that an idle process gets to end by itself."""


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    stage: Stage | None = None
    last: Stage | None = None


class Workers:
    """Worker processes, each with an executor of its own; a context that starts and ends them.

    Args:
        config: configuration of the grid, with nothing left to search.
        count: number of processes.
        devices: devices that they compute on, in turn; the configuration's if empty.
        home: where a backbone is that is pretrained here.
        log: file that gets a line of JSON for each event of each run; none by default.
    """

    def __init__(
        self, config: GridConfig, count: int, devices: Sequence[str], home: Home, log: Path | None = None
    ) -> None:
        self.log = log
        self.config = config
        self.home = home
        self._devices = [devices[i % len(devices)] if devices else None for i in range(count)]
        self._threads = config.threads or max(1, torch.get_num_threads() // count)
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        self._workers = [self._started(device) for device in self._devices]
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            if worker.stage is not None:
                worker.process.kill()  # its result is not needed any more
            with contextlib.suppress(OSError):
                worker.pipe.send(None)
        for worker in self._workers:
            worker.process.join(PATIENCE)
            worker.process.kill()
            worker.pipe.close()

    def _started(self, device: str | None) -> _Worker:
        context = multiprocessing.get_context("spawn")  # a fork would inherit PyTorch's threads, half alive
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_work, args=(self.config, device, self._threads, self.home, self.log, theirs), daemon=True
        )
        with _interrupts_ignored():  # until the process can handle them; it inherits that
            process.start()
        theirs.close()  # so that its end is seen when the process dies
        return _Worker(process, ours)

    @property
    def running(self) -> list[Stage]:
        """The stages that are running."""
        return [worker.stage for worker in self._workers if worker.stage is not None]

    @property
    def idle(self) -> list[tuple[int, Stage | None]]:
        """The number of each process that has nothing to do, and its last stage."""
        return [(i, worker.last) for i, worker in enumerate(self._workers) if worker.stage is None]

    def assign(self, number: int, stage: Stage) -> None:
        """Have a process do a stage; if it has died, a new one takes its place."""
        try:
            self._workers[number].pipe.send(stage)
        except OSError:  # it has died since its last stage
            self._workers[number] = self._started(self._devices[number])
            self._workers[number].pipe.send(stage)
        self._workers[number].stage = self._workers[number].last = stage

    def interrupt(self) -> None:
        """Ask every busy process to save a checkpoint and stop."""
        for worker in self._workers:
            if worker.stage is not None and worker.process.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.process.pid, signal.SIGINT)

    def receive(self, timeout: float) -> list[Outcome | str]:
        """Outcomes and log lines received; blocks for the first up to ``timeout`` seconds."""
        busy: dict[object, _Worker] = {worker.pipe: worker for worker in self._workers if worker.stage is not None}
        return [
            _received(worker)
            for worker in map(busy.get, wait([worker.pipe for worker in busy.values()], timeout))
            if worker is not None
        ]


def _received(worker: _Worker) -> Outcome | str:
    stage = worker.stage
    assert stage is not None  # only busy workers are waited for
    try:
        message: Outcome | str = worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join(PATIENCE)
        worker.process.kill()  # its pipe is closed, but on a busy machine it may still be ending
        worker.process.join()
        message = Outcome(stage, error=f"its process died ({_ending(worker.process.exitcode)})")
    if isinstance(message, Outcome):
        worker.stage = None
    return message


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # which alone may set handlers of signals
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        killed = code == -signal.SIGKILL  # as the system kills a process when there is no memory left
        return f"{signal.Signals(-code).name}{', possibly out of memory; lower --jobs' if killed else ''}"
    return f"exit code {code}"


def _work(config: GridConfig, device: str | None, threads: int, home: Home, log: Path | None, pipe: Connection) -> None:
    """The main function of a worker process: do one stage after the other."""
    if hasattr(os, "setpgrp"):  # not on Windows
        os.setpgrp()  # a Ctrl-C on the terminal reaches the parent alone, which passes it on once
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    executor: Executor | None = None
    with contextlib.suppress(KeyboardInterrupt, EOFError, OSError):  # while it waits for work
        while (stage := pipe.recv()) is not None:
            try:
                executor = executor or Executor(config, pipe.send, False, device, home, log)
                pipe.send(executor.perform(stage))
            except PemetaError as error:  # the device cannot be used, or the log not be written
                pipe.send(Outcome(stage, error=str(error)))
            except KeyboardInterrupt as interruption:
                pipe.send(Outcome(stage, error=str(interruption) or "stopped"))


def _end_with_parent() -> None:
    """Exit when the parent process dies: no one is left to receive results."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a child
    wait([parent.sentinel])
    os._exit(1)
