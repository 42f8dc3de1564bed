"""What one task stores, as a folder: θ_a and θ_h in ``task.safetensors``, and what these belong to in ``task.json``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PlainSerializer, PlainValidator

from pemeta.backbone.tokenizers import check_tokenizer
from pemeta.errors import ModelError, OutputError, excerpt, reason
from pemeta.heads import HeadSpec
from pemeta.methods.base import AnyMethod
from pemeta.model.manifest import FORMAT, check_file, checked, file_digest
from pemeta.model.model_files import check_replaceable, theta_p_digest
from pemeta.model.network import Network
from pemeta.typing import State
from pemeta.utils.files import read_json, read_tensors, replaced_folder, write_json, write_tensors
from pemeta.utils.provenance import package_versions
from pemeta.utils.registry import Frozen

TASK_MANIFEST = "task.json"
VALUES = "task.safetensors"
AnyHead = Annotated[HeadSpec, PlainValidator(HeadSpec.parse), PlainSerializer(lambda spec: spec.to_config())]


class TaskManifest(Frozen):
    """What ``task.json`` holds.

    Attributes:
        format: version of the folder's layout.
        task: the task's name.
        head: what its head is made from.
        method: whose θ_a it is.
        theta_p_digest: of the θ_p that θ_a and the head were trained with.
        values_digest: of ``task.safetensors``; None where an earlier version wrote it.
        tokenizer_digest: of the tokenizer that its data was encoded with; None where it is not known.
        max_length: word pieces per sentence, special tokens included; None for the default.
        packages: versions that it was written with.
    """

    format: int = FORMAT
    task: str = Field(min_length=1)
    head: AnyHead
    method: AnyMethod
    theta_p_digest: str
    values_digest: str | None = None
    tokenizer_digest: str | None = None
    max_length: int | None = Field(None, ge=3)
    packages: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class StoredTask:
    """A task that was read, and fits the model that it was read for.

    Attributes:
        about: what it belongs to.
        theta_a: values of θ_a, by their names in the model.
        theta_h: values of the head, by their names in the head.
    """

    manifest: TaskManifest
    theta_a: State
    theta_h: State


def save_task(model: Network, folder: Path, task: str, max_length: int | None = None) -> int:
    """Write a task's folder, whole or not at all, and return the number of its bytes."""
    head = f"{model.head_prefix(task)}."
    manifest = TaskManifest(
        task=task,
        head=model.head_spec(task),
        method=model.method,
        theta_p_digest=theta_p_digest(model),
        tokenizer_digest=model.tokenizer_digest,
        max_length=max_length,
        packages=package_versions(),
    )
    values = {
        f"head.{name.removeprefix(head)}" if name.startswith(head) else name: value
        for name, value in model.state(model.stored_names(task)).items()
    }
    check_replaceable(folder, TASK_MANIFEST, "a saved task")
    with replaced_folder(folder) as temporary:
        write_tensors(temporary / VALUES, values)
        manifest = manifest.model_copy(update={"values_digest": file_digest(temporary / VALUES)})
        write_json(temporary / TASK_MANIFEST, manifest.model_dump(mode="json"))
    return sum(file.stat().st_size for file in folder.iterdir())


def read_task_manifest(folder: Path) -> TaskManifest:
    """What a task's ``task.json`` says.

    Raises:
        ModelError: there is none, it is of a later version, or has an unknown head or method.
    """
    file = folder / TASK_MANIFEST
    if not file.is_file():
        raise ModelError(
            f"{folder} has no {TASK_MANIFEST}, so it is not a saved task; give a folder that save_task wrote"
        )
    try:
        value = read_json(file)
    except OutputError as error:
        raise ModelError(
            f"cannot read {file}: {reason(error).rpartition(';')[0]}; save or copy the task again"
        ) from None
    manifest: TaskManifest = checked(TaskManifest, value, file)
    return manifest


def read_task(model: Network, folder: Path, digest: str | None = None) -> StoredTask:
    """A task's values, after making sure that they fit; the model is not changed.

    Args:
        model: what they are to be put in.
        folder: the task's folder.
        digest: of the model's θ_p, where it is known.

    Raises:
        ModelError: the folder is not whole, or belongs to another method, another θ_p or another tokenizer.
    """
    manifest = read_task_manifest(folder)
    check_tokenizer(f"task {manifest.task!r} in {folder}", manifest.tokenizer_digest, model.tokenizer_digest)
    if manifest.method != model.method:
        raise ModelError(
            f"task {manifest.task!r} in {folder} was fine-tuned with {manifest.method!r}, but this model's method is "
            f"{model.method!r}; load it into a model with its own method"
        )
    here = digest or theta_p_digest(model)
    if manifest.theta_p_digest != here:
        raise ModelError(
            f"task {manifest.task!r} in {folder} belongs to another primed model: its θ_p has the digest "
            f"{manifest.theta_p_digest}, and this model's {here}; load it into the model that it was fine-tuned from"
        )
    try:
        values, _ = read_tensors(folder / VALUES)
    except OutputError as error:
        message = str(error).rpartition(";")[0]
        raise ModelError(f"{message or error}; save or copy the task again") from None
    theta_h = {name.removeprefix("head."): v for name, v in values.items() if name.startswith("head.")}
    theta_a = {name: value for name, value in values.items() if not name.startswith("head.")}
    _check_shapes("θ_a", folder, theta_a, {n: model.get_parameter(n) for n in model.partition().theta_a})
    _check_shapes("the head", folder, theta_h, dict(manifest.head(model.hidden_size).named_parameters()))
    check_file(folder / VALUES, manifest.values_digest, TASK_MANIFEST)
    return StoredTask(manifest, theta_a, theta_h)


def _check_shapes(what: str, folder: Path, found: State, expected: dict[str, Any]) -> None:
    """Refuse values of other parameters, or of other shapes."""
    here, there = ({name: tuple(value.shape) for name, value in one.items()} for one in (expected, found))
    odd = sorted(name for name in {*here, *there} if here.get(name) != there.get(name))
    if odd:
        raise ModelError(
            f"{folder / VALUES} does not hold {what} of this model: {odd[0]} is {there.get(odd[0], 'missing')} there "
            f"and {here.get(odd[0], 'missing')} here; save the task again, or load it into the model that it is from"
        )


def apply_task(model: Network, stored: StoredTask, name: str | None = None) -> str:
    """Put a task's values in the model, and return its name there.

    Raises:
        ModelError: the model has a task of that name with another head.
    """
    name = name or stored.manifest.task
    spec = stored.manifest.head
    if name in model.tasks and (there := model.head_spec(name)) != spec:
        raise ModelError(
            f"task {name!r} has the head {excerpt(there, 200)} here and {excerpt(spec, 200)} in the folder; load it "
            "under another name"
        )
    model.add_head(name, spec)
    head = model.head_prefix(name)
    model.load_state({**stored.theta_a, **{f"{head}.{key}": value for key, value in stored.theta_h.items()}})
    return name
