"""Reading and writing adapters in the file format of the ``peft`` package: LoRA and IA³ without that package."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeAlias

from torch import Tensor, nn
from transformers import PreTrainedModel

from pemeta.deploy.adapter_class import adapter_class
from pemeta.deploy.peft_check import check_in_peft
from pemeta.errors import ConfigError, ModelError, OutputError, PemetaError, counted, reason
from pemeta.heads import TokenClassification
from pemeta.methods.base import PEMethod
from pemeta.model.given import require_model
from pemeta.model.model_files import check_replaceable
from pemeta.model.pe_model import PEModel
from pemeta.typing import State
from pemeta.utils.files import read_json, read_tensors, replaced_folder, write_json, write_tensors
from pemeta.utils.modules import is_finite
from pemeta.utils.signatures import checked

CONFIG = "adapter_config.json"
VALUES = "adapter_model.safetensors"
WITHIN = "base_model.model."
"""Prefix of every name in PEFT's files."""
_HEADLESS = (None, "FEATURE_EXTRACTION", "CAUSAL_LM")
"""Kinds of task whose files need no head; of the others PEFT loads none without."""


TaskType: TypeAlias = Literal["FEATURE_EXTRACTION", "CAUSAL_LM", "TOKEN_CLS", "SEQ_CLS", "QUESTION_ANS"]


@checked(model=None)
def save_peft(
    model: PEModel,
    folder: str | Path,
    task: str | None = None,
    base: str | Path | None = None,
    task_type: TaskType | None = None,
) -> None:
    """Write θ_a, and a task's head if it has values of its own, to a folder that ``peft.PeftModel`` loads.

    PEFT needs the θ_p that it was trained with: save it with ``save_pretrained``, and load it with the class that the
    adapter is for: ``AutoModelForTokenClassification``, ``AutoModelForSequenceClassification`` or
    ``AutoModelForCausalLM`` by the task's head; without a task ``AutoModel``, or ``AutoModelForCausalLM`` for a
    language model. A language model's output matrix belongs to θ_p unless its head is ``own``, so that the folder holds
    θ_a alone, as vLLM and SGLang need it (:func:`vllm_refusals`). Where the package is installed, PEFT loads the files
    before the folder appears, and its outputs are compared.

    Args:
        model: a model whose method PEFT supports too (``lora``, ``ia3``).
        folder: the folder, written completely or not at all; an earlier PEFT adapter in it is replaced.
        task: a task whose head transformers' own class has too; by default only θ_a is written.
        base: location of θ_p, for PEFT's automatic loading.
        task_type: PEFT's name of the class that θ_a alone is for; by default ``CAUSAL_LM`` if all of the model's tasks
            are language models, and else ``FEATURE_EXTRACTION``, which is ``AutoModel``. Files that name a class of
            another kind hold its head in PEFT, so that they name none, and the class keeps the head that it has.

    Raises:
        ModelError: PEFT does not support the method or head, several methods are attached, or PEFT's outputs differ.
        OutputError: the folder holds something else, or cannot be written.
    """
    require_model(model, "save_peft")
    folder = Path(folder)
    config = _configuration(model)
    if task is not None and task_type is not None:
        raise ModelError(f"task_type {task_type!r} is for θ_a alone, but the task {task!r} was given too; omit one")
    target = adapter_class(model, task, task_type)
    names = model.method.peft_names(model.backbone)
    own = dict(model.backbone.named_parameters())
    tensors = {
        f"{target.within}{theirs}": _as_theirs(theirs, own[ours].detach().cpu(), config)
        for ours, theirs in names.items()
    }
    config |= {
        "base_model_name_or_path": None if base is None else str(base),
        "inference_mode": True,
        "task_type": target.kind if task is not None or target.kind in _HEADLESS else None,
    }
    if target.kind == "CAUSAL_LM" and config["peft_type"] == "LORA":
        config["target_modules"] = target.short_names(config["target_modules"])
    if target.maps:
        config["modules_to_save"] = target.saved_parts()
        for place, one in target.maps.items():
            tensors |= {f"{place}.{name}": value.detach().cpu() for name, value in one.named_parameters()}
    check_replaceable(folder, CONFIG, "an adapter of PEFT")
    with replaced_folder(folder) as temporary:
        write_tensors(temporary / VALUES, {WITHIN + name: value for name, value in tensors.items()})
        write_json(temporary / CONFIG, config)
        check_in_peft(model, temporary, target, task)


def _configuration(model: PEModel) -> dict[str, Any]:
    """The content of ``adapter_config.json`` for the model's method."""
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
    return config


@checked()
def load_peft(
    folder: str | Path,
    backbone: PreTrainedModel,
    task: str | None = None,
    labels: Sequence[str] | None = None,
) -> PEModel:
    """Load an adapter in PEFT's files as a model with its method and values.

    Args:
        folder: a folder with ``adapter_config.json`` and ``adapter_model.safetensors``.
        backbone: the backbone that the adapter was trained on; it is changed in place. The method is ``lora`` or
            ``ia3`` where these can represent the adapter, and else ``peft``, for which that package must be
            installed.
        task: a name for the token-classification head in the files; by default a head is ignored.
        labels: labels of that head, in the order of their indices; by default ``LABEL_0``, ``LABEL_1`` ..., as in
            transformers.

    Raises:
        ModelError: the files are incomplete, or hold more than an adapter and a head, or belong
            to a backbone whose own weights PEFT's initialisation changed.
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
        rest = _load_values(method, backbone, folder, tensors)
        head = _head(rest, config, folder, {name for name, _ in backbone.named_parameters()})
        if task is not None:
            _add_head(model, task, head, labels, folder)
    except ModelError:
        model.detach(method)
        raise
    return model


def _load_values(method: PEMethod, backbone: PreTrainedModel, folder: Path, tensors: State) -> State:
    """Load θ_a from the file's tensors, and return those that are not of the adapter."""
    try:
        return method.load_peft(backbone, {_within_backbone(key, backbone): value for key, value in tensors.items()})
    except ModelError as error:
        raise ModelError(f"{folder / VALUES} {error}; save or copy the adapter again") from None


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
    odd = next((name for name, value in tensors.items() if value.is_floating_point() and not is_finite(value)), None)
    if odd is not None:
        raise ModelError(f"{folder / VALUES} is not finite: {odd} holds NaN or infinity; save an earlier state of it")
    if not isinstance(config, dict) or not isinstance(config.get("peft_type"), str):
        raise ModelError(
            f"{folder / CONFIG} is not a configuration of PEFT, because it has no peft_type; give a folder written by "
            "PEFT"
        )
    return config, tensors


def _method(config: Mapping[str, Any], backbone: PreTrainedModel) -> PEMethod:
    """The method that a configuration describes: one of pemeta's own if possible, and else the bridge to PEFT."""
    refusal: Exception | None = None
    kinds = [kind for kind in PEMethod.members().values() if "from_peft" in vars(kind)]
    for kind in sorted(kinds, key=lambda kind: kind.peft_config is PEMethod.peft_config):  # the bridge last
        try:
            found = kind.from_peft(config, backbone)
        except PemetaError as error:
            refusal = error
        except (KeyError, TypeError, ValueError) as error:
            refusal = ModelError(f"invalid value in {CONFIG}: {reason(error)}")
        else:
            if found is not None:
                return found
    what = str(refusal or f"pemeta's own methods are not of PEFT's type {config['peft_type']}")
    if find_spec("peft") is None:
        what += "; install the package peft, which may load it (`pip install 'pemeta[peft]'`)"
    raise ModelError(what)


def _within_backbone(key: str, backbone: PreTrainedModel) -> str:
    """Convert a name in PEFT's file to the name within the backbone, or within the model that contained it."""
    name = key.removeprefix(WITHIN)
    inner = name.removeprefix(f"{backbone.base_model_prefix}.")
    return max(inner, name, key=lambda one: _steps_within(one, backbone))  # DINOv3 has a part of its own prefix's name


def _steps_within(name: str, module: nn.Module) -> int:
    """How many parts of a name, from the first, are modules within each other."""
    inner = module._modules.get(name.partition(".")[0])
    return 0 if inner is None else 1 + _steps_within(name.partition(".")[2], inner)


def _head(rest: State, config: Mapping[str, Any], folder: Path, own: Collection[str]) -> State:
    """Weight and bias of a linear head among the values that are not the adapter's; refuse any other value."""
    modules = tuple(config.get("modules_to_save") or ())
    head = {name.rpartition(".")[2]: value for name, value in rest.items() if name.rpartition(".")[0] in modules}
    odd = [name for name in rest if name.rpartition(".")[0] not in modules or name in own]
    if odd or len(head) < len(rest):
        raise ModelError(
            f"{folder / VALUES} holds {(odd or list(rest))[0]}, which belongs neither to the adapter nor to a linear "
            "head; give files of an adapter and a linear head only"
        )
    return head


def _add_head(model: PEModel, task: str, head: State, labels: Sequence[str] | None, folder: Path) -> None:
    if set(head) != {"weight", "bias"} or head["weight"].dim() != 2:
        raise ModelError(f"{folder} has no linear head with a bias; omit task to load only the adapter")
    number = len(head["weight"])
    labels = [f"LABEL_{i}" for i in range(number)] if labels is None else labels
    if len(labels) != number:
        raise ModelError(
            f"the head in {folder} has {counted(number, 'label')}, but {len(labels)} were given; give one for each"
        )
    try:
        spec = TokenClassification(labels=tuple(labels))
    except ValueError as error:
        raise ConfigError(f"invalid labels for the head in {folder}: {reason(error)}") from None
    model.add_head(task, spec)
    model.load_state({f"{model.head_prefix(task)}.classifier.{name}": value for name, value in head.items()})
