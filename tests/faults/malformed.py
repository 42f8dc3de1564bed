"""All malformed inputs, and the sample of them that is tested by default."""

from __future__ import annotations

from faults import commands, configurations, data, models, runs, texts, token_files

KINDS = (
    configurations.CASES,
    data.CASES,
    token_files.CASES,
    texts.CASES,
    models.CASES,
    runs.CASES,
    commands.CASES,
)
CASES = [case for kind in KINDS for case in kind.all]
SAMPLE = [case for kind in KINDS for case in kind.all[:: max(1, len(kind.all) // 9)]]
"""A few cases of each kind, evenly spaced."""
