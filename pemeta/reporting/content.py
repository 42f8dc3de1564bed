"""The content of a report, independent of its format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pemeta.reporting.figures import Chart
from pemeta.reporting.tables import MISSING, Table

LEGEND = f"best of its group in each column; {MISSING} means no result"
NUMBERS = "How these numbers were obtained"


@dataclass(frozen=True)
class Report:
    """Tables, figures, and named facts on how the numbers were obtained.

    Attributes:
        title: the report's title.
        tables: main tables and comparisons.
        facts: names and texts.
        charts: by the name of the picture's file, without its extension.
        details: tables that are not shown in the terminal.
    """

    title: str
    tables: tuple[Table, ...]
    facts: tuple[tuple[str, str], ...]
    charts: Mapping[str, Chart] = field(default_factory=dict)
    details: tuple[Table, ...] = ()

    @property
    def drawn(self) -> dict[str, Chart]:
        """The charts that are not empty."""
        return {name: chart for name, chart in self.charts.items() if not chart.empty}
