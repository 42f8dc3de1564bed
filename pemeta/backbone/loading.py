"""Pretrained backbones from a folder or the hub, with or without their weights.

Nothing here runs code from a model's files: weights are read from safetensors only, never from pickles, and Python
code that comes with a model runs only if the caller allows it.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, PreTrainedConfig, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from pemeta.backbone.output_kinds import AUTO, CLASSES, OutputKind
from pemeta.errors import ModelError
from pemeta.utils.hub import explained, quiet
from pemeta.utils.modules import is_finite

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
"""Weight files whose loading could run arbitrary code."""
CONFIG_REMEDY = "give a folder with config.json, or a name on the Hugging Face hub"
"""Remedy for a missing configuration."""


def load_backbone(
    path: str | Path,
    attention: str | None = None,
    dtype: torch.dtype = torch.float32,
    trust_remote_code: bool = False,
    own_class: bool = False,
    output: OutputKind | None = None,
) -> PreTrainedModel:
    """A pretrained backbone without a pooler, which token tasks do not use and which would get no gradient.

    Args:
        path: Folder, or name on the Hugging Face hub.
        attention: ``eager`` or ``sdpa``; chosen by transformers if None.
        dtype: Type of the parameters.
        trust_remote_code: Run Python code that comes with the model, if its architecture is not part of transformers.
        own_class: Load the class that ``config.json`` names, which saved the model, and not the one of ``AutoModel``:
            a Whisper encoder without its decoder.
        output: Load the whole language model, ``causal_lm`` or ``masked_lm``. It is the backbone alone where the files
            lack its head, or transformers has no masked one of this architecture: a task's head then says so.

    Raises:
        ModelError: There is no model at ``path``, it cannot be loaded, or it needs Python code of its own.
    """
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "trust_remote_code": trust_remote_code}
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # mismatches are checked below
    if attention:
        options["attn_implementation"] = attention
    remedy = "give a folder with config.json and model.safetensors, or a name on the Hugging Face hub"
    with explained("a model", path, remedy), quiet():
        config = load_model_config(path, trust_remote_code)
        auto: Any = (_saving_class(config) if own_class else None) or auto_class(config, output)
        _refuse_unreadable(path)
        model, info = _loaded(auto, path, options)
        if output is not None and _lacks_head(model, info):
            model, info = _loaded(auto_class(config), path, options)
        _check_values(model, info)
    assert isinstance(model, PreTrainedModel)
    return model


def _loaded(auto: Any, path: str | Path, options: Mapping[str, Any]) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A model, and what transformers says of its files."""
    try:
        found = auto.from_pretrained(path, add_pooling_layer=False, **options)
    except TypeError as error:  # an architecture without a pooler does not take the argument
        if "add_pooling_layer" not in str(error):
            raise
        found = auto.from_pretrained(path, **options)
    return found  # type: ignore[no-any-return]


def _lacks_head(model: PreTrainedModel, info: Mapping[str, Any]) -> bool:
    """Whether the files have nothing of what a language model has beside its backbone, and the backbone as a whole."""
    missing = set(info["missing_keys"])
    return bool(missing) and not any(name.startswith(f"{model.base_model_prefix}.") for name in missing)


def _saving_class(config: PreTrainedConfig) -> type[PreTrainedModel] | None:
    """The class of transformers that saved a configuration; None if it is not one of this architecture's."""
    name = type(config).__module__.replace(".configuration_", ".modeling_")
    if not name.startswith("transformers.models."):
        return None
    try:
        found = getattr(importlib.import_module(name), (config.architectures or [""])[0], None)
    except ImportError:
        return None
    return found if isinstance(found, type) and issubclass(found, PreTrainedModel) else None


def load_model_config(path: str | Path, trust_remote_code: bool = False) -> PreTrainedConfig:
    """A model's configuration; Python code that comes with the model is neither run nor prompted for.

    Raises:
        ModelError: The model needs Python code of its own, or attention kernels from a repository on the hub.
    """
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise ModelError(
            f"the model in {str(path)!r} needs Python code of its own, which pemeta does not run by default; if you "
            "trust it, load it in Python with PEModel.from_pretrained(..., trust_remote_code=True)"
        ) from None
    kernels = str(getattr(config, "_attn_implementation", None))
    if "/" in kernels and not trust_remote_code:  # transformers would download and run them
        raise ModelError(
            f"config.json in {str(path)!r} requests attention from code on the hub, {kernels!r}, which pemeta does "
            "not run by default; remove its attn_implementation"
        )
    assert isinstance(config, PreTrainedConfig)
    return config


def _check_values(model: PreTrainedModel, info: dict[str, Any]) -> None:
    """Refuse weights that transformers would replace by random ones, and weights that are not finite.

    Raises:
        ValueError: A parameter is missing from the files, has another shape there, or holds NaN or infinity.
    """
    missing = sorted(name for name in info["missing_keys"] if "pooler" not in name)
    if missing:
        raise ValueError(f"its weights lack {len(missing)} of the model's parameters, e.g. {missing[0]}")
    for name, stored, expected in sorted(info["mismatched_keys"]):
        raise ValueError(f"{name} is {tuple(stored)} in its weights but {tuple(expected)} by its configuration")
    odd = [name for name, value in model.named_parameters() if not is_finite(value)]
    if odd:  # otherwise the loss would be NaN, and the learning rate would be blamed
        raise ValueError(f"its weights are not finite: {odd[0]} holds NaN or infinity")


def _refuse_unreadable(path: str | Path) -> None:
    """Refuse a folder whose weights are pickles, or quantised ones that transformers would take at face value."""
    folder = Path(path)
    names = weight_files(folder) if folder.is_dir() else []
    odd = [name for name in names if not name.endswith(".safetensors")]
    if odd:
        raise ModelError(
            f"the weights in {str(path)!r} are a pickle, {odd[0]}, which pemeta does not read, because loading a "
            "pickle can run arbitrary code; if you trust it, convert it: "
            "AutoModel.from_pretrained(...).save_pretrained(...)"
        )
    for name in names:
        with safe_open(folder / name, framework="pt") as weights:
            for parameter in weights.keys():  # noqa: SIM118 - no mapping
                kind = str(weights.get_slice(parameter).get_dtype())
                if kind in ("I8", "U8") or kind.startswith(("F8_", "F6_", "F4")):
                    raise ValueError(f"its weights are quantised: {parameter} is stored as {kind}")


def weight_files(folder: Path) -> list[str]:
    """Names of the files that weights would be read from; pickles only if there are no other files."""
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    if (folder / SAFE_WEIGHTS_NAME).exists():
        return [SAFE_WEIGHTS_NAME]
    if index.is_file():
        try:
            return sorted({str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
        except (KeyError, TypeError, AttributeError):
            raise ValueError(f"{index.name} has no weight_map from parameters to files") from None
    if list(folder.glob("*.safetensors")):
        return []
    return sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))


def empty_backbone(path: str | Path) -> PreTrainedModel:
    """A backbone without weights (on the meta device), from its configuration alone.

    Raises:
        ModelError: There is no configuration at ``path``, or it is not that of an encoder.
    """
    return empty_backbone_of(read_configuration(path), path)


def read_configuration(path: str | Path) -> PreTrainedConfig:
    """A backbone's ``config.json``.

    Raises:
        ModelError: There is no configuration at ``path``.
    """
    with explained("a configuration", path, CONFIG_REMEDY), quiet():
        return load_model_config(path)


def empty_backbone_of(
    config: PreTrainedConfig,
    path: str | Path,
    attention: str | None = None,
    dtype: torch.dtype = torch.float32,
    output: OutputKind | None = None,
) -> PreTrainedModel:
    """A backbone without weights (on the meta device), from a configuration.

    Args:
        config: Configuration of the backbone.
        path: Where the configuration came from, for messages.
        attention: ``eager`` or ``sdpa``; chosen by transformers if None.
        dtype: Type of the parameters.
        output: The whole language model of this kind, where transformers has one.

    Raises:
        ModelError: The configuration is not that of an encoder.
    """
    with torch.device("meta"):
        return random_backbone_of(config, path, attention, dtype, output)


def random_backbone_of(
    config: PreTrainedConfig,
    path: str | Path,
    attention: str | None = None,
    dtype: torch.dtype = torch.float32,
    output: OutputKind | None = None,
) -> PreTrainedModel:
    """A backbone with newly drawn weights, from a configuration; the arguments are :func:`empty_backbone_of`'s.

    Raises:
        ModelError: The configuration is not that of an encoder.
    """
    options: dict[str, Any] = {"dtype": dtype}
    if attention:
        options["attn_implementation"] = attention
    with explained("a configuration", path, CONFIG_REMEDY), quiet():
        try:
            model = auto_class(config, output).from_config(config, add_pooling_layer=False, **options)
        except TypeError as error:
            if "add_pooling_layer" not in str(error):
                raise
            model = auto_class(config, output).from_config(config, **options)
    assert isinstance(model, PreTrainedModel)
    return model


def auto_class(config: PreTrainedConfig, output: OutputKind | None = None) -> Any:
    """The transformers class that loads a backbone, or a whole language model of a kind.

    For T5 it is the encoder without the decoder that AutoModel adds; for a kind of masked language model that
    transformers does not have, the backbone.
    """
    if output is not None and (output == "causal_lm" or type(config) in CLASSES[output]):
        return AUTO[output]
    encoder = (config.architectures or [""])[0].endswith("EncoderModel")
    return AutoModelForTextEncoding if encoder or config.is_encoder_decoder else AutoModel
