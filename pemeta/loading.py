"""Pretrained backbones from a folder or the hub, with or without their values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, PreTrainedConfig, PreTrainedModel

from pemeta.hub import explained, quiet


def load_backbone(
    path: str | Path, attention: str | None = None, dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """A pretrained encoder, without a pooler: tasks on tokens do not use it, and it would get no gradient.

    Args:
        path: a folder or a name on the Hugging Face hub.
        attention: ``eager`` or ``sdpa``; by default transformers chooses.
        dtype: of the parameters.

    Raises:
        ModelError: there is no model at ``path``, or it cannot be loaded.
    """
    options: dict[str, Any] = {"dtype": dtype, "output_loading_info": True}
    if attention:
        options["attn_implementation"] = attention
    remedy = "give a folder with config.json and model.safetensors, or a name on the Hugging Face hub"
    with explained("a model", path, remedy), quiet():
        auto = auto_class(AutoConfig.from_pretrained(path))
        try:
            model, info = auto.from_pretrained(path, add_pooling_layer=False, **options)
        except TypeError as error:  # an architecture without a pooler does not know the argument
            if "add_pooling_layer" not in str(error):
                raise
            model, info = auto.from_pretrained(path, **options)
        missing = sorted(name for name in info["missing_keys"] if "pooler" not in name)
        if missing:  # transformers would only warn, and go on with random values
            raise ValueError(f"its weights lack {len(missing)} of the model's parameters, {missing[0]} for one")
    assert isinstance(model, PreTrainedModel)
    return model


def empty_backbone(path: str | Path) -> PreTrainedModel:
    """A backbone of the right shape without values (on the meta device), from its configuration alone.

    Raises:
        ModelError: there is no configuration at ``path``, or it is of no encoder.
    """
    with (
        explained("a configuration", path, "give a folder with config.json, or a name on the Hugging Face hub"),
        quiet(),
    ):
        config = AutoConfig.from_pretrained(path)
        with torch.device("meta"):
            try:
                model = auto_class(config).from_config(config, add_pooling_layer=False)
            except TypeError as error:
                if "add_pooling_layer" not in str(error):
                    raise
                model = auto_class(config).from_config(config)
    assert isinstance(model, PreTrainedModel)
    return model


def auto_class(config: PreTrainedConfig) -> Any:
    """The class of transformers that loads a backbone: for T5, the encoder without the decoder that AutoModel adds."""
    encoder = (config.architectures or [""])[0].endswith("EncoderModel")
    return AutoModelForTextEncoding if encoder or config.is_encoder_decoder else AutoModel
