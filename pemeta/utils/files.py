"""Writing files so that a reader never sees half of one."""

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

BESIDE = "pemeta"
"""Key of a safetensors file's metadata."""


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    """Write beside the target, flush to disk, rename over it."""
    path = path.resolve()  # "." has no name
    temporary = path.with_name(f".{path.name}.pemeta-tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(temporary)  # what a process that was killed has left may have another mode
        temporary.touch()
        mode = temporary.stat().st_mode
        write(temporary)
        _flush(temporary)
        temporary.chmod(mode)  # safetensors writes for the owner alone
        temporary.replace(path)
        _flush_names(path.parent)
    except (OSError, SafetensorError) as error:
        raise unwritable(path, error) from None
    finally:
        remove(temporary)  # nothing is there any more when all went well


def _flush(file: Path) -> None:
    """Have the disk hold a file's content: after a power cut a renamed file could otherwise be empty."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _flush_names(folder: Path) -> None:
    """Have the disk hold the names in a folder; not every system can."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all.

    Raises:
        OutputError: the folder is read-only or full; the old file, if any, is as it was.
    """
    _replace(path, lambda temporary: _write(temporary, text))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def write_tensors(path: Path, tensors: State, about: Any = None) -> None:
    """Write a safetensors file, whole or not at all, with a JSON value beside the tensors.

    Raises:
        OutputError: the folder is read-only or full; the old file, if any, is as it was.
    """
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    beside = {"crc32": _checksum(contiguous, about), "about": about}
    metadata = {BESIDE: json.dumps(beside)}  # one key: safetensors writes several in any order
    _replace(path, lambda temporary: save_file(contiguous, temporary, metadata=metadata))


def _checksum(tensors: State, about: Any) -> str:
    """Of names, values and what stands beside them; safetensors would not notice a bit that flipped."""
    total = zlib.crc32(json.dumps(about).encode())
    for name in sorted(tensors):
        total = zlib.crc32(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode(), total)
        total = zlib.crc32(tensors[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data, total)
    return f"{total:08x}"


def read_tensors(path: Path) -> tuple[State, Any]:
    """The tensors of :func:`write_tensors`, on the CPU, and the value beside them.

    Raises:
        OutputError: the file is missing, is not whole, or was changed since it was written.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors: State = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        if BESIDE not in metadata:  # another library's file
            return tensors, None
        beside = json.loads(metadata[BESIDE])
        if not isinstance(beside, dict) or beside.get("crc32") != _checksum(tensors, beside.get("about")):
            raise ValueError("it is not what was written, by its checksum")
        return tensors, beside["about"]
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise OutputError(f"cannot read {path}: {error}; remove it to have it made again") from None


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """A new folder to fill, which takes the place of ``path`` when the block ends well.

    Raises:
        OutputError: the folder is read-only or full; the old folder, if any, is as it was.
    """
    path = path.resolve()
    if Path.cwd().is_relative_to(path):
        raise OutputError(f"cannot replace {path} while the working directory is in it; give another folder")
    temporary, old = (path.with_name(f".{path.name}.pemeta-{end}") for end in ("tmp", "old"))
    try:
        if old.exists() and not path.exists():  # a process was killed between the two renames below
            old.replace(path)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file() and not file.is_symlink():
                _flush(file)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
            path.replace(old)
        temporary.replace(path)
        _flush_names(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    except PemetaError:
        raise
    except (OSError, SafetensorError) as error:
        raise unwritable(path, error) from None
    finally:
        if old.exists() and not path.exists():
            old.replace(path)
        shutil.rmtree(temporary, ignore_errors=True)  # nothing is there any more when all went well


def check_writable(folder: Path) -> None:
    """Make the folder and a file in it, and remove the file: better now than after hours of work.

    Raises:
        OutputError: that is not possible.
    """
    probe = folder / ".writable"
    write_text(probe, "")
    remove(probe)


def remove(path: Path) -> None:
    """Remove a file, or say nothing where it cannot be removed: it is only ever a leftover."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


def unwritable(path: Path, error: Exception) -> UnwritableError:
    """The error for an output that could not be written."""
    reason = getattr(error, "strerror", None) or str(error)
    return UnwritableError(f"cannot write {path}: {reason}; give another folder with output=..., or make room there")


def write_json(path: Path, value: Any) -> None:
    """:func:`write_text` of indented JSON with a final newline."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        OutputError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # the last one: brackets in brackets in brackets
        raise OutputError(f"cannot read {path}: {error}; remove it to have it made again") from None
