"""The calculator's findings as aligned tables, and as a JSON value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from pemeta.estimate import devices
from pemeta.estimate.findings import Memory
from pemeta.estimate.grid import GridEstimate, StageEstimate
from pemeta.utils.durations import format_duration

UNITS = {"GiB": 2**30, "MiB": 2**20}


def to_text(run: GridEstimate) -> Iterator[str]:
    """Lines for a terminal."""
    processes = "1 process" if run.world_size == 1 else f"{run.world_size} processes"
    length = "as given" if run.length_given else "the longest there can be; --length gives another"
    yield f"{run.device.title}, {gib(run.device.memory)}, {processes}; {run.length} word pieces a sentence ({length})"
    for table in (_parameters(run), _memory(run), _work(run)):
        yield ""
        yield from table
    yield ""
    yield from _whole(run)
    for stage in run.stages:
        if not stage.fits:
            yield from _too_large(run, stage)
    yield (
        f"Times assume {100 * devices.UTILISATION:.0f} % of the matrix products and "
        f"{100 * devices.BANDWIDTH_SHARE:.0f} % of the bandwidth that the data sheet gives, and "
        f"{1e6 * devices.LAUNCH:.0f} µs or more for each operation"
    )


def _parameters(run: GridEstimate) -> list[str]:
    rows: list[Sequence[str]] = [("parameters", "θ_p", "θ_a", "θ_h", "optimised", "a task stores")]
    for stage in run.stages:
        n = stage.parameters
        numbers = [f"{number:,}" for number in (n.theta_p, n.theta_a, n.theta_h, n.trained)]
        share = 100 * n.stored
        rows.append((_label(stage), *numbers, f"{share:.0f} %" if share >= 10 else f"{share:.2g} %"))
    return aligned(rows)


def _memory(run: GridEstimate) -> list[str]:
    shared = run.device.type == "cpu"  # copies are in the same memory
    copies = ("copies",) if shared else ()
    columns = ("weights", "gradients", "optimiser", "clone", "kept", "activations", "overhead", *copies, "all", "fits")
    unit = "MiB" if max(stage.memory.total for stage in run.stages) < UNITS["GiB"] else "GiB"
    rows: list[Sequence[str]] = [(f"memory, {unit}", *columns, "fullest in")]
    for stage in run.stages:
        m = stage.memory
        sizes = [m.weights, m.gradients, m.optimizer, m.clone, m.kept, m.activations, run.device.overhead(m)]
        sizes += [stage.copies] if shared else []
        sizes.append(run.device.needs(m, stage.copies))
        numbers = [f"{size / UNITS[unit]:,.{2 if unit == 'GiB' else 0}f}" for size in sizes]
        rows.append((_label(stage), *numbers, "yes" if stage.fits else "NO", stage.fullest))
    return aligned(rows, to_the_left=(0, len(columns) + 1))


def _work(run: GridEstimate) -> list[str]:
    rows: list[Sequence[str]] = [("time", "GFLOP a step", "a step", "steps", "a run", "runs", "all runs")]
    for stage in run.stages:
        step = f"{1000 * stage.step_seconds:.3g} ms" if stage.step_seconds < 1 else f"{stage.step_seconds:.3g} s"
        gigas = stage.step_flops / 1e9
        work = f"{gigas:,.0f}" if gigas >= 100 else f"{gigas:.3g}"
        times = (format_duration(stage.seconds / stage.runs), f"{stage.runs}", format_duration(stage.seconds))
        rows.append((_label(stage), work, step, f"{stage.steps:,.0f}", *times))
    return aligned(rows)


def _whole(run: GridEstimate) -> Iterator[str]:
    primings, cells = (
        sum(stage.runs for stage in run.stages if stage.kind == kind) for kind in ("priming", "fine-tuning")
    )
    flops = f"{run.flops / 1e15:,.3g} PFLOP" if run.flops >= 1e15 else f"{run.flops / 1e12:,.3g} TFLOP"
    yield f"All {primings} priming and {cells} fine-tuning runs: about {format_duration(run.seconds)}, {flops}"
    if run.device.type != "cpu":
        yield f"Besides, a process has up to {gib(max(stage.copies for stage in run.stages))} in the processor's memory"
    elif run.world_size > 1:
        yield f"The memory is that of one process; {run.world_size} share this machine's"


def _too_large(run: GridEstimate, stage: StageEstimate) -> Iterator[str]:
    def needed(memory: Memory) -> int:
        return run.device.needs(memory, stage.copies, run.world_size)

    yield f"{_label(stage)} needs {gib(needed(stage.memory))}, but there are {gib(run.device.memory)}"
    enough = False
    for remedy in stage.remedies:
        fits = needed(remedy.memory) <= run.device.memory
        enough = enough or fits
        yield f"    {remedy.change}: {gib(needed(remedy.memory))}, which {'fits' if fits else 'is not enough alone'}"
    if not enough:
        yield "    combine these, or take a larger device or a smaller backbone"


def to_json(run: GridEstimate) -> dict[str, Any]:
    """A JSON value: bytes, seconds, and numbers of operations and parameters."""
    stages = []
    for stage in run.stages:
        value = asdict(stage)
        value["memory"]["overhead"] = run.device.overhead(stage.memory)
        value["needs"] = run.device.needs(stage.memory, stage.copies, run.world_size)
        value["parameters"]["stored_share"] = stage.parameters.stored
        stages.append(value)
    return {
        "device": run.device.name,
        "device_memory": run.device.memory,
        "world_size": run.world_size,
        "length": run.length,
        "length_given": run.length_given,
        "utilisation": devices.UTILISATION,
        "bandwidth_share": devices.BANDWIDTH_SHARE,
        "launch_seconds": devices.LAUNCH,
        "stages": stages,
        "flops": run.flops,
        "seconds": run.seconds,
        "fits": all(stage.fits for stage in run.stages),
    }


def gib(size: int) -> str:
    """Bytes as people say them.

    >>> gib(3 * 2**29)
    '1.5 GiB'
    """
    return f"{size / UNITS['GiB']:,.1f} GiB"


def _label(stage: StageEstimate) -> str:
    more = f" and {len(stage.settings) - 1} more" if len(stage.settings) > 1 else ""
    return f"{stage.kind}: {stage.settings[0]}{more}"


def aligned(rows: Sequence[Sequence[str]], to_the_left: Sequence[int] = (0,)) -> list[str]:
    """Rows as lines, their columns to the right but for some.

    >>> aligned([("what", "n"), ("a", "10"), ("b", "9")])
    ['what   n', 'a     10', 'b      9']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        texts = enumerate(zip(row, widths, strict=True))
        lines.append("  ".join(t.ljust(w) if i in to_the_left else t.rjust(w) for i, (t, w) in texts).rstrip())
    return lines
