"""Figures of the fault suites, printed at the end; also where several processes run the tests.

A suite is the set of tests with the same marker::

    @pytest.mark.faults("malformed inputs answered clearly")

Each such test counts as one trial, and as passed if it passes. A test with many trials of its own reports them by
the fixture ``figures``: ``figures(passed=40, tried=40, extra="median 0.3 s")``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

FIGURES = "fault figures"


@dataclass
class Suite:
    """The results of the tests of one suite."""

    passed: int = 0
    tried: int = 0
    extras: list[str] = field(default_factory=list)

    def line(self, name: str) -> str:
        extra = f" ({'; '.join(self.extras)})" if self.extras else ""
        return f"{name}: {self.passed} / {self.tried}{extra}"


SUITES: dict[str, Suite] = {}


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Report the number of trials of a test, in place of the one that a test counts as."""

    def say(passed: int, tried: int, extra: str = "") -> None:
        record_property(FIGURES, (passed, tried, extra))

    return say


def pytest_runtest_setup(item: pytest.Item) -> None:
    marker = item.get_closest_marker("faults")
    if marker is not None and marker.args:
        item.user_properties.append(("suite", marker.args[0]))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    # Where several processes run the tests, this is called in the one that sees the reports of all.
    properties: dict[str, Any] = dict(report.user_properties)
    if "suite" in properties and (report.when == "call" or report.failed) and not report.skipped:
        suite = SUITES.setdefault(properties["suite"], Suite())
        passed, tried, extra = properties.get(FIGURES, (int(report.passed), 1, ""))
        suite.passed += passed
        suite.tried += tried
        suite.extras += [extra] if extra else []


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for name, suite in SUITES.items():
        terminalreporter.write_line(suite.line(name))
