"""Messages to the user on standard error, beside progress bars."""

from __future__ import annotations

import sys

from tqdm.auto import tqdm

_said: set[str] = set()


def warn(message: str, once: bool = False) -> None:
    """Write a line to standard error without tearing a progress bar.

    Args:
        message: One sentence.
        once: Say it only the first time in this process.
    """
    if once and message in _said:
        return
    _said.add(message)
    tqdm.write(f"pemeta: {message}", file=sys.stderr)
