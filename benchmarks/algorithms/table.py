"""The table of README.md, from the records of both grids: python benchmarks/algorithms/table.py."""

from __future__ import annotations

import statistics
from pathlib import Path

import pandas as pd

from pemeta import load_records

HERE = Path(__file__).parent
GRIDS = ("sentences", "time")
METHODS = ("adapter", "lora")
TITLES = {
    "": "not primed",
    "finetune-query": "`finetune`, `sentences: query`",
    "finetune": "`finetune`",
    "persistent": "`persistent`",
    "persistent-mean": "`persistent`, `start: mean`",
    "meta": "`meta`",
    "meta-second-order": "`meta`, `first_order: false`",
    "meta-both": "`meta`, `sentences: both`",
    "multi-step-loss": "`multi_step_loss`",
    "inner-adam": "`meta`, `inner_rule: adam`",
    "hybrid": "`meta`, `hybrid: 0.5`",
    "theta-a": "`meta`, `primes: [theta_a]`",
    "anil": "`anil`",
    "fomaml": "`fomaml`",
    "reptile": "`reptile`",
}
"""What each setting is, by its name without that of the method."""


def table() -> str:
    """The table, as Markdown: for each algorithm F1 and seconds, by grid and method."""
    frames = {grid: load_records(HERE / "results" / grid) for grid in GRIDS}
    heads = [f"{method}, equal {grid}" for method in METHODS for grid in GRIDS]
    lines = [
        f"| Priming | {' | '.join(f'{head} | s' for head in heads)} |",
        f"| :-- | {' | '.join(['--: | --:'] * len(heads))} |",
    ]
    for name, title in TITLES.items():
        cells = [cell for method in METHODS for grid in GRIDS for cell in _cells(frames[grid], method, name)]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cells(frame: pd.DataFrame, method: str, name: str) -> tuple[str, str]:
    """F1 in percent, as mean ± standard error over seeds of the mean over targets; and a priming run's seconds."""
    rows = frame[frame["setting"] == "-".join(filter(None, (method, name)))]
    if rows.empty:
        return "", ""
    seeds = [100 * f1 for f1 in rows.groupby("seed")["f1"].mean()]
    error = statistics.stdev(seeds) / len(seeds) ** 0.5
    seconds = rows["priming_seconds"].median()
    return f"{statistics.fmean(seeds):.1f} ± {error:.1f}", "" if pd.isna(seconds) else f"{seconds:.0f}"


if __name__ == "__main__":
    print(table(), end="")
