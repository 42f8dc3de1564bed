"""How long a fresh Python takes to import pemeta, and the command line to say its help."""

from __future__ import annotations

import subprocess
import sys

from speedbench.contenders.base import Contender


class Python(Contender):
    """A Python that does nothing: part of the other two."""

    arguments: tuple[str, ...] = ("-c", "pass")

    def step(self) -> None:
        subprocess.run([sys.executable, *self.arguments], check=True, stdout=subprocess.DEVNULL)


class ImportPemeta(Python):
    """``import pemeta``."""

    arguments = ("-c", "import pemeta")


class PemetaHelp(Python):
    """``pemeta --help``."""

    arguments = ("-m", "pemeta", "--help")
