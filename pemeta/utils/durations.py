"""Durations in words."""

from __future__ import annotations


def time_words(seconds: float) -> str:
    """A time as people say it.

    >>> time_words(40), time_words(400), time_words(40000)
    ('40 s', '7 min', '11 h 7 min')
    """
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
