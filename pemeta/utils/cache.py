"""A cache of files that can be made again: each is written whole or not at all, and verified when it is opened."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from huggingface_hub.constants import HF_HOME

from pemeta.errors import OutputError, UnwritableError
from pemeta.utils.files import flush, flush_folder, read_json, unwritable, write_json
from pemeta.utils.messages import warn
from pemeta.utils.provenance import package_versions

VARIABLE = "PEMETA_CACHE"
"""Environment variable that names the cache's folder."""
DATA, ABOUT = "data.arrow", "about.json"
"""Files of an entry: what was made, and what is known about it; the second is written last."""
REMEDY = f"set {VARIABLE} to another folder, or free up space"
AT_ONCE = 2**20  # bytes


def cache_folder() -> Path:
    """The folder that ``PEMETA_CACHE`` names, or ``pemeta`` in that of the Hugging Face libraries (``HF_HOME``)."""
    own = os.environ.get(VARIABLE)
    folder = Path(own) if own else Path(HF_HOME) / "pemeta"
    return Path(os.path.expandvars(folder)).expanduser().absolute()  # as the Hugging Face libraries take theirs


def whole_entry(entry: Path) -> dict[str, Any] | None:
    """What was noted about an entry when it was made; None if it is not there, or no longer what was written.

    The whole file is read, by and by, and compared with its checksum.
    """
    try:
        about = dict(read_json(entry / ABOUT))
        same = about["crc32"] == _checksum(entry / DATA, about)
    except (OutputError, OSError, KeyError, TypeError, ValueError):
        return None
    return about if same else None


def _checksum(path: Path, about: dict[str, Any]) -> str:
    """A checksum of a file and of what is known about it.

    The file is read, and not mapped, so that it does not count as this process's memory.
    """
    total = zlib.crc32(json.dumps({**about, "crc32": None}).encode())
    with path.open("rb") as file:
        while part := file.read(AT_ONCE):
            total = zlib.crc32(part, total)
    return f"{total:08x}"


def cached_entry(entry: Path, write: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """An entry of the cache, which is made first if it is not there, or is no longer what was written.

    Of several processes one makes it, and the others wait. One that is killed leaves nothing that another would read.

    Args:
        entry: Folder of the entry; its name says all that its content depends on.
        write: Writes the file, and returns what is to be known about it, as a JSON mapping.

    Returns:
        What is known about it.

    Raises:
        OutputError: The cache cannot be written.
    """
    about = whole_entry(entry)
    if about is None:
        with _writable(entry), _locked(entry):
            about = whole_entry(entry)  # another process may just have made it
            if about is None:
                if (entry / ABOUT).exists():
                    warn(f"{entry} is not what was written there; it is made again")
                with _incoming(entry.parent) as new:
                    about = _finished(new, write(new / DATA))
                    _place(new, entry)
    return about


def cached_content(
    folder: Path, write: Callable[[Path], dict[str, Any]], name: Callable[[dict[str, Any]], str]
) -> tuple[Path, dict[str, Any]]:
    """An entry of the cache that is named by its content, so that its name is known only after it has been written.

    Args:
        folder: Folder of such entries.
        write: Writes the file, and returns what is to be known about it, as a JSON mapping.
        name: The entry's name, given what is known about it, with a checksum of all.

    Returns:
        Folder of the entry, and what is known about it. What was there already, and is still what was written, stays as
        it is.

    Raises:
        OutputError: The cache cannot be written.
    """
    with _writable(folder), _incoming(folder) as new:
        about = _finished(new, write(new / DATA))
        entry = folder / name(about)
        with _locked(entry):
            if whole_entry(entry) is None:
                _place(new, entry)
    return entry, about


def _finished(folder: Path, about: dict[str, Any]) -> dict[str, Any]:
    """What is known about an entry, which is thereby complete."""
    flush(folder / DATA)
    about = {**about, "crc32": _checksum(folder / DATA, about)}
    write_json(folder / ABOUT, about)
    return about


def _place(new: Path, entry: Path) -> None:
    """Give a complete entry its name, in place of one that is no longer what was written."""
    shutil.rmtree(entry, ignore_errors=True)
    new.replace(entry)
    flush_folder(entry.parent)


@contextmanager
def _incoming(folder: Path) -> Iterator[Path]:
    """An empty folder for this process alone; what those that were killed have left in theirs is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".incoming-*.lock"):
        with suppress(Timeout), FileLock(left).acquire(timeout=0):
            shutil.rmtree(left.with_suffix(""), ignore_errors=True)
    for number in itertools.count():
        place = folder / f".incoming-{number}"
        lock = FileLock(f"{place}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        try:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)
            lock.release()
        return


@contextmanager
def _locked(entry: Path) -> Iterator[None]:
    """Keep other processes from making the same entry within the block; the system unlocks what a killed one held."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(entry.with_name(f".{entry.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        warn(f"waiting for another process, which is writing {entry}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _writable(place: Path) -> Iterator[None]:
    """Say what helps where the cache cannot be written.

    Raises:
        OutputError: It cannot.
    """
    try:
        yield
    except UnwritableError as error:
        raise type(error)(str(error).rpartition("; ")[0] + f"; {REMEDY}") from None
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise unwritable(place, error, REMEDY) from None


@cache
def code_and_packages(folder: Path) -> list[Any]:
    """A JSON value for what entries depend on besides their data: the code below a folder, and the packages."""
    total = 0
    for path in sorted([*folder.rglob("*.py"), *Path(__file__).parent.glob("*.py")]):
        total = zlib.crc32(path.read_bytes(), total)
    return [f"{total:08x}", package_versions(), np.__version__]
