"""The report: a table for each check."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any


def name_of(device: str) -> str:
    """A file name from a device's.

    >>> name_of("NVIDIA H100 80GB HBM3")
    'nvidia-h100-80gb-hbm3'
    """
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


def markdown(about: Mapping[str, Any], findings: Sequence[Mapping[str, Any]]) -> str:
    """What was found, with the machine's name on top."""
    packages = about["packages"]
    parts = [
        f"# {about['device']}",
        f"{about['date']}; {about['cores']} cores, CUDA {about['cuda']}, torch {packages['torch']}, transformers "
        f"{packages['transformers']}, pemeta {packages['pemeta']}"
        + ("; small sizes, which say nothing of speed" if about["small"] else ""),
    ]
    for check in dict.fromkeys(str(one["check"]) for one in findings):
        own = [
            {key: value for key, value in one.items() if key != "check"} for one in findings if one["check"] == check
        ]
        parts += [f"## {check}", table(own)]
    return "\n\n".join(parts) + "\n"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a table, with a column for each key that occurs."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns), *([_cell(row.get(column)) for column in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    if value is None or value == [] or value == {}:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_cell(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value))
    return str(value).replace("|", "\\|").replace("\n", " ")
