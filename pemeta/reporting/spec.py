"""What a report shows, as a configuration says it: tables, comparisons and figures."""

from __future__ import annotations

from pydantic import Field, model_validator
from typing_extensions import Self

from pemeta.reporting.figures import AnyFigure
from pemeta.utils.registry import Distinct, Frozen


class Reference(Frozen):
    """Somebody else's published numbers, which stand below a table and are marked as theirs.

    Attributes:
        title: whose they are, such as ``Gheini et al. (2023), Table 1 (mBERT; WikiAnn)``.
        columns: the targets.
        rows: F1 in percent by label, one for each column; null for one that is not known.
        note: in what they differ from this run; null for ``Other model, other data: not to be compared number by
            number.``
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
                    f"rows: expected {len(self.columns)} numbers, one for each of columns; found {len(numbers)} in "
                    f"{label!r}"
                )
        return self


class TableSpec(Frozen):
    """A table of F1, settings × targets.

    Attributes:
        title: stands above it; null tells what the scores are.
        settings: the rows; all settings where empty.
        targets: the columns; all that any of the settings has where empty.
        notes: stand below it, one after the other.
        reference: published numbers to show below it; null for none.
    """

    title: str | None = None
    settings: Distinct = ()
    targets: Distinct = ()
    notes: tuple[str, ...] = ()
    reference: Reference | None = None


class Comparison(Frozen):
    """A paired difference of two settings.

    Attributes:
        title: its name in the table of comparisons.
        first: the setting that is ahead where the difference is positive.
        second: the other.
        targets: that are compared; all that both settings have where empty.
    """

    title: str = Field(min_length=1)
    first: str
    second: str
    targets: Distinct = ()


class ReportSpec(Frozen):
    """Tables, comparisons and figures of a report; by default one table with everything.

    Attributes:
        title: of the report; null takes the output folder's name.
        tables: of F1; one with all settings and targets where empty.
        comparisons: paired differences with intervals.
        figures: pictures, each with a table of its numbers. They need matplotlib.
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
        """Every target that the report names, but for those of published numbers."""
        named = {target for table in self.tables for target in table.targets}
        named |= {target for comparison in self.comparisons for target in comparison.targets}
        return named.union(*(figure.targets_named() for figure in self.figures))
