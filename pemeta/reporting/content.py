"""What a report holds, whatever it is shown as."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pemeta.reporting.figures import Chart
from pemeta.reporting.tables import MISSING, Table

LEGEND = f"best of its group in each column; {MISSING} means no result"
NUMBERS = "How these numbers were made"


@dataclass(frozen=True)
class Report:
    """Tables, figures, and named facts on how the numbers were made.

    Attributes:
        title: of the whole.
        tables: main tables and comparisons.
        facts: names and texts.
        charts: by the name of the picture's file, without its end.
        details: tables that a terminal does not show.
    """

    title: str
    tables: tuple[Table, ...]
    facts: tuple[tuple[str, str], ...]
    charts: Mapping[str, Chart] = field(default_factory=dict)
    details: tuple[Table, ...] = ()

    @property
    def drawn(self) -> dict[str, Chart]:
        """The charts that have something to draw."""
        return {name: chart for name, chart in self.charts.items() if not chart.empty}
