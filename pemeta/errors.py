"""The library's errors. Each message is one sentence: what was expected, the value found, and the remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence


class PemetaError(Exception):
    """Base of every error that pemeta raises on purpose.

    Attributes:
        reported_elsewhere: True if another process reports this error; this process stays silent.
    """

    reported_elsewhere: bool = False

    def __str__(self) -> str:
        """The message in one line, whatever names it repeats."""
        return " ".join(super().__str__().splitlines())


class ConfigError(PemetaError, ValueError):
    """A wrong configuration, or a wrong argument of the kind that a configuration holds."""


class FieldError(ConfigError):
    """A :class:`ConfigError` about keys of a mapping; a mapping that contains it can prefix their paths with its own.

    Attributes:
        problems: Pairs of a dotted path within the mapping and what is wrong there.
    """

    def __init__(self, where: str, problems: Sequence[tuple[str, str]]) -> None:
        super().__init__(f"{where}: {sentence(problems)}")
        self.problems = tuple(problems)


class ArgumentError(ConfigError, TypeError):
    """An argument of a wrong type or out of its range; the message names the function, the argument and the value."""


class DataError(PemetaError, ValueError):
    """Data that cannot be used as it is; the message names the file, the line and its content."""


class ModelError(PemetaError, ValueError):
    """A backbone, or a combination of backbone and method, that cannot work."""


class TrainingError(PemetaError, RuntimeError):
    """Training that cannot continue, for example because a loss is not finite."""


class NotFiniteError(TrainingError):
    """A loss or gradient that is NaN or infinite."""


class OutputError(PemetaError, OSError):
    """An output folder that cannot be written, or a file in it that cannot be read back."""


class UnwritableError(OutputError):
    """An output folder that cannot be written, because it is read-only or the disk is full."""


class FailedRunsError(PemetaError, RuntimeError):
    """Runs of a grid that ended with an error; the other runs are finished and saved."""


class MissingLearn2LearnError(PemetaError, ImportError):
    """A missing learn2learn; the message names the command that installs it."""


def sentence(problems: Sequence[tuple[str, str]], most: int = 3) -> str:
    """Join problems and their paths into one sentence; those after the first ``most`` are only counted.

    >>> sentence([("finetuning.lr", "this is too high"), ("", "and so is that")])
    'finetuning.lr: this is too high; and so is that'
    """
    shown = "; ".join(f"{path}: {text}" if path else text for path, text in problems[:most])
    return f"{shown}; and {len(problems) - most} more" if len(problems) > most else shown


def excerpt(value: object, most: int = 80) -> str:
    """The representation of a value for a message: one line, truncated to ``most`` characters.

    >>> excerpt("a" * 100, most=12)
    "'aaaaaaaa..."
    """
    try:
        text = repr(value)
    except Exception:  # an object of the user's, whose own fault is not what the message is about
        text = object.__repr__(value)
    return shortened(text if text.isprintable() else " ".join(text.split()), most)  # arrays and modules take lines


def shortened(text: str, most: int = 80) -> str:
    """A text truncated to ``most`` characters.

    >>> shortened("a" * 100, most=12)
    'aaaaaaaaa...'
    """
    return text if len(text) <= most else f"{text[: most - 3]}..."


def reason(error: BaseException) -> str:
    r"""The first line of another library's error message without its full stop, or the error's type if it has none.

    >>> reason(ValueError("It broke.\nLong advice follows.")), reason(ValueError())
    ('It broke', 'ValueError')
    """
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".:") if lines else type(error).__name__


def clause(error: BaseException) -> str:
    """The first sentence of another library's error message, to be put into one of ours.

    >>> clause(ValueError("Sizes differ: 3 and 4.  Target sizes: [3]."))
    'Sizes differ: 3 and 4'
    """
    return re.split(r"\.\s", reason(error))[0]


def article(noun: str) -> str:
    """A noun with its indefinite article, by its first letter.

    >>> article("inner rule"), article("PE method")
    ('an inner rule', 'a PE method')
    """
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun, in the plural unless it is one.

    >>> counted(1, "target"), counted(1200, "target"), counted(0, "entity", "entities")
    ('1 target', '1200 targets', '0 entities')
    """
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def unknown_name(kind: str, given: object, known: Iterable[str]) -> str:
    """The message for an unknown name: the closest known name, then all known names.

    >>> unknown_name("method", "adaptor", ["adapter", "full"])
    "unknown method 'adaptor'; did you mean 'adapter'? Known: adapter, full"
    """
    names = sorted(known)
    lowered = {name.lower(): name for name in names}  # suggest `af` for `AF`
    near = difflib.get_close_matches(given.lower()[:200], lowered, n=1) if isinstance(given, str) else []
    hint = f"did you mean {lowered[near[0]]!r}? " if near else ""
    return f"unknown {kind} {excerpt(given)}; {hint}Known: {', '.join(names) or 'none'}"
