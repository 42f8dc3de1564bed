"""The records of a grid, checked and in order, with the runs that are expected."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pemeta.errors import OutputError
from pemeta.reporting.records import Record
from pemeta.reporting.scale import Scale, metric_named

if TYPE_CHECKING:  # takes a second to import
    from pemeta.data.metrics import Metric

GROUPS = ("Without priming", "With priming")
RUN_KEYS = ("target", "seed")
"""Fields of a record that are also keys of its ``config``: the only ones that may differ within a setting.

All other keys are compared whatever they are, so that no key of a configuration has to be known here.
"""


@dataclass(frozen=True)
class Planned:
    """The runs that a grid is expected to have; further runs found in records are added.

    Attributes:
        settings: in the order of the tables; settings found only in records follow by name.
        targets: of every setting, in the order of the tables; others follow by name.
        seeds: of every setting.
        targets_of: targets of the settings that have their own.
        seeds_of: seeds of the settings that have their own.
    """

    settings: Sequence[str] = ()
    targets: Sequence[str] = ()
    seeds: Sequence[int] = ()
    targets_of: Mapping[str, Sequence[str]] = field(default_factory=dict)
    seeds_of: Mapping[str, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Grid:
    """Records by setting, ordered by target and seed, and the runs that each setting is expected to have."""

    records: Mapping[str, tuple[Record, ...]]
    settings: tuple[str, ...]
    targets: tuple[str, ...]
    runs: Mapping[str, frozenset[tuple[str, int]]]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of all runs."""
        return tuple(sorted({seed for runs in self.runs.values() for _, seed in runs}))

    @property
    def split(self) -> str:
        """The split that was scored: ``test``, or ``validation`` in a search."""
        return " and ".join(sorted({record.scored_on for record in self.all_records()})) or "test"

    @property
    def unit(self) -> str:
        """The word for a test example."""
        return unit_of(self.all_records())

    @property
    def units(self) -> str:
        """The word for test examples."""
        return f"{self.unit}s"

    @property
    def scale(self) -> Scale:
        """How the scores are shown, which are of one metric."""
        return scale_of(self.all_records())

    def by_metric(self) -> tuple[Grid, ...]:
        """The grid of each metric, with the settings and targets that have no records of the others alone."""
        metrics = tuple(dict.fromkeys(record.metric for record in self.all_records()))
        if len(metrics) < 2:
            return (self,)
        settings: dict[str, set[str]] = {}
        targets: dict[str, set[str]] = {}
        for record in self.all_records():
            settings.setdefault(record.setting, set()).add(record.metric)
            targets.setdefault(record.target, set()).add(record.metric)
        return tuple(
            self.part(
                [name for name in self.settings if metric in settings.get(name, {metric})],
                [name for name in self.targets if metric in targets.get(name, {metric})],
            )
            for metric in metrics
        )

    def rows(self) -> Iterator[tuple[str, Record, tuple[Record, ...]]]:
        """Yield (group, first record, all records) of each setting with records, in the order of the tables."""
        for group, primed in zip(GROUPS, (False, True), strict=True):
            for name in self.settings:
                records = self.records.get(name, ())
                if records and (records[0].priming is not None) == primed:
                    yield group, records[0], records

    def all_records(self) -> list[Record]:
        """Every record, setting by setting."""
        return [record for records in self.records.values() for record in records]

    def part(self, settings: Sequence[str] = (), targets: Sequence[str] = ()) -> Grid:
        """The grid of some settings and targets, in the order given; an empty list keeps all.

        Without targets, the columns are those that any of the settings is expected to have.
        """
        chosen = tuple(settings) or self.settings
        own = {target for name in chosen for target, _ in self.runs.get(name, ())}
        columns = tuple(targets) or tuple(target for target in self.targets if target in own)
        records = {name: tuple(r for r in self.records.get(name, ()) if r.target in columns) for name in chosen}
        runs = {name: frozenset(r for r in self.runs.get(name, ()) if r[0] in columns) for name in chosen}
        return Grid({name: found for name, found in records.items() if found}, chosen, columns, runs)


def make_grid(records: Sequence[Record], planned: Planned) -> Grid:
    """Arrange records in a grid.

    Raises:
        OutputError: records of one setting differ in more than target and seed, or two describe the same run.
    """
    settings = _ordered((record.setting for record in records), planned.settings)
    targets = _ordered((record.target for record in records), planned.targets)
    of_setting: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: (targets.index(record.target), record.seed)):
        of_setting.setdefault(record.setting, []).append(record)
    by_setting = {name: tuple(of_setting[name]) for name in settings if name in of_setting}
    for found in by_setting.values():
        _check_same_setting(found)
    every_seed = planned.seeds or list({record.seed for record in records})
    runs = {
        name: frozenset(
            (target, seed)
            for target in planned.targets_of.get(name) or planned.targets or targets
            for seed in planned.seeds_of.get(name) or every_seed
        ).union((record.target, record.seed) for record in by_setting.get(name, ()))
        for name in settings
    }
    return Grid(by_setting, settings, targets, runs)


def unit_of(records: Iterable[Record]) -> str:
    """The word for a test example of some records."""
    found = {record.unit for record in records}
    return found.pop() if len(found) == 1 else "example"


def scale_of(records: Iterable[Record], of: Literal["metric", "validation_metric"] = "metric") -> Scale:
    """How the scores of some records are shown, those of test or of validation examples.

    Raises:
        OutputError: they are of several metrics, or of one that nobody knows.
    """
    found: dict[Metric, Record] = {}
    for record in records:
        settings = record.metric_settings if of == "metric" else {}
        found.setdefault(metric_named(getattr(record, of), settings), record)
    if len(found) > 1:
        (one, first), (other, second), *_ = found.items()
        names = (
            [f"{metric.name} with {metric}" for metric in (one, other)]
            if one.name == other.name
            else [one.name, other.name]
        )
        raise OutputError(
            f"scores of different metrics cannot be compared: {first.filename} has {names[0]} and "
            f"{second.filename} has {names[1]}; compare settings on tasks of one kind"
        )
    return Scale(next(iter(found), None) or metric_named("f1"))


def _ordered(found: Iterable[str], first: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*first, *sorted(found)]))


def _check_same_setting(records: Sequence[Record]) -> None:
    """Refuse records of different configurations or data: their mean would be of no one setting."""
    first, seen = records[0], set()
    expected = _shared_config(first)
    of_target: dict[str, Record] = {}
    for record in records:
        for path, one, other in _differences(expected, _shared_config(record)):
            raise OutputError(
                f"setting {first.setting!r} mixes configurations: {path} is {one} in {first.filename} and {other} in "
                f"{record.filename}; remove the records of one configuration, then run the grid again"
            )
        other_seed = of_target.setdefault(record.target, record)
        if record.data_digest != other_seed.data_digest:
            raise OutputError(
                f"setting {first.setting!r} mixes data: {other_seed.filename} and {record.filename} are of different "
                "data; run the grid again, which repeats the runs whose data has changed"
            )
        if (run := (record.target, record.seed)) in seen:
            raise OutputError(
                f"setting {first.setting!r} has two records of target {record.target!r} with seed {record.seed}; "
                "remove one of them"
            )
        seen.add(run)
    scale_of(records)


def _shared_config(record: Record) -> dict[str, Any]:
    return {key: value for key, value in record.config.items() if key not in RUN_KEYS}


def _differences(one: Any, other: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield (dotted path, value, other value) of each difference between two nested mappings."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            below = f"{path}.{key}" if path else str(key)
            if key in one and key in other:
                yield from _differences(one[key], other[key], below)
            else:
                yield below, repr(one[key]) if key in one else "absent", repr(other[key]) if key in other else "absent"
    elif one != other:
        yield path, repr(one), repr(other)
