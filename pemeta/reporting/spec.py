"""The description of a report in a configuration: tables, comparisons and figures."""

from __future__ import annotations

from pydantic import Field, model_validator
from typing_extensions import Self

from pemeta.errors import counted
from pemeta.reporting.figures import AnyFigure
from pemeta.utils.registry import Distinct, Frozen


class Reference(Frozen):
    """Published numbers of others, shown below a table and marked as such.

    Attributes:
        title: their source, such as ``Gheini et al. (2023), Table 1 (mBERT; WikiAnn)``.
        columns: the targets.
        rows: scores by label, as tables show them, one for each column; null where it is unknown.
        note: how they differ from this run; null for ``Other model, other data: not directly comparable.``
    """

    title: str = Field(min_length=1)
    columns: tuple[str, ...] = Field(min_length=1)
    rows: dict[str, tuple[float | None, ...]] = Field(min_length=1)
    note: str | None = None

    @model_validator(mode="after")
    def _aligned(self) -> Self:
        for label, numbers in self.rows.items():
            if len(numbers) != len(self.columns):
                raise ValueError(
                    f"rows: expected {counted(len(self.columns), 'number')}, one for each of columns; found "
                    f"{len(numbers)} in {label!r}"
                )
        return self


class TableSpec(Frozen):
    """A table of scores, settings × targets.

    Attributes:
        title: the table's title; null for one that says what the scores are.
        settings: the rows; all settings if empty.
        targets: the columns; all targets of any of the settings if empty.
        notes: shown below the table, one per line.
        reference: published numbers to show below the table; null for none.
    """

    title: str | None = None
    settings: Distinct = ()
    targets: Distinct = ()
    notes: tuple[str, ...] = ()
    reference: Reference | None = None


class Comparison(Frozen):
    """A paired difference between two settings.

    Attributes:
        title: its label in the table of comparisons.
        first: the setting from whose scores those of the other are subtracted.
        second: the other setting.
        targets: the targets to compare on; all that both settings have if empty.
    """

    title: str = Field(min_length=1)
    first: str
    second: str
    targets: Distinct = ()


class ReportSpec(Frozen):
    """Tables, comparisons and figures of a report; by default one table of everything.

    Attributes:
        title: the report's title; null for the output folder's name.
        tables: tables of scores; one with all settings and targets if empty.
        comparisons: paired differences with intervals.
        figures: pictures, each with a table of its numbers. They need matplotlib (``pip install 'pemeta[plots]'``).
    """

    title: str | None = None
    tables: tuple[TableSpec, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    figures: tuple[AnyFigure, ...] = ()

    def settings_named(self) -> set[str]:
        """Every setting that the report names."""
        named = {name for table in self.tables for name in table.settings}
        named |= {name for comparison in self.comparisons for name in (comparison.first, comparison.second)}
        return named.union(*(figure.settings_named() for figure in self.figures))

    def targets_named(self) -> set[str]:
        """Every target that the report names, except those of published numbers."""
        named = {target for table in self.tables for target in table.targets}
        named |= {target for comparison in self.comparisons for target in comparison.targets}
        return named.union(*(figure.targets_named() for figure in self.figures))
