"""The manifest ``pemeta.json`` in a model's folder, and finding and checking a model's files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import Field, ValidationError, model_validator
from transformers.utils.hub import cached_file
from typing_extensions import Self

from pemeta.backbone.output_kinds import OutputKind
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
"""A key in ``config.json`` which shows that the folder holds more than a backbone."""
DType: TypeAlias = Literal["float32", "float64", "bfloat16", "float16"]


class Manifest(Frozen):
    """Content of ``pemeta.json``.

    Attributes:
        format: version of the folder's layout.
        methods: the attached methods, in the order of attachment.
        finetuning: index of the method that fine-tuning uses.
        theta_p_digest: digest of θ_p; every task folder belongs to one θ_p.
        values_digest: digest of θ_p in these files, if it differs because θ_p was converted to another dtype; tasks
            remain valid.
        theta_a_digest: digest of ``theta_a.safetensors``; None if there is no such file, or an earlier version wrote
            it.
        tokenizer_digest: digest of the tokenizer that the model's data is encoded with; None if unknown.
        dtype: dtype of the backbone's parameters.
        dtypes: dtype of each of the backbone's parameters and buffers that has another one; None if an earlier version
            wrote it.
        buffers_digest: digest of ``buffers.safetensors``; None if there is no such file.
        base: location of the backbone, if not in this folder: a folder (relative to this one if it begins with a dot)
            or a name on the hub.
        output: kind of the language model that the backbone in ``base`` is loaded with; None for the backbone alone.
        facts: how the model was made.
        packages: versions of the packages that wrote it.
    """

    format: int = FORMAT
    methods: tuple[AnyMethod, ...] = Field(min_length=1)
    finetuning: int = Field(0, ge=0)
    theta_p_digest: str
    values_digest: str | None = None
    theta_a_digest: str | None = None
    tokenizer_digest: str | None = None
    dtype: DType = "float32"
    dtypes: dict[str, DType] | None = None
    buffers_digest: str | None = None
    base: str | None = None
    output: OutputKind | None = None
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
    """Path of a file in a model's folder or in a repository on the hub; None if it does not exist.

    Raises:
        ModelError: the repository cannot be reached; assuming that the file does not exist could drop θ_a*.
    """
    if Path(path).is_dir():
        return found if (found := Path(path) / name).is_file() else None
    with explained(name, path, "check the name and the connection, or give the folder of a download"), quiet():
        file = cached_file(str(path), name, _raise_exceptions_for_missing_entries=False)
    return None if file is None else Path(file)


def find_manifest(path: str | Path) -> Manifest | None:
    """The content of a model's ``pemeta.json``; None if there is none.

    Raises:
        ModelError: it was written by a later version, or cannot be read.
    """
    file = find_file(path, MANIFEST)
    if file is None:
        return None
    manifest: Manifest = checked(Manifest, _read(file, path), file)
    return manifest


def read_manifest(path: str | Path) -> Manifest:
    """The content of a model's ``pemeta.json``.

    Raises:
        ModelError: there is none, it was written by a later version, or cannot be read.
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
    """A manifest of class ``kind``, validated from a JSON value.

    Raises:
        ModelError: its format is unknown, or a name or a key in it is.
    """
    found = value.get("format") if isinstance(value, Mapping) else None
    if found != FORMAT:
        raise ModelError(
            f"{file} has format {found!r}, but this version of pemeta reads format {FORMAT}; upgrade pemeta, or save "
            "the model again"
        )
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        problem = describe(error, kind)
    except PemetaError as error:
        problem = str(error)
    raise ModelError(
        f"cannot use {file}: {problem}; if it refers to your own method or head, import its module first"
    ) from None


def file_digest(path: Path) -> str:
    """Twelve hexadecimal digits that change with every byte of a file."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            sha.update(block)
    return sha.hexdigest()[:12]


def check_file(path: Path, expected: str | None, where: str) -> None:
    """Refuse a file that has changed since it was written, if its digest is known.

    Raises:
        ModelError: its digest differs.
    """
    if expected is not None and (found := file_digest(path)) != expected:
        raise ModelError(
            f"{path} does not match {where} beside it (its digest is {found}, not {expected}): it is damaged or "
            "belongs to another model; save or copy it again"
        )


def resolve_base(path: str | Path, manifest: Manifest) -> str:
    """The folder, or the name on the hub, of a model's backbone."""
    base = manifest.base or str(path)
    return str((Path(path) / base).resolve()) if base.startswith(".") else base


def relative_base(base: str, folder: Path) -> str:
    """The manifest's ``base`` for a model in ``folder``: relative if both are in one output folder, which may move.

    Args:
        base: a folder or a name on the hub.
        folder: the model's folder, two levels below the output folder.
    """
    place = Path(base).resolve()
    if not place.is_dir():
        return base
    output = folder.resolve().parent.parent
    return os.path.relpath(place, folder.resolve()) if place.is_relative_to(output) else str(place)
