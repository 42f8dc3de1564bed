"""Seconds that are spent in each phase of a step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class PhaseClock:
    """An observer of phases (:mod:`pemeta.utils.phases`) that adds up the seconds in each.

    Attributes:
        seconds: By name; those of a phase within another count in both.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def clear(self) -> None:
        """Start from nothing."""
        self.seconds.clear()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time a phase."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
