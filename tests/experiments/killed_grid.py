"""A grid that is killed (SIGKILL) as soon as one of its workers has written a certain file; a program of its own.

    DEADLY=PATTERN python killed_grid.py ARGUMENT ...

runs ``pemeta ARGUMENT ...``. The worker that has written a file of that pattern kills the process that started it, and
does nothing more itself: the run is always killed at that point, however busy the machine is.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pemeta.cli

rename = Path.replace


def kill_after(self: Path, target: Path) -> Path:
    """A rename, which is how every file comes to be; the last if it is of the file that is waited for."""
    renamed = rename(self, target)
    if renamed.match(os.environ["DEADLY"]):
        os.kill(os.getppid(), signal.SIGKILL)
        threading.Event().wait()  # until the worker notices that nobody listens any more
    return renamed


# Workers import the main program too, under this name.
if __name__ == "__mp_main__":
    Path.replace = kill_after  # type: ignore[assignment, method-assign]

if __name__ == "__main__":
    sys.argv[0] = "pemeta"
    pemeta.cli.main()
