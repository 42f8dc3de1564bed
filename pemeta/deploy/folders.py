"""Folders of saved models and of the tasks in them."""

from __future__ import annotations

from pathlib import Path

from pemeta.errors import ModelError, reason, unknown_name
from pemeta.model.manifest import TASKS, read_manifest
from pemeta.model.task_files import TASK_MANIFEST, read_task_manifest


def task_folders(path: str | Path) -> dict[str, Path]:
    """Mapping from the names of tasks to their folders in a model's ``tasks/``."""
    folders = sorted(file.parent for file in (Path(path) / TASKS).glob(f"*/{TASK_MANIFEST}"))
    return {read_task_manifest(folder).task: folder for folder in folders}


def find_task(path: str | Path, task: str | Path) -> Path:
    """The folder of a task, given by its name in a model's ``tasks/`` or as any folder.

    Raises:
        ModelError: there is no such task or folder.
    """
    known = task_folders(path)
    if str(task) in known:
        return known[str(task)]
    if (Path(task) / TASK_MANIFEST).is_file():
        return Path(task)
    raise ModelError(f"{unknown_name('task', str(task), known)}; give one of {Path(path) / TASKS}, or a task's folder")


def only_task(path: str | Path) -> str:
    """The name of a model's only task.

    Raises:
        ModelError: it has no task or several, or is not a saved model.
    """
    read_manifest(path)
    known = task_folders(path)
    if len(known) != 1:
        raise ModelError(
            f"{path} has {len(known)} tasks ({', '.join(sorted(known)) or 'none'}); specify the task by its name or "
            "its folder"
        )
    return next(iter(known))


def local_folder(path: str | Path) -> Path:
    """A model's folder, which is the one in the hub's cache for a name on the hub."""
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(path)))
    except Exception as error:  # the hub's client raises nearly anything here
        raise ModelError(
            f"cannot load a model from {str(path)!r}: there is no such folder, and {reason(error)}"
        ) from None
