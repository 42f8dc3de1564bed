"""The results as pictures: bars for the main group, lines for growth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from speedbench.records import Records, Result

COLOURS = {
    "floor": "#999999",
    "fine-tuning": "#c9c9c9",
    "pemeta": "#0b6e99",
    "pemeta, batched": "#63b4d1",
    "hand-written": "#e08e0b",
    "torchopt": "#8e6c8a",
    "higher": "#5b8c5a",
    "maml": "#b3443c",
}
GIB = 2**30
SIZES = {"MiniLM": 22.6, "mBERT": 177.3, "XLM-R large": 559.9}
"""Millions of parameters."""

Quantity = Callable[[Result], float | None]


def seconds(result: Result) -> float | None:
    """Of an outer step."""
    return result.seconds


def gib(result: Result) -> float | None:
    """Of memory."""
    return None if result.memory is None else result.memory / GIB


QUANTITIES: tuple[tuple[Quantity, str], ...] = ((seconds, "seconds per outer step"), (gib, "peak memory, GiB"))


def draw(records: Records) -> list[Path]:
    """Write a PNG for each group that has one and is there; returns them."""
    plans = {"main": _main, "growth-steps": _steps, "growth-tasks": _tasks, "growth-theta": _theta}
    written = []
    for group, plan in plans.items():
        figure = plan(records) if records.read(group) is not None else None
        if figure is not None:
            written.append(records.folder / f"{group}.png")
            figure.savefig(written[-1], dpi=110, metadata={"Software": None})
            plt.close(figure)
    return written


def _main(records: Records) -> Any:
    """A row for each shape: first and second order, time and memory."""
    races = {race.name: race for race in records.races("main")}
    shapes = [name for name in races if "," not in name]
    figure, axes = plt.subplots(len(shapes), 4, figsize=(15, 3.1 * len(shapes)), squeeze=False, layout="constrained")
    for row, shape in zip(axes, shapes, strict=True):
        for place, first_order in ((0, True), (1, False)):
            race = races.get(shape if first_order else f"{shape}, second order")
            found = [r for r in race.results if not r.error and r.case.first_order is first_order] if race else []
            order = "first order" if first_order else "second order"
            _bars(row[place], found, seconds, f"{shape}, {order}", "seconds per outer step")
            _bars(row[place + 2], found, gib, f"{shape}, {order}", "peak memory, GiB")
    return figure


def _bars(axes: Axes, found: list[Result], quantity: Quantity, title: str, label: str) -> None:
    known = [(r.case.contender, value) for r in found if (value := quantity(r)) is not None]
    names, values = [name for name, _ in known], [value for _, value in known]
    bars = axes.barh(names, values, color=[COLOURS[name] for name in names])
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.set(title=title, xlabel=label)


def _steps(records: Records) -> Any:
    figure, axes = plt.subplots(1, 4, figsize=(15, 3.6), layout="constrained")
    found = [result for race in records.races("growth-steps") for result in race.results if not result.error]
    for place, method in enumerate(("adapter", "lora")):
        results = [result for result in found if result.case.method == method]
        for axis, quantity, label in (
            (axes[place], seconds, "seconds per outer step"),
            (axes[place + 2], gib, "peak memory, GiB"),
        ):
            _curves(axis, results, lambda r: float(r.case.inner_steps), quantity)
            axis.set(title=f"MiniLM, {method}", xlabel="inner steps S", ylabel=label)
    return _with_legend(figure)


def _tasks(records: Records) -> Any:
    races = [race for race in records.races("growth-tasks") if not race.name.endswith("AdamW")]
    if not races:  # a quick run has none
        return None
    figure, axes = plt.subplots(len(races), 2, figsize=(9, 3.3 * len(races)), squeeze=False, layout="constrained")
    for place, race in enumerate(races):
        found = [result for result in race.results if not result.error]
        time, memory = axes[place]
        _curves(time, found, lambda r: float(r.case.tasks), lambda r: r.seconds / r.case.tasks)
        _curves(memory, found, lambda r: float(r.case.tasks), gib)
        time.set(title=race.name, xlabel="tasks in the meta-batch", ylabel="seconds per task")
        memory.set(title=race.name, xlabel="tasks in the meta-batch", ylabel="peak memory, GiB")
        for axis in (time, memory):
            axis.set_xticks(sorted({result.case.tasks for result in found}))
    return _with_legend(figure)


def _theta(records: Records) -> Any:
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    found: dict[tuple[str, str], Result] = {}
    for race in records.races("growth-theta"):
        for result in race.results:
            if not result.error:
                found.setdefault((result.case.shape, result.case.contender), result)
    for axis, (quantity, label) in zip(axes, QUANTITIES, strict=True):
        _curves(axis, list(found.values()), lambda r: SIZES[r.case.shape], quantity)
        axis.set(title="output adapter, 2 tasks, S = 5", xlabel="parameters of the backbone, millions", ylabel=label)
    return _with_legend(figure)


def _curves(axes: Axes, found: list[Result], across: Callable[[Result], float], quantity: Quantity) -> None:
    """A line for each contender."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for result in found:
        value = quantity(result)
        if value is not None:
            name = f"{result.case.contender}{', batched' * result.case.batch_tasks}"
            curves.setdefault(name, []).append((across(result), value))
    for name, points in curves.items():
        places, values = zip(*sorted(points), strict=True)
        axes.plot(places, values, "o-", label=name, color=COLOURS[name], markersize=4)
    if curves:
        axes.set(xlim=(0, 1.05 * axes.dataLim.x1), ylim=(0, 1.1 * axes.dataLim.y1))
    axes.grid(alpha=0.3)


def _with_legend(figure: Any) -> Any:
    handles = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), frameon=False)
    return figure
