"""Atomic writing of files and folders, so that a reader never sees a partial one."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pemeta.errors import OutputError, PemetaError, UnwritableError
from pemeta.typing import State

METADATA_KEY = "pemeta"
"""Key of pemeta's entry in a safetensors file's metadata."""


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    """Write a temporary file next to the target, flush it to disk, and rename it over the target."""
    path = path.resolve()  # "." has no name
    temporary = path.with_name(f".{path.name}.pemeta-tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(temporary)  # a leftover of a killed process may have another mode
        temporary.touch()
        mode = temporary.stat().st_mode
        write(temporary)
        flush(temporary)
        temporary.chmod(mode)  # safetensors makes it readable by the owner only
        temporary.replace(path)
        flush_folder(path.parent)
    except (OSError, SafetensorError) as error:
        raise unwritable(path, error) from None
    finally:
        remove(temporary)  # already renamed on success


def flush(file: Path) -> None:
    """Flush a file's content to disk; otherwise a renamed file could be empty after a power failure."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def flush_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, on systems that can."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, completely or not at all.

    Raises:
        OutputError: The folder is read-only or full; an existing file is left unchanged.
    """
    _replace(path, lambda temporary: _write(temporary, text))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def write_tensors(path: Path, tensors: State, about: Any = None) -> None:
    """Write tensors and a JSON value ``about`` them to a safetensors file, completely or not at all.

    Raises:
        OutputError: The folder is read-only or full; an existing file is left unchanged.
    """
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    entry = {"crc32": _checksum(contiguous, about), "about": about}
    metadata = {METADATA_KEY: json.dumps(entry)}  # one key: safetensors writes several in arbitrary order
    _replace(path, lambda temporary: save_file(contiguous, temporary, metadata=metadata))


def _checksum(tensors: State, about: Any) -> str:
    """A checksum of the tensors' names and values and of the JSON value; safetensors does not detect flipped bits."""
    total = zlib.crc32(json.dumps(about).encode())
    for name in sorted(tensors):
        total = zlib.crc32(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode(), total)
        total = zlib.crc32(tensors[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data, total)
    return f"{total:08x}"


def read_tensors(path: Path) -> tuple[State, Any]:
    """The tensors and the JSON value written by :func:`write_tensors`; the tensors are on the CPU.

    Raises:
        OutputError: The file is missing, incomplete, or has changed since it was written.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors: State = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        if METADATA_KEY not in metadata:  # another library's file
            return tensors, None
        entry = json.loads(metadata[METADATA_KEY])
        if not isinstance(entry, dict) or entry.get("crc32") != _checksum(tensors, entry.get("about")):
            raise ValueError("its content does not match its checksum")
        return tensors, entry["about"]
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise OutputError(f"cannot read {path}: {error}; remove it to have it recreated") from None


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill, which replaces ``path`` if the block succeeds.

    Raises:
        OutputError: The folder is read-only or full; an existing folder is left unchanged.
    """
    path = path.resolve()
    if Path.cwd().is_relative_to(path):
        raise OutputError(f"cannot replace {path} while the working directory is inside it; choose another folder")
    temporary, old = (path.with_name(f".{path.name}.pemeta-{end}") for end in ("tmp", "old"))
    try:
        if old.exists() and not path.exists():  # a process was killed between the two renames below
            old.replace(path)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file() and not file.is_symlink():
                flush(file)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
            path.replace(old)
        temporary.replace(path)
        flush_folder(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    except PemetaError:
        raise
    except (OSError, SafetensorError) as error:
        raise unwritable(path, error) from None
    finally:
        if old.exists() and not path.exists():
            old.replace(path)
        shutil.rmtree(temporary, ignore_errors=True)  # already renamed on success


def follow_umask(folder: Path, pattern: str = "*") -> None:
    """Give all files in a folder the mode of a new file; safetensors makes its own readable by their owner only."""
    files = [file for file in folder.rglob(pattern) if file.is_file() and not file.is_symlink()]
    probe = folder / ".pemeta-mode"
    probe.touch()
    mode = probe.stat().st_mode
    remove(probe)
    for file in files:
        file.chmod(mode)


def check_writable(folder: Path) -> None:
    """Create the folder and a probe file in it, to find out now and not after hours of work; the file is removed.

    Raises:
        OutputError: The folder or the file cannot be created.
    """
    probe = folder / ".writable"
    write_text(probe, "")
    remove(probe)


def remove(path: Path) -> None:
    """Remove a leftover file, ignoring errors."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


def unwritable(
    path: Path, error: Exception, remedy: str = "choose another folder with output=..., or free up space"
) -> UnwritableError:
    """The error for an output that could not be written."""
    reason = getattr(error, "strerror", None) or str(error)
    return UnwritableError(f"cannot write {path}: {reason}; {remedy}")


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON with a final newline, by :func:`write_text`."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        OutputError: The file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # RecursionError: too many nested brackets
        raise OutputError(f"cannot read {path}: {error}; remove it to have it recreated") from None
