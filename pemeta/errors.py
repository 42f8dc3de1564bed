"""The library's errors: one sentence, expected and found with the value, then the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class PemetaError(Exception):
    """Base of every error that pemeta raises on purpose.

    Attributes:
        told: another of several processes has the same error, and tells it.
    """

    told: bool = False


class ConfigError(PemetaError, ValueError):
    """A configuration, or an argument that a configuration could have held, is wrong."""


class FieldError(ConfigError):
    """A :class:`ConfigError` about keys of a mapping, which whoever holds that mapping can name with a longer path.

    Attributes:
        problems: dotted path within the mapping, and what is wrong there.
    """

    def __init__(self, where: str, problems: Sequence[tuple[str, str]]) -> None:
        super().__init__(f"{where}: {sentence(problems)}")
        self.problems = tuple(problems)


class DataError(PemetaError, ValueError):
    """Data that cannot be used as it is: the file, line and content are in the message."""


class ModelError(PemetaError, ValueError):
    """A backbone, or a combination of backbone and method, that cannot work."""


class TrainingError(PemetaError, RuntimeError):
    """Training that cannot go on, such as a loss that is not finite."""


class NotFiniteError(TrainingError):
    """A loss or gradient is NaN or infinite."""


class OutputError(PemetaError, OSError):
    """An output folder that cannot be written, or a file in it that cannot be read back."""


class UnwritableError(OutputError):
    """An output folder that cannot be written: it is read-only, or the disk is full."""


class FailedRunsError(PemetaError, RuntimeError):
    """Some runs of a grid ended with an error; the others are finished and saved."""


class MissingLearn2LearnError(PemetaError, ImportError):
    """learn2learn is not installed; the message names the command that installs it."""


def sentence(problems: Sequence[tuple[str, str]], most: int = 3) -> str:
    """Problems with their paths as one sentence, only counting those after the first few.

    >>> sentence([("finetuning.lr", "this is too high"), ("", "and so is that")])
    'finetuning.lr: this is too high; and so is that'
    """
    shown = "; ".join(f"{path}: {text}" if path else text for path, text in problems[:most])
    return f"{shown}; and {len(problems) - most} more" if len(problems) > most else shown


def excerpt(value: object, most: int = 80) -> str:
    """A value as a message quotes it: on one line, and cut where it is long.

    >>> excerpt("a" * 100, most=12)
    "'aaaaaaaa..."
    """
    return shortened(repr(value), most)


def shortened(text: str, most: int = 80) -> str:
    """A text, cut where it is long.

    >>> shortened("a" * 100, most=12)
    'aaaaaaaaa...'
    """
    return text if len(text) <= most else f"{text[: most - 3]}..."


def reason(error: BaseException) -> str:
    r"""The first line of another library's message, without its final stop, or the kind of error if it has none.

    >>> reason(ValueError("It broke.\nLong advice follows.")), reason(ValueError())
    ('It broke', 'ValueError')
    """
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".:") if lines else type(error).__name__


def unknown_name(kind: str, given: str, known: Iterable[str]) -> str:
    """The sentence for a name that is not known: the nearest known one, then all of them.

    >>> unknown_name("method", "adaptor", ["adapter", "full"])
    "unknown method 'adaptor'; did you mean 'adapter'? Known: adapter, full"
    """
    names = sorted(known)
    lowered = {name.lower(): name for name in names}  # `AF` is meant to be `af`
    near = difflib.get_close_matches(given.lower()[:200], lowered, n=1)
    hint = f"did you mean {lowered[near[0]]!r}? " if near else ""
    return f"unknown {kind} {excerpt(given)}; {hint}Known: {', '.join(names) or 'none'}"
