"""An estimate as aligned tables, and as a JSON value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from pemeta.errors import counted
from pemeta.estimate import devices
from pemeta.estimate.findings import Memory
from pemeta.estimate.grid import GridEstimate, StageEstimate
from pemeta.utils.durations import format_duration

UNITS = {"GiB": 2**30, "MiB": 2**20}


def to_text(estimate: GridEstimate) -> Iterator[str]:
    """An estimate as lines for a terminal."""
    processes = counted(estimate.world_size, "process", "processes")
    length = "as given" if estimate.length_given else "the longest possible; change it with --length"
    device = f"{estimate.device.title}, {gib(estimate.device.memory)}, {processes}"
    yield f"{device}; {counted(estimate.length, 'token')} per sentence ({length})"
    share = f"{100 * estimate.share:.0f} %"
    yield f"{share} of the positions of padded batches are tokens ({_ORIGINS[estimate.share_from]})"
    for table in (_parameters(estimate), _memory(estimate), _work(estimate)):
        yield ""
        yield from table
    yield ""
    yield from _whole(estimate)
    for stage in estimate.stages:
        if not stage.fits:
            yield from _too_large(estimate, stage)
    yield (
        f"Times assume {100 * devices.UTILISATION:.0f} % of the data sheet's matrix-product rate, "
        f"{100 * devices.BANDWIDTH_SHARE:.0f} % of its bandwidth, and "
        f"at least {1e6 * devices.LAUNCH:.0f} µs per operation"
    )


_ORIGINS = {
    "given": "as given",
    "data": "as of the sources' sentences, in words",
    "assumed": "assumed, as in WikiAnn's English; change it with --share",
}


def _parameters(estimate: GridEstimate) -> list[str]:
    rows: list[Sequence[str]] = [("parameters", "θ_p", "θ_a", "θ_h", "optimised", "a task stores")]
    for stage in estimate.stages:
        n = stage.parameters
        numbers = [f"{number:,}" for number in (n.theta_p, n.theta_a, n.theta_h, n.trained)]
        share = 100 * n.stored
        rows.append((_label(stage), *numbers, f"{share:.0f} %" if share >= 10 else f"{share:.2g} %"))
    return aligned(rows)


def _memory(estimate: GridEstimate) -> list[str]:
    shared = estimate.device.type == "cpu"  # copies occupy the same memory
    copies = ("copies",) if shared else ()
    columns = ("weights", "gradients", "optimiser", "clone", "kept", "activations", "overhead", *copies, "all", "fits")
    unit = "MiB" if max(stage.memory.total for stage in estimate.stages) < UNITS["GiB"] else "GiB"
    rows: list[Sequence[str]] = [(f"memory, {unit}", *columns, "fullest in")]
    for stage in estimate.stages:
        m = stage.memory
        sizes = [m.weights, m.gradients, m.optimizer, m.clone, m.kept, m.activations, estimate.device.overhead(m)]
        sizes += [stage.copies] if shared else []
        sizes.append(estimate.device.needs(m, stage.copies))
        numbers = [f"{size / UNITS[unit]:,.{2 if unit == 'GiB' else 0}f}" for size in sizes]
        rows.append((_label(stage), *numbers, "yes" if stage.fits else "NO", stage.fullest))
        if m.vocabulary is not None:
            rows.append(_share_of_vocabulary(m.vocabulary, UNITS[unit], len(columns)))
    return aligned(rows, to_the_left=(0, len(columns) + 1))


def _share_of_vocabulary(m: Memory, unit: int, columns: int) -> list[str]:
    """What of a stage's memory is as large as the vocabulary: embeddings and output matrix, and logits."""
    sizes = [m.weights, m.gradients, m.optimizer, m.clone, m.kept, m.activations]
    texts = [f"{size / unit:,.{2 if unit == UNITS['GiB'] else 0}f}" for size in (*sizes, m.total)]
    return ["  of the vocabulary's size", *texts[:-1], *[""] * (columns - len(texts) - 1), texts[-1], "", ""]


def _work(estimate: GridEstimate) -> list[str]:
    head = ("time", "positions", "tokens", "GFLOP a step", "a step", "steps", "a run", "runs", "all runs")
    rows: list[Sequence[str]] = [head]
    for stage in estimate.stages:
        step = f"{1000 * stage.step_seconds:.3g} ms" if stage.step_seconds < 1 else f"{stage.step_seconds:.3g} s"
        gigas = stage.step_flops / 1e9
        work = f"{gigas:,.0f}" if gigas >= 100 else f"{gigas:.3g}"
        times = (format_duration(stage.seconds / stage.runs), f"{stage.runs}", format_duration(stage.seconds))
        batch = (f"{stage.positions:,}", f"{100 * stage.tokens:.0f} %")
        rows.append((_label(stage), *batch, work, step, f"{stage.steps:,.0f}", *times))
    return aligned(rows)


def _whole(estimate: GridEstimate) -> Iterator[str]:
    primings, tunings = (
        sum(stage.runs for stage in estimate.stages if stage.kind == kind) for kind in ("priming", "fine-tuning")
    )
    flops = f"{estimate.flops / 1e15:,.3g} PFLOP" if estimate.flops >= 1e15 else f"{estimate.flops / 1e12:,.3g} TFLOP"
    runs = f"{counted(primings, 'priming run')} and {counted(tunings, 'fine-tuning run')}"
    yield f"{runs}: about {format_duration(estimate.seconds)}, {flops}"
    if estimate.device.type != "cpu":
        yield f"Each process also holds up to {gib(max(stage.copies for stage in estimate.stages))} in the CPU's memory"
    elif estimate.world_size > 1:
        yield f"The memory is that of one process; {estimate.world_size} processes share this machine's"


def _too_large(estimate: GridEstimate, stage: StageEstimate) -> Iterator[str]:
    def needed(memory: Memory) -> int:
        return estimate.device.needs(memory, stage.copies, estimate.world_size)

    yield f"{_label(stage)} needs {gib(needed(stage.memory))}, but the device has {gib(estimate.device.memory)}"
    enough = False
    for remedy in stage.remedies:
        fits = needed(remedy.memory) <= estimate.device.memory
        enough = enough or fits
        verdict = "which fits" if fits else "which is not enough on its own"
        yield f"    {remedy.change}: {gib(needed(remedy.memory))}, {verdict}"
    if not enough:
        yield "    combine these, or use a larger device or a smaller backbone"


def to_json(estimate: GridEstimate) -> dict[str, Any]:
    """An estimate as a JSON value: bytes, seconds, and numbers of operations and parameters."""
    stages = []
    for stage in estimate.stages:
        value = asdict(stage)
        value["memory"]["overhead"] = estimate.device.overhead(stage.memory)
        value["needs"] = estimate.device.needs(stage.memory, stage.copies, estimate.world_size)
        value["parameters"]["stored_share"] = stage.parameters.stored
        stages.append(value)
    return {
        "device": estimate.device.name,
        "device_memory": estimate.device.memory,
        "world_size": estimate.world_size,
        "length": estimate.length,
        "length_given": estimate.length_given,
        "share": estimate.share,
        "share_from": estimate.share_from,
        "utilisation": devices.UTILISATION,
        "bandwidth_share": devices.BANDWIDTH_SHARE,
        "launch_seconds": devices.LAUNCH,
        "stages": stages,
        "flops": estimate.flops,
        "seconds": estimate.seconds,
        "fits": all(stage.fits for stage in estimate.stages),
    }


def gib(size: int) -> str:
    """Format bytes as GiB.

    >>> gib(3 * 2**29)
    '1.5 GiB'
    """
    return f"{size / UNITS['GiB']:,.1f} GiB"


def _label(stage: StageEstimate) -> str:
    more = f" and {len(stage.settings) - 1} more" if len(stage.settings) > 1 else ""
    return f"{stage.kind}: {stage.settings[0]}{more}"


def aligned(rows: Sequence[Sequence[str]], to_the_left: Sequence[int] = (0,)) -> list[str]:
    """Format rows as lines with aligned columns, to the right except for some.

    >>> aligned([("what", "n"), ("a", "10"), ("b", "9")])
    ['what   n', 'a     10', 'b      9']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        texts = enumerate(zip(row, widths, strict=True))
        lines.append("  ".join(t.ljust(w) if i in to_the_left else t.rjust(w) for i, (t, w) in texts).rstrip())
    return lines
