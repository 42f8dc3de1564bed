"""Durations as readable text."""

from __future__ import annotations


def format_duration(seconds: float) -> str:
    """A number of seconds as readable text, in the largest units that matter.

    >>> format_duration(40), format_duration(400), format_duration(40000)
    ('40 s', '7 min', '11 h 7 min')
    """
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
