"""The base classes of figures: a description in a configuration, and the chart that it computes from records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, TypeAlias

from pydantic import Field, PlainSerializer, PlainValidator

from pemeta.reporting.grid import scale_of, unit_of
from pemeta.reporting.records import Record
from pemeta.reporting.scale import Scale
from pemeta.reporting.tables import Cell, Table, listed, mean_cell
from pemeta.utils.registry import Distinct, Named

if TYPE_CHECKING:  # only needed to draw
    from matplotlib.figure import Figure as MplFigure

Records: TypeAlias = Mapping[str, Sequence[Record]]
"""Records by setting; a setting without records may be absent."""

ERROR_BARS = "Error bars: ± one standard error over seeds; none where there is one seed."


@dataclass(frozen=True)
class Chart(ABC):
    """The content of a figure: its numbers, and how they are drawn.

    Attributes:
        title: the figure's title.
        notes: what is omitted, and why.
        scale: how its scores are shown.
        unit: the word for an example.
    """

    title: str
    notes: tuple[str, ...]
    scale: Scale
    unit: str

    @property
    @abstractmethod
    def caption(self) -> str:
        """A textual description of the figure; also its alternative text."""

    @property
    @abstractmethod
    def empty(self) -> bool:
        """Whether there is nothing to draw yet."""

    @property
    @abstractmethod
    def size(self) -> tuple[float, float]:
        """Width and height, in inches."""

    @abstractmethod
    def table(self) -> Table:
        """The numbers that are drawn."""

    @abstractmethod
    def draw(self, figure: MplFigure) -> None:
        """Draw on an empty matplotlib figure."""


class Figure(Named):
    """A figure of a report, as a configuration describes it.

    To add a kind, write one file in ``pemeta/reporting/figures/`` with a subclass that sets ``name`` and the
    :class:`Chart` that it computes, and import it in ``pemeta/reporting/figures/__init__.py``.

    Attributes:
        title: the title above the picture, also part of its file's name.
        notes: shown below the picture, one per line.
    """

    kind: ClassVar[str] = "figure"

    title: str = Field(min_length=1)
    notes: tuple[str, ...] = ()

    @abstractmethod
    def settings_named(self) -> set[str]:
        """The settings that the figure shows."""

    def targets_named(self) -> set[str]:
        """The targets that the figure is limited to; empty if it takes all."""
        return set()

    @abstractmethod
    def compute(self, records: Records) -> Chart:
        """Compute the chart of some records; what they lack is omitted, and the chart's notes say so.

        Raises:
            OutputError: compared settings were not scored on the same test examples by the same metric.
        """


class SettingsFigure(Figure):
    """A figure with one element per setting.

    Attributes:
        settings: the settings to show.
        targets: the targets to show; all if empty.
    """

    settings: Distinct = Field(min_length=1)
    targets: Distinct = ()

    def settings_named(self) -> set[str]:
        """The settings."""
        return set(self.settings)

    def targets_named(self) -> set[str]:
        """The targets."""
        return set(self.targets)


AnyFigure = Annotated[Figure, PlainValidator(Figure.parse), PlainSerializer(lambda value: value.to_config())]


def label_of(records: Sequence[Record]) -> str:
    """A setting's name in tables and figures."""
    return " ".join(records[0].label.split())


def comparable(records: Records, settings: Iterable[str]) -> tuple[dict[str, list[Record]], tuple[str, ...]]:
    """The records of some settings, limited on each target to the seeds that all of them have, and notes on the rest.

    A setting without such records is omitted; a target that only some settings have is kept with theirs.
    """
    names = tuple(dict.fromkeys(settings))
    shared: dict[str, set[int]] = {}
    for name in names:
        for target in {record.target for record in records.get(name, ())}:
            seeds = {record.seed for record in records[name] if record.target == target}
            shared[target] = shared.get(target, seeds) & seeds
    kept = {name: [r for r in records.get(name, ()) if r.seed in shared[r.target]] for name in names}
    there = {name: found for name, found in kept.items() if found}
    return there, tuple(_omitted(records, names, there))


def _omitted(records: Records, names: Sequence[str], there: Records) -> Iterator[str]:
    if lacking := [name for name in names if not records.get(name)]:
        yield f"Omitted because none of their runs has finished: {listed(lacking)}."
    every = {record.seed for name in names for record in records.get(name, ())}
    seeds: dict[str, set[int]] = {}
    for record in (record for found in there.values() for record in found):
        seeds.setdefault(record.target, set()).add(record.seed)
    parts: dict[str, list[str]] = {}
    for target, known in seeds.items():
        if known < every:
            parts.setdefault(listed(sorted(known)), []).append(target)
    if parts:
        everywhere = [*parts.values()] == [[*seeds]]
        each = "; ".join(known if everywhere else f"{known} on {listed(on)}" for known, on in parts.items())
        yield f"Of the seeds {listed(sorted(every))}, only those that all settings have: {each}."
    if without := [name for name in names if records.get(name) and name not in there]:
        yield f"Omitted because they share no seed with the others: {listed(without)}."


def all_targets(records: Records, settings: Iterable[str]) -> tuple[str, ...]:
    """The targets that any of the settings has."""
    return tuple(dict.fromkeys(record.target for name in settings for record in records[name]))


def shared_targets(
    records: Records, settings: Sequence[str], wanted: Sequence[str] = ()
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The targets that all of the settings have, and a note on those that some lack.

    Args:
        records: The records by setting.
        settings: Settings that have records.
        wanted: The targets to choose from; all if empty.
    """
    candidates = tuple(wanted) or all_targets(records, settings)
    sets = [{record.target for record in records[name]} for name in settings]
    shared = tuple(target for target in candidates if sets and all(target in own for own in sets))
    lacking = [target for target in candidates if target not in shared]
    return shared, (f"Omitted because not every setting has them yet: {listed(lacking)}.",) if lacking and sets else ()


def shown_as(records: Records) -> tuple[Scale, str]:
    """How the scores of some settings are shown, and the word for an example.

    Raises:
        OutputError: they are of several metrics.
    """
    every = [record for found in records.values() for record in found]
    return scale_of(every), unit_of(every)


def validated_as(records: Records) -> tuple[Scale, str]:
    """The same for the scores of validation examples."""
    every = [record for found in records.values() for record in found]
    return scale_of(every, of="validation_metric"), unit_of(every)


def mean_score(records: Iterable[Record], targets: Sequence[str], scale: Scale) -> Cell:
    """The mean of the main metric over targets."""
    scores = {(record.target, record.seed): record.score for record in records if record.target in targets}
    return mean_cell(scores, targets, scale)
