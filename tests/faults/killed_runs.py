"""A program that kills runs (SIGKILL) at chosen points and resumes them.

It imports everything once and then forks, so that hundreds of runs take seconds each. Every operation on the disk and
every training step is a point, counted from 1. A run can be killed at any point; if the point writes a file, half of
the file is written first.

    python killed_runs.py CONFIG FOLDER POINT [POINT ...]

creates FOLDER/whole by an undisturbed run, and FOLDER/POINT by a run that is killed at that point and resumed; with
the POINT ``5+9`` it is killed at point 5, and again at point 9 of the resumed run. It prints one JSON object for each:
the points of the whole run, or how the processes ended.
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
import pemeta.experiments.runner  # so that its dependencies are imported before the fork
import pemeta.priming.job
import pemeta.training.finetuning
from pemeta.utils import files


class Points:
    """A counter of the points of a run, which kills the process at one of them."""

    def __init__(self, deadly: int | None) -> None:
        self.deadly = deadly
        self.seen: list[str] = []

    def pass_(self, kind: str, half: Callable[[], object] = lambda: None) -> None:
        self.seen.append(kind)
        if len(self.seen) == self.deadly:
            half()
            os.kill(os.getpid(), signal.SIGKILL)

    def before(self, owner: Any, name: str, kind: str) -> None:
        """Make each call of a function a point."""
        original = getattr(owner, name)

        @functools.wraps(original)
        def watched(*arguments: Any, **kwargs: Any) -> Any:
            self.pass_(kind)
            return original(*arguments, **kwargs)

        setattr(owner, name, watched)

    def watch(self) -> None:
        """Make every write and every training step a point."""
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
        self.before(files, "flush", "flush")
        self.before(files, "flush_folder", "flush names")
        self.before(Path, "replace", "rename")
        self.before(Path, "unlink", "remove")
        self.before(Path, "mkdir", "make a folder")
        self.before(files.shutil, "rmtree", "remove a folder")
        self.before(PreTrainedModel, "save_pretrained", "save a backbone")
        self.before(pemeta.priming.job.PrimingJob, "gradient", "step of priming")
        self.before(pemeta.training.finetuning.FineTuningJob, "gradient", "step of fine-tuning")
        self.before(pemeta.training.finetuning, "evaluate", "validation")


def child(config: str, output: Path, deadly: int | None) -> tuple[int, list[str]]:
    """Run in a child process; return its exit status (negative for a signal) and the points that it passed."""
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
        received = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), json.loads(received or "[]")


def main() -> None:
    torch.set_num_threads(1)  # threads do not survive a fork
    config, folder = sys.argv[1], Path(sys.argv[2])
    code, seen = child(config, folder / "whole", None)
    print(json.dumps({"code": code, "points": seen}), flush=True)
    for point in sys.argv[3:]:
        deaths = [child(config, folder / point, int(deadly))[0] for deadly in point.split("+")]
        last = child(config, folder / point, None)[0]
        print(json.dumps({"point": point, "deaths": deaths, "last": last}), flush=True)


if __name__ == "__main__":
    main()
