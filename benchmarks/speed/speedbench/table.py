"""The results as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from speedbench.groups import COMPARED_EPOCHS, REUSED_EPOCHS, full
from speedbench.records import Records, Result, Results
from speedbench.targets import epoch_seconds, lines

HEAD = """# Time and memory of one outer step

Written by `benchmarks/speed/run.py`; [README](../README.md) says what the rows are and how they are measured.
"""
RACE_COLUMNS = ("Contender", "Median", "Least", "over pemeta", "Memory", "Process", "Gradients")
GIB = 2**30


def markdown(records: Records) -> str:
    """Targets, then a table for each race."""
    parts = [HEAD, _about(records), "## Targets\n", targets_table(records)]
    for group in full():
        races = list(records.races(group.name))
        if races:
            parts += [f"## {group.title}\n", *map(_race, races)]
    return "\n".join(parts).rstrip() + "\n"


def targets_table(records: Records) -> str:
    """Each target, what was measured, and whether it is met."""
    return table(("Line", "Target", "Measured", ""), [line.cells for line in lines(records)])


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left and the others to the right."""
    rules = [":--", *["--:"] * (len(columns) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (columns, rules, *rows))


def _about(records: Records) -> str:
    """Where the records come from; more than one line where they were not made in one go."""
    found = dict.fromkeys(_machine(record["about"]) for group in full() if (record := records.read(group.name)))
    return "\n".join(found) + "\n"


def _machine(about: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {about[name]}" for name in ("torch", "transformers", "learn2learn") if about[name])
    hardware = f"{about['device']}, {about['processor']}, {about['threads']} threads, {about['memory_gib']} GiB"
    return f"{about['date']}, commit {about['commit']}: {hardware}; Python {about['python']}, {packages}."


def _race(race: Results) -> str:
    reference = race.find("pemeta")
    rows = [_row(result, reference) for result in race.results]
    words = f"**{race.name}**, {race.rounds} round{'s' * (race.rounds > 1)}\n\n" + table(RACE_COLUMNS, rows)
    failed = [f"- {result.case.words}: {result.error}\n" for result in race.results if result.error]
    return words + ("\n" + "".join(failed) if failed else "") + _epochs(race)


def _row(result: Result, reference: Result | None) -> tuple[str, ...]:
    if result.error:
        return (result.case.words, "failed", *["-"] * (len(RACE_COLUMNS) - 2))
    difference = result.entry["gradient_difference"]
    return (
        result.case.words,
        _seconds(result.seconds),
        _seconds(result.least_seconds),
        "-" if reference is None else f"{result.seconds / reference.seconds:.2f} x",
        _size(result.memory if result.entry["held_bytes"] else None),
        _size(result.process_memory),
        "-" if difference is None else f"{difference:.0e}",
    )


def _epochs(race: Results) -> str:
    rows = [
        ("with the trunk reused", "epochs, reuse", REUSED_EPOCHS),
        ("without", "epochs, recompute", COMPARED_EPOCHS),
    ]
    found = [(words, epoch_seconds(race, contender, epochs)) for words, contender, epochs in rows]
    known = [f"{words} {_seconds(seconds)}" for words, seconds in found if seconds is not None]
    return f"\nAn epoch after the first: {', '.join(known)}.\n" if known else ""


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def _size(value: float | None) -> str:
    return "-" if value is None else f"{value / GIB:.2f} GiB"
