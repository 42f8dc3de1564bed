"""The index of a model's weights, beside them also where they are one file."""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from pemeta.utils.files import write_json


def write_weight_index(folder: Path) -> None:
    """Say which file holds a model's weights, if they are one file, for which transformers writes no index.

    Servers such as vLLM and SGLang read every ``*.safetensors`` of a folder that has no index as weights of the model,
    what pemeta stores beside them too. transformers itself looks for the one file first.
    """
    weights, index = folder / SAFE_WEIGHTS_NAME, folder / SAFE_WEIGHTS_INDEX_NAME
    if index.is_file() or not weights.is_file():
        return
    with safe_open(weights, "pt") as tensors:
        names = sorted(tensors.keys())
    held = {"total_size": weights.stat().st_size}
    write_json(index, {"metadata": held, "weight_map": dict.fromkeys(names, SAFE_WEIGHTS_NAME)})
