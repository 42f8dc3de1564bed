"""The library's errors: one sentence, expected and found with the value, then the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PemetaError(Exception):
    """Base of every error that pemeta raises on purpose."""


class ConfigError(PemetaError, ValueError):
    """A configuration, or an argument that a configuration could have held, is wrong."""


class DataError(PemetaError, ValueError):
    """Data that cannot be used as it is: the file, line and content are in the message."""


class ModelError(PemetaError, ValueError):
    """A backbone, or a combination of backbone and method, that cannot work."""


class TrainingError(PemetaError, RuntimeError):
    """Training that cannot go on, such as a loss that is not finite."""


class OutputError(PemetaError, OSError):
    """An output folder that cannot be written, or a file in it that cannot be read back."""


class MissingLearn2LearnError(PemetaError, ImportError):
    """learn2learn is not installed; the message names the command that installs it."""


def unknown_name(kind: str, given: str, known: Iterable[str]) -> str:
    """The sentence for a name that is not known: the nearest known one, then all of them.

    >>> unknown_name("method", "adaptor", ["adapter", "full"])
    "unknown method 'adaptor'; did you mean 'adapter'? Known: adapter, full"
    """
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {kind} {given!r}; {hint}Known: {', '.join(names) or 'none'}"
