"""What the benchmark is to show: each target against what the records hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from speedbench.groups import COMPARED_EPOCHS, REUSED_EPOCHS
from speedbench.records import Records, Result, Results

FASTER = {"mBERT": {"maml": 6.5, "hand-written": 2.2}, "MiniLM": {"maml": 5.2, "hand-written": 1.9}}
PACKED_OVER_HAND_WRITTEN = {"MiniLM": (1.5, 3.2), "mBERT": (1.8, 4.0)}
"""For a method in the layers, and for the adapter at the output."""
TOP_LAYER_SHAPES = ("mBERT", "MiniLM-L12")
OUTPUT, SECOND = "adapter", {"first_order": False}


@dataclass(frozen=True)
class Line:
    """One target.

    Attributes:
        what: in words.
        measured: the number, None where the records do not have it.
        limit: the target.
        sense: how ``measured`` must stand to ``limit``: ``>=``, ``<=`` or ``<``.
        unit: ``x`` for a ratio, or ``s``, or empty.
    """

    what: str
    measured: float | None
    limit: float
    sense: str
    unit: str = "x"

    @property
    def met(self) -> bool | None:
        """Whether the target is met, None where it was not measured."""
        if self.measured is None:
            return None
        return {">=": self.measured >= self.limit, "<=": self.measured <= self.limit, "<": self.measured < self.limit}[
            self.sense
        ]

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """What, target, measured, and how it stands, for a table."""
        found = "-" if self.measured is None else f"{self.measured:.3g} {self.unit}".strip()
        state = {True: "met", False: "**MISSED**", None: "not measured"}[self.met]
        return self.what, f"{self.sense} {self.limit:g} {self.unit}".strip(), found, state


def lines(records: Records) -> list[Line]:
    """All targets of the shapes that the records hold something of."""
    return [
        *_output(records),
        *_in_layer(records),
        *_top_layers(records),
        *_real(records),
        *_real_epochs(records),
        *_memory(records),
        *_tasks(records),
        *_epochs(records),
        *_start_up(records),
    ]


def times(slower: Result | None, faster: Result | None) -> float | None:
    """How many times as long the first takes, by the medians; None where one is missing."""
    return None if slower is None or faster is None else slower.seconds / faster.seconds


def times_memory(more: Result | None, less: Result | None) -> float | None:
    """How many times as much memory the first takes; None where one is missing or memory was not measured."""
    if more is None or less is None or more.memory is None or less.memory is None:
        return None
    return more.memory / less.memory


def _output(records: Records) -> Iterator[Line]:
    for race in records.races("main"):
        if race.name not in FASTER:
            continue
        first = race.find("pemeta", first_order=True)
        for rival, limit in FASTER[race.name].items():
            ratio = times(race.find(rival, first_order=True), first)
            yield Line(f"{race.name}, output adapter: faster than {rival}", ratio, limit, ">=")
        yield Line(f"{race.name}, output adapter: time over the floor's", times(first, race.find("floor")), 1.1, "<=")
        second = times(race.find("pemeta", **SECOND), first)
        yield Line(f"{race.name}, output adapter: second order over first order", second, 1.6, "<=")


def _in_layer(records: Records) -> Iterator[Line]:
    for race in records.races("in-layer"):
        ours, theirs = race.find("pemeta", first_order=True), race.find("hand-written", first_order=True)
        if race.name.endswith("second order"):
            continue
        yield Line(f"{race.name} in all layers: faster than hand-written", times(theirs, ours), 1.25, ">=")
        yield Line(f"{race.name} in all layers: memory over hand-written's", times_memory(ours, theirs), 1, "<")


def _top_layers(records: Records) -> Iterator[Line]:
    for race in records.races("top-layers"):
        shape = race.name.split(",")[0]
        if shape in TOP_LAYER_SHAPES:
            ratio = times(race.find("hand-written"), race.find("pemeta"))
            yield Line(f"{race.name} of 12: faster than hand-written", ratio, 2.5, ">=")


def _real(records: Records) -> Iterator[Line]:
    """On 16 + 16 real sentences, packed."""
    for race in records.races("real"):
        shape, method, sizes = race.name.split(", ")
        packed, padded = race.find("pemeta", padding="packed"), race.find("pemeta", padding="padded")
        written = race.find("hand-written")
        if sizes != "16 + 16":
            continue
        label = f"{shape}, {method}, real sentences"
        if method in ("adapter", "lora"):
            yield Line(f"{label}: packed faster than padded", times(padded, packed), 1.6, ">=")
        limit = PACKED_OVER_HAND_WRITTEN[shape][method == OUTPUT]
        yield Line(f"{label}: packed faster than hand-written", times(written, packed), limit, ">=")
        if method == OUTPUT:
            floor = race.find("floor, tokens only")
            yield Line(f"{label}: packed, time over the floor's without padding", times(packed, floor), 1.2, "<=")
            if shape == "mBERT":
                yield Line(f"{label}: packed faster than maml", times(race.find("maml"), packed), 12, ">=")


def _real_epochs(records: Records) -> Iterator[Line]:
    for race in records.races("real-epochs"):
        for contender, limit in (("epochs, real", 1.5), ("evaluation, real", 1.0)):
            packed = race.find(contender, padding="packed")
            padded = race.find(contender, padding="padded", bucket_by_length=False)
            if packed is None and padded is None:
                continue
            yield Line(f"{race.name} on real sentences: packed faster than padded", times(padded, packed), limit, ">=")
        by_length = race.find("epochs, real", bucket_by_length=True)
        if by_length is not None:
            ratio = times(by_length, race.find("epochs, real", padding="packed"))
            yield Line(f"{race.name} on real sentences: packed faster than batches by length", ratio, 1, ">=")


def _memory(records: Records) -> Iterator[Line]:
    for race in records.races("memory"):
        for tasks in (1, 2):
            ratio = times_memory(race.find("pemeta", tasks=tasks), race.find("fine-tuning", tasks=tasks))
            label = f"{race.name}, {tasks} task{'s' * (tasks > 1)}: memory over plain fine-tuning's"
            yield Line(label, ratio, 1.1, "<=")


def _tasks(records: Records) -> Iterator[Line]:
    for race in records.races("growth-tasks"):
        if not race.name.endswith("with AdamW"):  # without it gradients fill memory that activations of one task had
            continue
        plain: dict[str, Any] = {"batch_tasks": False}
        ratio = times_memory(race.find("pemeta", tasks=16, **plain), race.find("pemeta", tasks=1, **plain))
        change = None if ratio is None else abs(ratio - 1)
        yield Line(f"{race.name}: memory from 1 to 16 tasks, relative change", change, 0.03, "<=", "")


def _epochs(records: Records) -> Iterator[Line]:
    for race in records.races("epochs"):
        reuse = epoch_seconds(race, "epochs, reuse", REUSED_EPOCHS)
        recompute = epoch_seconds(race, "epochs, recompute", COMPARED_EPOCHS)
        ratio = recompute / reuse if reuse and recompute else None
        yield Line(f"{race.name}: epochs after the first, faster with the trunk reused", ratio, 20, ">=")
        found = [race.find(name, epochs=COMPARED_EPOCHS) for name in ("epochs, reuse", "epochs, recompute")]
        scores = [result.entry["facts"]["validation_f1"] for result in found if result is not None]
        apart = max(abs(a - b) for a, b in zip(*scores, strict=True)) if len(scores) == 2 else None
        yield Line(f"{race.name}: validation F1 apart, the trunk reused or not", apart, 1e-3, "<=", "")


def epoch_seconds(race: Results, contender: str, epochs: int) -> float | None:
    """Seconds of an epoch after the first: (time of n epochs - time of one) / (n - 1)."""
    many, one = race.find(contender, epochs=epochs), race.find(contender, epochs=1)
    return None if many is None or one is None else (many.seconds - one.seconds) / (epochs - 1)


def _start_up(records: Records) -> Iterator[Line]:
    for race in records.races("start-up"):
        for what, limit in (("import pemeta", 0.3), ("pemeta --help", 0.5)):
            found = race.find(what)
            yield Line(what, None if found is None else found.seconds, limit, "<", "s")
