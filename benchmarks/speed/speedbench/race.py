"""Runs a race: the cases' processes take turns, step by step."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np

from speedbench.cases import Case, Race
from speedbench.machine import memory_gib
from speedbench.worker import Worker, WorkerError

TOLERANCE = 1e-4
REFERENCE = "pemeta"
SAME_GRADIENT = (REFERENCE, "hand-written", "higher", "torchopt")
"""Those that claim priming's meta-gradient: they are compared with the first."""

Gradients = dict[str, np.ndarray]
Say = Callable[[str], None]


def run_race(race: Race, device: str = "cpu", say: Say = print) -> dict[str, Any]:
    """Warm all cases up, compare their gradients, and time them in turn; returns the race's part of a record."""
    started = time.perf_counter()
    entries = [_entry(case) for case in race.cases]
    free = memory_gib()
    if free is not None and free < race.needs_gib:
        for entry in entries:
            entry["error"] = f"left out: needs {race.needs_gib:g} GiB of free memory, found {free:g}"
    else:
        _measure(race, entries, device, say)
    for case, entry in zip(race.cases, entries, strict=True):
        say(f"    {case.words:<44} {_outcome(entry)}")
    return {
        "race": race.name,
        "rounds": race.rounds,
        "wall_seconds": round(time.perf_counter() - started, 1),
        "cases": entries,
    }


def mismatches(record: dict[str, Any]) -> list[str]:
    """Cases of a group's record whose gradients are not those of the reference, in words."""
    return [
        f"{record['group']}: {race['race']}: {Case(**entry['case']).words}: {entry['gradient_difference']:.1e}"
        for race in record["races"]
        for entry in race["cases"]
        if entry["gradient_difference"] is not None and not entry["gradient_difference"] <= TOLERANCE
    ]


def _measure(race: Race, entries: list[dict[str, Any]], device: str, say: Say) -> None:
    with ExitStack() as stack:
        workers: list[Worker] = []
        found: list[tuple[Case, Gradients]] = []
        for case, entry in zip(race.cases, entries, strict=True):
            workers.append(stack.enter_context(Worker(case, device)))
            _guarded(entry, lambda c=case, e=entry, w=workers[-1]: _warm_up(c, e, w, found))  # type: ignore[misc]
        _compare(found, entries)
        for _ in range(race.trials):
            for case, entry, worker in zip(race.cases, entries, workers, strict=True):
                _guarded(entry, lambda c=case, w=worker: _untimed_step(c, w))  # type: ignore[misc]
        for number in range(race.rounds):
            say(f"    round {number + 1} of {race.rounds}")
            for entry, worker in zip(entries, workers, strict=True):
                _guarded(entry, lambda e=entry, w=worker: _timed_step(e, w))  # type: ignore[misc]


def _guarded(entry: dict[str, Any], action: Callable[[], None]) -> None:
    """Do it unless the case has failed already; a failure goes into the entry."""
    if entry["error"] is None:
        try:
            action()
        except WorkerError as error:
            entry["error"] = str(error)


def _warm_up(case: Case, entry: dict[str, Any], worker: Worker, found: list[tuple[Case, Gradients]]) -> None:
    entry["warm_up_seconds"] = round(worker.ask("step").seconds, 4)
    if case.contender in SAME_GRADIENT:
        found.append((case, worker.ask("gradients")))
    entry |= worker.ask("rest")


def _untimed_step(case: Case, worker: Worker) -> None:
    """A step of what tries rows of each size once; the others go on to the next round's sentences, too."""
    if case.padding != "padded":
        worker.ask("step")
    worker.ask("rest")


def _timed_step(entry: dict[str, Any], worker: Worker) -> None:
    done = worker.ask("step")
    entry["seconds"].append(round(done.seconds, 5))
    entry["added_bytes"].append(done.added_bytes)
    entry["peak_bytes"].append(done.peak_bytes)
    entry |= worker.ask("rest")


def _entry(case: Case) -> dict[str, Any]:
    return {
        "case": case.as_dict(),
        "error": None,
        "seconds": [],
        "added_bytes": [],
        "peak_bytes": [],
        "held_bytes": None,
        "warm_up_seconds": None,
        "gradient_difference": None,
        "facts": {},
    }


def _compare(found: list[tuple[Case, Gradients]], entries: list[dict[str, Any]]) -> None:
    """Write each case's distance from the reference on the same setting into its entry."""
    references = {case: gradients for case, gradients in found if case.contender == REFERENCE}
    for case, gradients in found:
        reference = references.get(case.on(contender=REFERENCE, batch_tasks=False, padding="padded"))
        if reference is not None and gradients is not reference:
            entry = next(entry for entry in entries if entry["case"] == case.as_dict())
            entry["gradient_difference"] = difference(gradients, reference)


def difference(found: Gradients, expected: Gradients) -> float:
    """The largest relative difference of a tensor.

    Relative to its norm, or to a hundredth of the largest tensor's where that is more: some gradients are zero but
    for rounding, such as that of a bias of the attention's keys.
    """
    norms = {name: float(np.linalg.norm(value)) for name, value in expected.items()}
    least = 0.01 * max(norms.values())
    return max(float(np.linalg.norm(found[name] - expected[name])) / max(norms[name], least, 1e-30) for name in norms)


def _outcome(entry: dict[str, Any]) -> str:
    if entry["error"] is not None:
        return str(entry["error"])
    words = f"{float(np.median(entry['seconds'])):8.3f} s"
    if entry["added_bytes"][0] is not None and entry["held_bytes"]:
        words += f"  {(entry['held_bytes'] + float(np.median(entry['added_bytes']))) / 2**20:7.0f} MiB"
    if entry["gradient_difference"] is not None:
        words += f"  gradients differ by {entry['gradient_difference']:.0e}"
        words += "  MISMATCH" if not entry["gradient_difference"] <= TOLERANCE else ""
    return words
