"""What transformers' own language model computes from a backbone's hidden states.

A backbone alone does not know: whether its word embedding serves as the output matrix, and whether logits are scaled,
capped or mapped further, is decided by the class with the head. That class is built from the configuration, without
values and with a stand-in for the backbone, and its last part is run on made-up hidden states.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from pemeta.backbone.loading import weight_files
from pemeta.backbone.output_map import StandIn
from pemeta.utils.hub import quiet

ROWS = 7
"""Tokens of the made-up output matrix."""

_found: dict[tuple[type, str], str | None] = {}


def why_not_tied(backbone: nn.Module) -> str | None:
    """Why the logits of transformers' own language model are not the products with this backbone's word embedding.

    None if they are, or if transformers has no language model of this kind and the configuration does not say
    otherwise.
    """
    config = getattr(backbone, "config", None)
    if not isinstance(config, PreTrainedConfig):
        return None
    key = (type(config), config.to_json_string())
    if key not in _found:
        _found[key] = _by_configuration(config)
    return _found[key] or other_matrix_in_folder(backbone)


def _by_configuration(config: PreTrainedConfig) -> str | None:
    if not getattr(config.get_text_config(), "tie_word_embeddings", True):
        return f"{_name(config)} has an output matrix of its own (tie_word_embeddings is false)"
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return None
    try:
        with quiet(), torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                copy.deepcopy(config), attn_implementation="eager", dtype=torch.float32
            )
        output, tied = model.get_output_embeddings(), model.get_input_embeddings()
        if output.weight is not tied.weight:
            return f"{_name(config)} has an output matrix of its own"
        same = output.bias is None and _is_product(model)
    except Exception:  # whatever does not fit a stand-in: further maps are on the meta device, for example
        same = False
    return None if same else f"the logits of {_name(config)} are more than a product with it: scaled, capped or mapped"


def _name(config: PreTrainedConfig) -> str:
    known: Any = MODEL_FOR_CAUSAL_LM_MAPPING
    kind = type(config)
    return str(known[kind].__name__) if kind in known else f"the model of {kind.__name__}"


@torch.no_grad()
def _is_product(model: PreTrainedModel) -> bool:
    """Whether logits are the products of the hidden states with the output matrix, and nothing else."""
    width = model.get_output_embeddings().weight.shape[1]
    head = nn.Linear(width, ROWS, bias=False, device="cpu", dtype=torch.float32)
    head.weight.copy_(_numbers(ROWS, width))
    hidden = 10 * _numbers(1, 3, width)  # large enough for a cap to show
    model.set_output_embeddings(head)
    setattr(model, model.base_model_prefix, StandIn(hidden, StandIn(hidden)))
    ids = torch.zeros(1, 3, dtype=torch.long, device="cpu")
    logits = model.eval()(input_ids=ids).logits
    expected = F.linear(hidden, head.weight)
    return logits.shape == expected.shape and torch.allclose(logits.float(), expected, rtol=1e-5, atol=1e-5)


def _numbers(*shape: int) -> Tensor:
    """Made-up numbers between -1 and 1 that do not depend on a generator."""
    count = torch.Size(shape).numel()
    return torch.arange(1, count + 1, device="cpu", dtype=torch.float32).sin().view(shape)


def other_matrix_in_folder(backbone: nn.Module) -> str | None:
    """A clause, if the folder that the backbone is from holds an output matrix that is not the word embedding.

    transformers does not tie the two then, whatever the configuration says.
    """
    folder = Path(str(getattr(backbone, "name_or_path", "") or " "))
    names = [] if not folder.is_dir() else [name for name in weight_files(folder) if name.endswith(".safetensors")]
    where = {key: folder / name for name in names for key in _keys(folder / name)}
    outputs = [key for key in where if key.rpartition(".")[0].rpartition(".")[2] in ("lm_head", "embed_out")]
    inputs = _input_keys(backbone, list(where)) if outputs else []
    if not inputs:
        return None
    one, other = (_read(where[key], key) for key in (outputs[0], inputs[0]))
    if one.shape == other.shape and torch.equal(one, other):
        return None
    return f"{folder} holds an output matrix of its own ({outputs[0]})"


def _keys(file: Path) -> list[str]:
    with safe_open(file, framework="pt") as weights:
        return list(weights.keys())


def _read(file: Path, key: str) -> Tensor:
    with safe_open(file, framework="pt") as weights:
        return weights.get_tensor(key)  # type: ignore[no-any-return]


def _input_keys(backbone: nn.Module, keys: Sequence[str]) -> list[str]:
    """The names that the word embedding has in a file, with or without the prefix of a class with a head."""
    table = backbone.get_input_embeddings()  # type: ignore[operator]
    name = next((name for name, part in backbone.named_modules() if part is table), "")
    return [key for key in keys if name and (key == f"{name}.weight" or key.endswith(f".{name}.weight"))]
