"""Loading from folders and the Hugging Face hub without terminal noise, and with errors as one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from logging import ERROR
from pathlib import Path
from typing import Any

from huggingface_hub.utils import logging as hub_logging
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers.utils import logging

from pemeta.errors import ModelError, reason, shortened


@contextmanager
def quiet() -> Iterator[None]:
    """Silence everything but errors and download bars of transformers and the hub, within the block."""
    verbosity, hub_verbosity = logging.get_verbosity(), hub_logging.get_verbosity()
    bar, downloads = logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    _set(logging, ERROR)
    _set(hub_logging, ERROR)
    logging.disable_progress_bar()  # "Loading weights"; it turns the hub's bars off too
    if downloads:
        enable_progress_bars()
    try:
        yield
    finally:
        _set(logging, verbosity)
        _set(hub_logging, hub_verbosity)
        if bar:
            logging.enable_progress_bar()
        if not downloads:
            disable_progress_bars()


def _set(package: Any, verbosity: int) -> None:
    """Set what a package logs, if that changes: each time, Python forgets what it knows of all loggers."""
    if package.get_verbosity() != verbosity:
        package.set_verbosity(verbosity)


@contextmanager
def explained(what: str, path: str | Path, remedy: str) -> Iterator[None]:
    """Turn any error in the block into a :class:`~pemeta.errors.ModelError` that ``what`` cannot be loaded, and why.

    Raises:
        ModelError: ``path`` is neither a folder nor a valid name on the hub, or the block raised an error.
    """
    path = str(path)
    if not Path(path).is_dir() and not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", path):
        raise ModelError(f"cannot load {what} from {path!r}: there is no such folder; {remedy}")
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # transformers, the hub and safetensors raise nearly anything here
        raise ModelError(f"cannot load {what} from {path!r}: {shortened(reason(error), 160)}; {remedy}") from None
