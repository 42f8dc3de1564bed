"""What vLLM and SGLang need of the folder of an adapter, and of a model's.

Neither package is needed. The rules are those of vLLM's documentation of LoRA adapters and of its own checks when it
reads an adapter (``PEFTHelper``, ``LoRAModel``) and a model (``filter_duplicate_safetensors_files``), versions 0.8 to
0.11; SGLang reads the same files. Whether a server knows an architecture, and takes adapters for it, is in its own list
of supported models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError, safe_open
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from pemeta.errors import ModelError, OutputError, excerpt
from pemeta.utils.files import read_json
from pemeta.utils.signatures import checked

ADAPTER, VALUES = "adapter_config.json", "adapter_model.safetensors"
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of vLLM's ``--max-lora-rank``."""
DEFAULT_RANK = 16
"""That of vLLM's ``--max-lora-rank`` where it is not given."""
MERGE = "merge it (to_transformers)"
WITHIN = "base_model.model."
ENDS = (".lora_A.weight", ".lora_B.weight", ".lora_embedding_A", ".lora_embedding_B")


@checked(max_lora_rank=(1, 512))
def vllm_refusals(
    folder: str | Path, base: str | Path | None = None, max_lora_rank: int = DEFAULT_RANK
) -> tuple[str, ...]:
    """The reasons why vLLM would not load a folder, or would compute something else with it; empty if there are none.

    Args:
        folder: an adapter's folder (:func:`save_peft`), or a model's (``save_pretrained``, :func:`to_transformers`).
        base: an adapter's base, which is looked at too; by default the one that the adapter names, if it is a folder.
        max_lora_rank: vLLM's option of that name; its default is 16.

    Raises:
        ModelError: the folder holds neither, or a file in it cannot be read.
    """
    folder = Path(folder)
    if (folder / ADAPTER).is_file():
        return tuple(_of_adapter(folder, base, max_lora_rank))
    if (folder / "config.json").is_file():
        return tuple(_of_model(folder))
    raise ModelError(
        f"{folder} has neither {ADAPTER} nor config.json, so it is no adapter and no model; give a folder written by "
        "save_peft or save_pretrained"
    )


def _of_adapter(folder: Path, base: str | Path | None, most: int) -> Iterator[str]:
    config = _json(folder / ADAPTER)
    missing = [key for key in ("r", "lora_alpha", "target_modules") if key not in config]
    if config.get("peft_type") != "LORA" or missing:
        yield f"it is of the type {config.get('peft_type')}, and only LORA is served; {MERGE}"
        return
    yield from _unsupported(config, most)
    names = _names(folder / VALUES)
    odd = [name for name in names if not name.startswith(WITHIN) or not name.endswith(ENDS)]
    if odd:
        yield f"{VALUES} holds {odd[0]}, which is no part of a LoRA"
    named = config.get("base_model_name_or_path")
    place = Path(str(base or named or ""))
    if base is None and (not named or not (place / "config.json").is_file()):
        return
    yield from _of_model(place, language=config.get("task_type") == "CAUSAL_LM")
    known = _weights(place)
    for name in names:
        module = name.removeprefix(WITHIN).rpartition(".lora_")[0]
        if name not in odd and f"{module}.weight" not in known:
            yield f"the adapter is for {module}, which {place} does not have; write it for the class of its config.json"
            return


def _unsupported(config: Mapping[str, Any], most: int) -> Iterator[str]:
    """What LoRA may be in PEFT and not in a server."""
    rank = config["r"]
    if rank > RANKS[-1]:
        yield f"its rank is {rank}, and the most is {RANKS[-1]}; {MERGE}"
    elif rank > most:
        enough = next(one for one in RANKS if one >= rank)
        yield f"its rank {rank} is more than --max-lora-rank {most}; start the server with --max-lora-rank {enough}"
    if config.get("modules_to_save"):
        yield (
            f"modules_to_save is {', '.join(config['modules_to_save'])}, but only low-rank updates are served; {MERGE}"
        )
    if config.get("use_dora"):
        yield f"it uses DoRA; {MERGE}"
    if config.get("bias", "none") != "none":
        yield f"it trained biases (bias is {config['bias']!r}); {MERGE}"
    for key in ("rank_pattern", "alpha_pattern"):
        if config.get(key):
            yield f"{key} would be ignored, and the outputs would be others; {MERGE}"
    if not isinstance(config["target_modules"], list):
        yield "target_modules is a pattern, which SGLang does not read; list the maps' names"


def _of_model(folder: Path, language: bool = False) -> Iterator[str]:
    """What would keep a server from a model's folder.

    Args:
        folder: the folder.
        language: whether it has to generate.
    """
    name = next(iter(_json(folder / "config.json").get("architectures") or [""]))
    if language and name not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        yield f"config.json of {folder} names the class {name or 'none'}, which is no causal language model"
    prefix = getattr(getattr(transformers, name, None), "base_model_prefix", "")
    weights = _weights(folder)
    whole = "For" in name or name.endswith("HeadModel")
    if whole and prefix and not any(one.startswith(f"{prefix}.") for one in weights):
        yield f"the weights in {folder} are not named as in {name}: none begins with {prefix}."
    unlisted = sorted({file.name for file in folder.glob("*.safetensors")} - _weight_files(folder))
    if unlisted and not (folder / SAFE_WEIGHTS_INDEX_NAME).is_file():
        yield (
            f"{', '.join(unlisted)} would be read as weights of the model, because {folder} has no "
            f"{SAFE_WEIGHTS_INDEX_NAME}; save the model again"
        )
    if not any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        yield f"{folder} has no tokenizer; save the model with it"


def _weight_files(folder: Path) -> set[str]:
    """Names of the files that a server reads as weights: those of the index if there is one, else one file."""
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    return set(_json(index)["weight_map"].values()) if index.is_file() else {"model.safetensors"}


def _weights(folder: Path) -> set[str]:
    """Names of a model's weights."""
    return {name for file in _weight_files(folder) for name in _names(folder / file)}


def _names(file: Path) -> list[str]:
    """Names of the tensors in a file.

    Raises:
        ModelError: it is missing or cannot be read.
    """
    try:
        with safe_open(file, "pt") as tensors:
            return sorted(tensors.keys())
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot read {file}: {error}; write the folder again") from None


def _json(file: Path) -> dict[str, Any]:
    try:
        found = read_json(file)
    except OutputError as error:
        raise ModelError(f"{str(error).rpartition(';')[0] or error}; write the folder again") from None
    if not isinstance(found, dict):
        raise ModelError(f"{file} is no JSON object, but {excerpt(found)}; write the folder again")
    return found
