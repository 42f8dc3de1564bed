"""Runs that are killed (SIGKILL) at a chosen point, and taken up again; a program of its own.

It imports everything once and then forks, so that hundreds of runs take seconds each. What a run does to the disk, and
each step of training, is a point, counted from 1: a run that is to die at point N does so there, and where point N
writes a file, with half of it written.

    python killed_runs.py CONFIG FOLDER POINT [POINT ...]

makes FOLDER/whole by a run that nothing happens to, and FOLDER/POINT by one that is killed there and taken up again;
a POINT ``5+9`` is killed at point 5, and at point 9 of what is left. It prints a JSON object for each: the points that
the whole run had, or how the processes ended.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

import pemeta.cli
import pemeta.experiments.runner  # what it needs is imported before the fork
import pemeta.priming.outer_loop
import pemeta.training.finetuning
from pemeta.utils import files


class Points:
    """Counts the points of a run, and kills it at one of them."""

    def __init__(self, deadly: int | None) -> None:
        self.deadly = deadly
        self.seen: list[str] = []

    def pass_(self, kind: str, half: Callable[[], object] = lambda: None) -> None:
        self.seen.append(kind)
        if len(self.seen) == self.deadly:
            half()
            os.kill(os.getpid(), signal.SIGKILL)

    def before(self, owner: Any, name: str, kind: str) -> None:
        """Make what a function does a point."""
        original = getattr(owner, name)

        @functools.wraps(original)
        def watched(*arguments: Any, **kwargs: Any) -> Any:
            self.pass_(kind)
            return original(*arguments, **kwargs)

        setattr(owner, name, watched)

    def watch(self) -> None:
        """Watch everything that writes, and each step."""
        write, save = files._write, files.save_file

        def write_text(path: Path, text: str) -> None:
            self.pass_("text", lambda: write(path, text[: len(text) // 2]))
            write(path, text)

        def save_file(tensors: Any, path: Path, **kwargs: Any) -> None:
            def half() -> None:
                save(tensors, path, **kwargs)
                os.truncate(path, path.stat().st_size // 2)

            self.pass_("tensors", half)
            save(tensors, path, **kwargs)

        files._write, files.save_file = write_text, save_file
        self.before(files, "_flush", "flush")
        self.before(files, "_flush_names", "flush names")
        self.before(Path, "replace", "rename")
        self.before(Path, "unlink", "remove")
        self.before(Path, "mkdir", "make a folder")
        self.before(files.shutil, "rmtree", "remove a folder")
        self.before(PreTrainedModel, "save_pretrained", "save a backbone")
        self.before(pemeta.priming.outer_loop.PrimingJob, "gradient", "step of priming")
        self.before(pemeta.training.finetuning.FineTuningJob, "gradient", "step of fine-tuning")
        self.before(pemeta.training.finetuning, "evaluate", "validation")


def child(config: str, output: Path, deadly: int | None) -> tuple[int, list[str]]:
    """Run in a process of its own; its exit status (negative for a signal), and the points that it passed."""
    reader, writer = os.pipe()
    process = os.fork()
    if not process:
        code = 1
        try:
            os.close(reader)
            log = os.open(output.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            points = Points(deadly)
            points.watch()
            sys.argv = ["pemeta", "run", config, f"output={output}"]
            try:
                pemeta.cli.main()
                code = 0
            except SystemExit as end:
                code = int(end.code or 0)
            os.write(writer, json.dumps(points.seen).encode())
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        told = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), json.loads(told or "[]")


def main() -> None:
    torch.set_num_threads(1)  # a fork would inherit the threads, half alive
    config, folder = sys.argv[1], Path(sys.argv[2])
    code, seen = child(config, folder / "whole", None)
    print(json.dumps({"code": code, "points": seen}), flush=True)
    for point in sys.argv[3:]:
        deaths = [child(config, folder / point, int(deadly))[0] for deadly in point.split("+")]
        last = child(config, folder / point, None)[0]
        print(json.dumps({"point": point, "deaths": deaths, "last": last}), flush=True)


if __name__ == "__main__":
    main()
