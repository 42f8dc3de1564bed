"""Backbones whose weights are quantised: what of them is, and what cannot be done with it.

A quantised weight takes no gradient and no update, so it stays in θ_p, which priming then leaves as it is
(``primes: [theta_a]``). Gradients pass through the maps to θ_a below them, as in QLoRA (Dettmers et al., 2023).
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers import PreTrainedModel

from pemeta.errors import ModelError
from pemeta.utils.hub import quiet

DECLARED = ("is_quantized", "quantization_method", "hf_quantizer", "quantization_config", "_is_quantized")
"""Attributes by which transformers knows that a model, or its configuration, is quantised."""


def how_quantised(name: str, parameter: Tensor) -> str | None:
    """How a parameter is quantised; None if it is not."""
    if not parameter.is_floating_point() or parameter.itemsize < 2:
        return f"{name} is stored as {parameter.dtype}"
    if is_traceable_wrapper_subclass(parameter):  # torchao's and quanto's say that they are floating point
        return f"{name} is {type(parameter).__name__}"
    return None


def quantised_part(module: nn.Module) -> str | None:
    """How a module, or a backbone in it, is quantised, of its first such part; None if it is not.

    What a configuration says is not enough: models that transformers has unpacked from a GGUF file still have it.
    """
    found = next(filter(None, (how_quantised(name, one) for name, one in module.named_parameters())), None)
    if found is None:
        backbones = [part for part in module.modules() if isinstance(part, PreTrainedModel) and _declares(part)]
        found = next(filter(None, map(_replaced_part, backbones)), None)
    return found


def refuse_quantised(module: nn.Module, names: Collection[str], what: str, remedy: str) -> None:
    """Refuse to move quantised parameters.

    Args:
        module: that has them.
        names: of the parameters that something would move.
        what: the start of the message, such as ``priming moves``.
        remedy: its end.

    Raises:
        ModelError: one of them is quantised.
    """
    wanted = set(names)
    for name, parameter in module.named_parameters():
        if name in wanted and how_quantised(name, parameter) is not None:
            raise ModelError(f"{what} {name}, which is quantised ({_kind(parameter)}) and takes no gradient; {remedy}")


def _kind(parameter: Tensor) -> str:
    return type(parameter).__name__ if parameter.is_floating_point() else str(parameter.dtype)


def refuse_writing(module: nn.Module) -> None:
    """Refuse to write a model whose weights are quantised, each in a form of its own.

    Raises:
        ModelError: it has such weights.
    """
    found = quantised_part(module)
    if found is not None:
        raise ModelError(
            f"the backbone is quantised ({found}), and pemeta does not write quantised weights; save what was trained "
            "with save_task, or LoRA with save_peft, and load it onto the same base"
        )


def forget_declaration(backbone: PreTrainedModel) -> None:
    """Remove what says that a backbone is quantised where it is not, or it could not be saved and loaded."""
    if _declares(backbone) and quantised_part(backbone) is None:
        for holder in (backbone, backbone.config):
            for key in DECLARED:
                vars(holder).pop(key, None)


def _declares(backbone: PreTrainedModel) -> bool:
    declared = getattr(backbone.config, "quantization_config", None) is not None
    return declared or bool(getattr(backbone, "is_quantized", False))


def _replaced_part(backbone: PreTrainedModel) -> str | None:
    """A parameter that the architecture has and this backbone has not: its values are in buffers of quantised maps."""
    config = copy.deepcopy(backbone.config)
    vars(config).pop("quantization_config", None)
    try:
        with quiet(), torch.device("meta"):
            expected = {name: one.shape for name, one in type(backbone)(config).named_parameters()}
    except Exception:  # code of its own, for which the configuration has to do
        return "according to its configuration"
    own = {name: one.shape for name, one in backbone.named_parameters()}
    lost = [name for name, shape in expected.items() if own.get(name) != shape and "pooler" not in name]
    return f"{lost[0]} is not among its parameters" if lost else None


def buffers_of_quantised(backbone: nn.Module) -> bytes:
    """A digest of the buffers of a quantised backbone, some of which are its weights; nothing for any other."""
    if quantised_part(backbone) is None:
        return b""
    sha = hashlib.sha256()
    for name, buffer in backbone.named_buffers():
        sha.update(name.encode())
        sha.update(buffer.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return sha.digest()


def without_quantised(parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Those of some parameters, by name, that are not quantised."""
    return {name: one for name, one in parameters.items() if how_quantised(name, one) is None}
