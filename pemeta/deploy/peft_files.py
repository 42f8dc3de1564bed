"""Reading and writing LoRA and IA³ in the file format of the ``peft`` package, without that package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from pemeta.deploy.export import token_classification, token_classifier
from pemeta.errors import ConfigError, ModelError, OutputError, reason, unknown_name
from pemeta.heads import TokenClassification
from pemeta.methods.base import PEMethod
from pemeta.model.model_files import check_replaceable
from pemeta.model.pe_model import PEModel
from pemeta.typing import State
from pemeta.utils.files import read_json, read_tensors, replaced_folder, write_json, write_tensors

CONFIG = "adapter_config.json"
VALUES = "adapter_model.safetensors"
WITHIN = "base_model.model."
"""Prefix of every name in PEFT's files."""


def save_peft(model: PEModel, folder: str | Path, task: str | None = None, base: str | Path | None = None) -> None:
    """Write θ_a, and optionally a task's head, to a folder that ``peft.PeftModel.from_pretrained`` loads.

    PEFT needs the θ_p that it was trained with: save it with ``save_pretrained``, and load it with ``AutoModel``, or
    with ``AutoModelForTokenClassification`` if a task is written.

    Args:
        model: a model whose method PEFT supports too (``lora``, ``ia3``).
        folder: the folder, written completely or not at all; an earlier PEFT adapter in it is replaced.
        task: a task with a token-classification head; by default only θ_a is written.
        base: location of θ_p, for PEFT's automatic loading.

    Raises:
        ModelError: PEFT does not support the method or head, or several methods are attached.
        OutputError: the folder holds something else, or cannot be written.
    """
    folder = Path(folder)
    config = model.method.peft_config(model.backbone)
    if config is None:
        known = [name for name, kind in PEMethod.members().items() if kind.peft_config is not PEMethod.peft_config]
        raise ModelError(
            f"PEFT's files cannot represent the method {model.method.name!r}, only {', '.join(known)}; save the task "
            "with save_task"
        )
    if len(model.attached) > 1:
        others = ", ".join(method.name for method in model.attached if method != model.method)
        raise ModelError(f"{others} is attached too, which PEFT's files cannot represent; detach it, or use save_task")
    names = model.method.peft_names(model.backbone)
    own = dict(model.backbone.named_parameters())
    tensors = {theirs: _as_theirs(theirs, own[ours].detach().cpu(), config) for ours, theirs in names.items()}
    config |= {
        "base_model_name_or_path": None if base is None else str(base),
        "inference_mode": True,
        "task_type": None,
    }
    if task is not None:
        token_classification(model, task)
        shell, head = token_classifier(model)
        config |= {"task_type": "TOKEN_CLS", "modules_to_save": [head]}
        tensors = {f"{shell.base_model_prefix}.{name}": value for name, value in tensors.items()}
        for name, parameter in model.head(task).classifier.named_parameters():  # type: ignore[union-attr]
            tensors[f"{head}.{name}"] = parameter.detach().cpu()
    check_replaceable(folder, CONFIG, "an adapter of PEFT")
    with replaced_folder(folder) as temporary:
        write_tensors(temporary / VALUES, {WITHIN + name: value for name, value in tensors.items()})
        write_json(temporary / CONFIG, config)


def load_peft(
    folder: str | Path,
    backbone: PreTrainedModel,
    task: str | None = None,
    labels: Sequence[str] | None = None,
) -> PEModel:
    """Load an adapter in PEFT's files as a model with its method and values.

    Args:
        folder: a folder with ``adapter_config.json`` and ``adapter_model.safetensors``.
        backbone: the backbone that the adapter was trained on; it is changed in place.
        task: a name for the token-classification head in the files; by default a head is ignored.
        labels: labels of that head, in the order of their indices; by default ``LABEL_0``, ``LABEL_1`` ..., as in
            transformers.

    Raises:
        ModelError: the files are incomplete, or use a feature that pemeta's methods cannot represent, which is named.
    """
    folder = Path(folder)
    config, tensors = _read(folder)
    if task is not None and config.get("task_type") not in (None, "TOKEN_CLS"):
        raise ModelError(
            f"{folder / CONFIG} has task_type {config['task_type']!r}, but only the head of TOKEN_CLS can be read; "
            "omit task to load only the adapter"
        )
    method = _method(config, backbone)
    model = PEModel(backbone, method)
    try:
        ours = {theirs: name for name, theirs in method.peft_names(backbone).items()}
        state, rest = {}, {}
        own = dict(backbone.named_parameters())
        for key, value in tensors.items():
            name = _within_backbone(key, backbone)
            if name in ours:
                state[f"backbone.{ours[name]}"] = value.reshape(own[ours[name]].shape)
            else:
                rest[name] = value
        missing = [name for name, our in ours.items() if f"backbone.{our}" not in state]
        if missing:
            raise ModelError(
                f"{folder / VALUES} lacks {len(missing)} of the adapter's parameters, e.g. {missing[0]}; save or copy "
                "the adapter again"
            )
        head = _head(rest, config, folder, own)
        model.load_state(state)
        if task is not None:
            _add_head(model, task, head, labels, folder)
    except (ModelError, RuntimeError) as error:  # RuntimeError: wrong number of values
        model.detach(method)
        raise error if isinstance(error, ModelError) else ModelError(f"cannot load {folder}: {reason(error)}") from None
    return model


def _as_theirs(name: str, value: Tensor, config: Mapping[str, Any]) -> Tensor:
    """Reshape a value as in PEFT, where IA³'s factors are a row for a map's input, and a column for its output."""
    if not name.endswith(".ia3_l"):
        return value
    return value[None, :] if name.removesuffix(".ia3_l") in config["feedforward_modules"] else value[:, None]


def _read(folder: Path) -> tuple[dict[str, Any], State]:
    try:
        config = read_json(folder / CONFIG)
        tensors, _ = read_tensors(folder / VALUES)
    except OutputError as error:
        message = str(error).rpartition(";")[0] or str(error)
        raise ModelError(
            f"{message}; give a folder with PEFT's {CONFIG} and {VALUES} (safetensors; pickled files are not read)"
        ) from None
    if not isinstance(config, dict) or not isinstance(config.get("peft_type"), str):
        raise ModelError(
            f"{folder / CONFIG} is not a configuration of PEFT, because it has no peft_type; give a folder written by "
            "PEFT"
        )
    return config, tensors


def _method(config: Mapping[str, Any], backbone: PreTrainedModel) -> PEMethod:
    """The method that a configuration describes."""
    start = str(config.get("init_lora_weights", "")).lower()
    if start.startswith(("pissa", "olora", "corda", "loftq", "lora_ga")):
        raise ModelError(
            f"the PEFT configuration sets init_lora_weights to {start!r}, which changes the backbone's own weights; "
            "convert it to a plain LoRA when saving in PEFT, with path_initial_model_for_weight_conversion"
        )
    known = []
    try:
        for name, kind in PEMethod.members().items():
            if kind.peft_config is not PEMethod.peft_config:
                known.append(name)
                found = kind.from_peft(config, backbone)
                if found is not None:
                    return found
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"invalid value in {CONFIG}: {reason(error)}") from None
    raise ModelError(
        f"{unknown_name('PEFT tuner', config['peft_type'].lower(), known)}; attach the method peft instead"
    )


def _within_backbone(key: str, backbone: PreTrainedModel) -> str:
    """Convert a name in PEFT's file to the name within the backbone, or within the model that contained it."""
    return key.removeprefix(WITHIN).removeprefix(f"{backbone.base_model_prefix}.")


def _head(rest: State, config: Mapping[str, Any], folder: Path, own: Mapping[str, Any]) -> State:
    """Weight and bias of a linear head among the values that are not the adapter's; refuse any other value."""
    modules = tuple(config.get("modules_to_save") or ())
    head = {name.rpartition(".")[2]: value for name, value in rest.items() if name.rpartition(".")[0] in modules}
    odd = [name for name in rest if name.rpartition(".")[0] not in modules or name in own]
    if odd or len(head) < len(rest):
        raise ModelError(
            f"{folder / VALUES} holds {(odd or list(rest))[0]}, which belongs neither to the adapter nor to a linear "
            "head; give files of a LoRA or IA³ only"
        )
    return head


def _add_head(model: PEModel, task: str, head: State, labels: Sequence[str] | None, folder: Path) -> None:
    if set(head) != {"weight", "bias"} or head["weight"].dim() != 2:
        raise ModelError(f"{folder} has no linear head with a bias; omit task to load only the adapter")
    number = len(head["weight"])
    labels = [f"LABEL_{i}" for i in range(number)] if labels is None else labels
    if len(labels) != number:
        raise ModelError(
            f"the head in {folder} has {number} labels, but {len(labels)} were given; give one label per output"
        )
    try:
        spec = TokenClassification(labels=tuple(labels))
    except ValueError as error:
        raise ConfigError(f"invalid labels for the head in {folder}: {reason(error)}") from None
    model.add_head(task, spec)
    model.load_state({f"{model.head_prefix(task)}.classifier.{name}": value for name, value in head.items()})
