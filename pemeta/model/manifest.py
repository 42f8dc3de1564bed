"""What ``pemeta.json`` in a model's folder says, and where the files of a model are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator
from transformers.utils.hub import cached_file
from typing_extensions import Self

from pemeta.errors import ModelError, OutputError, PemetaError, reason
from pemeta.methods.base import AnyMethod
from pemeta.utils.files import read_json
from pemeta.utils.hub import explained, quiet
from pemeta.utils.registry import Frozen, describe

FORMAT = 1
MANIFEST = "pemeta.json"
THETA_A = "theta_a.safetensors"
TASKS = "tasks"
MARK = "pemeta_format"
"""A key in ``config.json``, so that the folder's backbone alone is not taken for all there is."""


class Manifest(Frozen):
    """What ``pemeta.json`` holds.

    Attributes:
        format: version of the folder's layout.
        methods: the attached methods, in the order in which they were.
        finetuning: index of the one that fine-tuning uses.
        theta_p_digest: of θ_p; a task folder belongs to one of them.
        values_digest: of θ_p in these files, where it was loaded in another type and saved in that; its tasks stay.
        theta_a_digest: of ``theta_a.safetensors``; None where there is none, or it was written by an earlier version.
        tokenizer_digest: of the tokenizer that the model's data is encoded with; None where it is not known.
        dtype: of the backbone's parameters.
        base: where the backbone is, if not here: a folder (relative to this one where it begins with a dot) or a name
            on the hub.
        facts: how the model was made.
        packages: versions that it was written with.
    """

    format: int = FORMAT
    methods: tuple[AnyMethod, ...] = Field(min_length=1)
    finetuning: int = Field(0, ge=0)
    theta_p_digest: str
    values_digest: str | None = None
    theta_a_digest: str | None = None
    tokenizer_digest: str | None = None
    dtype: str = Field("float32", pattern="^(float32|float64|bfloat16|float16)$")
    base: str | None = None
    facts: dict[str, Any] = Field(default_factory=dict)
    packages: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_finetuning(self) -> Self:
        if self.finetuning >= len(self.methods):
            raise ValueError(
                f"finetuning is {self.finetuning}, but must be below the number of methods, {len(self.methods)}"
            )
        return self


def find_file(path: str | Path, name: str) -> Path | None:
    """A file of a model's folder or of a repository on the hub; None where there is none.

    Raises:
        ModelError: the repository cannot be asked; to go on as if it had no such file could leave θ_a* out.
    """
    if Path(path).is_dir():
        return found if (found := Path(path) / name).is_file() else None
    with explained(name, path, "check name and connection, or give the folder of a download"), quiet():
        file = cached_file(str(path), name, _raise_exceptions_for_missing_entries=False)
    return None if file is None else Path(file)


def find_manifest(path: str | Path) -> Manifest | None:
    """What a model's ``pemeta.json`` says; None where there is none.

    Raises:
        ModelError: it is of a later version, or cannot be read.
    """
    file = find_file(path, MANIFEST)
    if file is None:
        return None
    manifest: Manifest = checked(Manifest, _read(file, path), file)
    return manifest


def read_manifest(path: str | Path) -> Manifest:
    """What a model's ``pemeta.json`` says.

    Raises:
        ModelError: there is none, it is of a later version, or cannot be read.
    """
    manifest = find_manifest(path)
    if manifest is None:
        raise ModelError(
            f"{str(path)!r} has no {MANIFEST}, so it is not a model saved by pemeta; give a folder written by "
            "save_pretrained or `pemeta run`"
        )
    return manifest


def _read(file: Path, path: str | Path) -> Any:
    try:
        return read_json(file)
    except OutputError as error:
        raise ModelError(f"cannot read {MANIFEST} in {str(path)!r}: {reason(error)}") from None


def checked(kind: type[Any], value: Any, file: Path) -> Any:
    """The description in a JSON value.

    Raises:
        ModelError: its format is of a later version, or a name or a key in it is unknown.
    """
    found = value.get("format") if isinstance(value, Mapping) else None
    if found != FORMAT:
        raise ModelError(
            f"{file} has the format {found!r}, and this version of pemeta reads {FORMAT}; upgrade pemeta, or save again"
        )
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        problem = describe(error, kind)
    except PemetaError as error:
        problem = str(error)
    raise ModelError(
        f"cannot use {file}: {problem}; if a method or a head of your own is meant, import its module first"
    ) from None


def file_digest(path: Path) -> str:
    """Twelve hexadecimal digits that change when any byte of a file does."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            sha.update(block)
    return sha.hexdigest()[:12]


def check_file(path: Path, expected: str | None, where: str) -> None:
    """Refuse a file that was changed since it was written, where its digest is known.

    Raises:
        ModelError: it has another digest.
    """
    if expected is not None and (found := file_digest(path)) != expected:
        raise ModelError(
            f"{path} does not match {where} beside it (its digest is {found}, not {expected}): it was damaged, or "
            "belongs to another model; save or copy it again"
        )


def resolve_base(path: str | Path, manifest: Manifest) -> str:
    """The folder or name on the hub where a model's backbone is."""
    base = manifest.base or str(path)
    return str((Path(path) / base).resolve()) if base.startswith(".") else base


def relative_base(base: str, folder: Path) -> str:
    """What ``base`` says in the ``pemeta.json`` of ``folder``: relative where both are in one run, so that it may move.

    Args:
        base: a folder or a name on the hub.
        folder: the folder of the model, two below its run's.
    """
    place = Path(base).resolve()
    if not place.is_dir():
        return base
    run = folder.resolve().parent.parent
    return os.path.relpath(place, folder.resolve()) if place.is_relative_to(run) else str(place)
