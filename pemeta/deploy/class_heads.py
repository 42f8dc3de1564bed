"""A task's linear map in the place that a class of transformers has for it.

Many classes have one linear map after the backbone, as heads here do. Others have two with a function between them:
BERT's pooler is ``tanh(W₁ h + b₁)`` of the first token's state, and a second map reads that. A task's one map
``W h + b`` goes into such a class all the same, where the first map and the function are made the identity: exactly up
to rounding, and checked against the model's own logits. The result is for serving, not for further training.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pemeta.backbone.language_models import output_of
from pemeta.backbone.output_map import OutputMap
from pemeta.errors import ModelError
from pemeta.heads import CausalLMHead, MaskedLMHead, SequenceClassification
from pemeta.model.pe_model import PEModel
from pemeta.model.same_outputs import difference
from pemeta.model.task_classes import REMEDY, Shell

SMALL = {torch.float64: 2.0**-26, torch.float16: 2.0**-8}
"""A factor after which ``tanh(x)`` is x up to rounding, for states up to some ten; 2⁻¹⁴ for float32 and bfloat16."""


def pretrained_output(model: PEModel, task: str) -> OutputMap | None:
    """The language model's own output that a task's head uses, if it does."""
    head = model.head(task)
    if not isinstance(head, CausalLMHead | MaskedLMHead) or not head.pretrained:
        return None
    return output_of(model.backbone, head.output_kind)


def filled(
    model: PEModel, task: str, shell: Shell, backbone: PreTrainedModel
) -> tuple[PreTrainedModel, list[nn.Linear]]:
    """A task's class around a backbone, and the linear maps in it, with the task's logits.

    Args:
        model: the model.
        task: the task.
        shell: the class.
        backbone: the model's backbone, or one that computes the same.

    Raises:
        ModelError: the class has no place for the head's bias, or computes other logits.
    """
    weight, bias = _map_of(model, task)
    found: float | None = None
    for maps in _candidates(weight, bias, shell, backbone):
        whole = shell.fill(backbone, *maps)
        found = difference(model, task, whole)
        if found is None:
            return whole, maps
    name = type(shell.model).__name__
    if found is None:
        worst = 0.0 if bias is None else float(bias.abs().max())
        raise ModelError(
            f"the head of task {task!r} has a bias (of up to {worst:.2g}), which {shell.head} of {name} has no place "
            f"for; {_without_bias(model, task)}"
        )
    raise ModelError(
        f"the logits of {name} differ from this model's by up to {found:.2g}; {_other_pooling(model, task)}"
    )


def _without_bias(model: PEModel, task: str) -> str:
    if isinstance(model.head_spec(task), SequenceClassification):
        return f"train the task with a head that has none (bias=False), or {REMEDY}"
    return REMEDY


def _other_pooling(model: PEModel, task: str) -> str:
    spec = model.head_spec(task)
    if not isinstance(spec, SequenceClassification):
        return REMEDY
    return (
        f"the head pools with {spec.pooling!r}, and transformers' classes take the first token of encoders and the "
        f"last of decoders: train the task with pooling first or last, or {REMEDY}"
    )


def _map_of(model: PEModel, task: str) -> tuple[Tensor, Tensor | None]:
    """W (C, D) and b (C) of a task's head."""
    head = model.head(task)
    own = getattr(head, "classifier", head)
    weight, bias = getattr(own, "weight", None), getattr(own, "bias", None)
    if weight is None:  # tied to the word embedding
        weight = next(model.backbone.get_input_embeddings().parameters())
        weight = weight if bias is None else weight[: len(bias)]
    return weight.detach(), None if bias is None else bias.detach()


def _candidates(
    weight: Tensor, bias: Tensor | None, shell: Shell, backbone: PreTrainedModel
) -> Iterator[list[nn.Linear]]:
    """Linear maps for a class's places, each in the form that the class has and in the backbone's dtype.

    One that the function between two maps leaves unchanged is ``f(s h + c) = s h + c``: with small s for tanh, and with
    s = 1 and a c that makes every value positive for ReLU, GELU and their kind.
    """
    dtype = next(backbone.parameters()).dtype
    takes_bias = [shell.model.get_submodule(place).bias is not None for place in shell.places]
    values = torch.zeros_like(weight[:, 0]) if bias is None else bias
    if len(shell.places) == 1:
        if takes_bias[0] or not values.any():
            yield [_linear(weight, values if takes_bias[0] else None, dtype)]
        return
    identity = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
    bound = _bound(backbone)
    for scale, shift in ((1.0, 0.0), (SMALL.get(dtype, 2.0**-14), 0.0), (1.0, bound)):
        off = values - shift / scale * weight.sum(1)
        if (shift and not takes_bias[0]) or (off.any() and not takes_bias[1]):
            continue
        first = _linear(identity * scale, torch.full_like(identity[0], shift) if takes_bias[0] else None, dtype)
        yield [first, _linear(weight / scale, off if takes_bias[1] else None, dtype)]


def _bound(backbone: nn.Module) -> float:
    """A power of two that no value of the states reaches, by those that a layer norm can give."""
    largest = 1.0
    for part in backbone.modules():
        if isinstance(part, nn.LayerNorm) and part.elementwise_affine and part.bias is not None:
            weight, bias = part.weight.detach(), part.bias.detach()
            largest = max(largest, float(weight.abs().max()) * weight.numel() ** 0.5 + float(bias.abs().max()))
    return float(2 ** int(largest + 8).bit_length())


def _linear(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> nn.Linear:
    """A linear map with copies of these values."""
    outputs, inputs = weight.shape
    linear: nn.Linear = torch.nn.utils.skip_init(  # which draws no random numbers
        nn.Linear, inputs, outputs, bias=bias is not None, device=weight.device, dtype=dtype
    )
    with torch.no_grad():
        linear.weight.copy_(weight)
        if bias is not None:
            linear.bias.copy_(bias)
    return linear
