"""Saving and loading one task as a folder: θ_a and θ_h in ``task.safetensors``, and the manifest ``task.json``."""

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


class Prompting(Frozen):
    """How a task's prompts are made, and where its completions end.

    Attributes:
        template: as in :func:`~pemeta.encode_completions`: null for texts as they are and turns by the tokenizer's chat
            template, ``chat`` for that template also for texts, or a template in Jinja.
        template_options: further variables for the template.
        end_ids: ids of the tokens that end a completion, beside the tokenizer's EOS.
        max_new_tokens: most tokens of a completion; null for the server's default.
    """

    template: str | None = None
    template_options: dict[str, Any] = Field(default_factory=dict)
    end_ids: tuple[int, ...] = ()
    max_new_tokens: int | None = Field(None, gt=0)


class TaskManifest(Frozen):
    """Content of ``task.json``.

    Attributes:
        format: version of the folder's layout.
        task: the task's name.
        head: the specification of its head.
        method: the method whose θ_a is stored.
        theta_p_digest: digest of the θ_p that θ_a and the head were trained with.
        values_digest: digest of ``task.safetensors``; None if an earlier version wrote it.
        tokenizer_digest: digest of the tokenizer that its data was encoded with; None if unknown.
        max_length: maximum number of tokens per sentence, including special tokens; None for the default.
        prompting: of a language model, how its prompts are made; None for texts as they are, and for other tasks.
        packages: versions of the packages that wrote it.
    """

    format: int = FORMAT
    task: str = Field(min_length=1)
    head: AnyHead
    method: AnyMethod
    theta_p_digest: str
    values_digest: str | None = None
    tokenizer_digest: str | None = None
    max_length: int | None = Field(None, ge=3)
    prompting: Prompting | None = None
    packages: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class StoredTask:
    """A task that has been read and fits the model it was read for.

    Attributes:
        manifest: the content of its ``task.json``.
        theta_a: values of θ_a, by parameter name in the model.
        theta_h: values of the head, by parameter name in the head.
    """

    manifest: TaskManifest
    theta_a: State
    theta_h: State


def save_task(
    model: Network, folder: Path, task: str, max_length: int | None = None, prompting: Prompting | None = None
) -> int:
    """Write a task's folder completely or not at all, and return its size in bytes."""
    head = f"{model.head_prefix(task)}."
    manifest = TaskManifest(
        task=task,
        head=model.head_spec(task),
        method=model.method,
        theta_p_digest=theta_p_digest(model),
        tokenizer_digest=model.tokenizer_digest,
        max_length=max_length,
        prompting=prompting,
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
    """The content of a task's ``task.json``.

    Raises:
        ModelError: there is none, it was written by a later version, or has an unknown head or method.
    """
    file = folder / TASK_MANIFEST
    if not file.is_file():
        raise ModelError(
            f"{folder} has no {TASK_MANIFEST}, so it is not a saved task; give a folder written by save_task"
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
    """Read a task and check that it fits the model, without changing the model.

    Args:
        model: the model that the task is for.
        folder: the task's folder.
        digest: digest of the model's θ_p, if known.

    Raises:
        ModelError: the folder is incomplete, or belongs to another method, another θ_p or another tokenizer.
    """
    manifest = read_task_manifest(folder)
    check_tokenizer(f"task {manifest.task!r} in {folder}", manifest.tokenizer_digest, model.tokenizer_digest)
    if manifest.method != model.method:
        raise ModelError(
            f"task {manifest.task!r} in {folder} was fine-tuned with {manifest.method!r}, but this model's method is "
            f"{model.method!r}; load it into a model with the same method"
        )
    here = digest or theta_p_digest(model)
    if manifest.theta_p_digest != here:
        raise ModelError(
            f"task {manifest.task!r} in {folder} belongs to another primed model: its θ_p has the digest "
            f"{manifest.theta_p_digest}, and this model's is {here}; load it into the model that it was fine-tuned from"
        )
    try:
        values, _ = read_tensors(folder / VALUES)
    except OutputError as error:
        message = str(error).rpartition(";")[0]
        raise ModelError(f"{message or error}; save or copy the task again") from None
    theta_h = {name.removeprefix("head."): v for name, v in values.items() if name.startswith("head.")}
    theta_a = {name: value for name, value in values.items() if not name.startswith("head.")}
    _check_shapes("θ_a", folder, theta_a, {n: model.get_parameter(n) for n in model.partition().theta_a})
    _check_shapes(
        "the head", folder, theta_h, dict(manifest.head.on(model.backbone)(model.hidden_size).named_parameters())
    )
    check_file(folder / VALUES, manifest.values_digest, TASK_MANIFEST)
    return StoredTask(manifest, theta_a, theta_h)


def _check_shapes(what: str, folder: Path, found: State, expected: dict[str, Any]) -> None:
    """Refuse values whose names or shapes are not those of the model's parameters."""
    here, there = ({name: tuple(value.shape) for name, value in one.items()} for one in (expected, found))
    odd = sorted(name for name in {*here, *there} if here.get(name) != there.get(name))
    if odd:
        raise ModelError(
            f"{folder / VALUES} does not hold {what} of this model: {odd[0]} is {there.get(odd[0], 'missing')} in the "
            f"file and {here.get(odd[0], 'missing')} in the model; save the task again, or load it into its own model"
        )


def apply_task(model: Network, stored: StoredTask, name: str | None = None) -> str:
    """Load a task's values into the model, and return its name there.

    Raises:
        ModelError: the model has a task of that name with a different head.
    """
    name = name or stored.manifest.task
    spec = stored.manifest.head
    if name in model.tasks and (there := model.head_spec(name)) != spec:
        raise ModelError(
            f"task {name!r} has the head {excerpt(there, 200)} in the model and {excerpt(spec, 200)} in the folder; "
            "load it under another name"
        )
    model.add_head(name, spec)
    head = model.head_prefix(name)
    model.load_state({**stored.theta_a, **{f"{head}.{key}": value for key, value in stored.theta_h.items()}})
    return name
