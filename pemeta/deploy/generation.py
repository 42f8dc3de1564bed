"""Generation with a task that is a language model, by transformers' own ``generate``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig

from pemeta.errors import ModelError
from pemeta.heads import CausalLM, CausalLMHead
from pemeta.model.pe_model import PEModel
from pemeta.model.same_outputs import check_same_logits
from pemeta.model.task_classes import CLASSES, shell_for
from pemeta.utils.modules import modes_kept


class _Output(nn.Module):
    """A task's logits, in the place of the output matrix of transformers' class."""

    def __init__(self, model: PEModel, task: str) -> None:
        super().__init__()
        self._logits = (model, task)  # a tuple, because the model is not a part of this module

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits (B, T, V) from the backbone's hidden states (B, T, D)."""
        model, task = self._logits
        for method in model.attached:
            hidden = method.transform(model.backbone, hidden)
        return model.head(task)(hidden, {}, model.backbone)  # type: ignore[no-any-return]


def generate(
    model: PEModel, task: str, inputs: Tensor | None, defaults: GenerationConfig, options: Mapping[str, Any]
) -> Any:
    """Continue sequences with a task that is a language model.

    Keys and values are cached only if θ_a acts on each token alone.

    Args:
        model: the model.
        task: the task.
        inputs: token ids (B, T), or None if ``options`` has ``input_ids``.
        defaults: what holds where ``options`` say nothing.
        options: all other arguments of transformers' ``generate``; ``labels`` are ignored.

    Raises:
        ModelError: the task is not a language model, or transformers' class for it computes other logits.
    """
    head = model.head(task)
    if not isinstance(head, CausalLMHead):
        raise ModelError(
            f"task {task!r} has a {type(head).__name__}, which does not generate; leave predict_with_generate off, or "
            "give the task the head causal_lm"
        )
    rest = {name: value for name, value in options.items() if name != "labels"}
    if not all(method.mergeable for method in model.attached):
        rest["use_cache"] = False
    shell = shell_for(model.backbone, CLASSES[CausalLM])
    dtype = model.autocast_dtype
    with modes_kept(model), nullcontext() if dtype is None else torch.autocast(model.device.type, dtype):
        whole = shell.fill(model.backbone, _Output(model, task))
        check_same_logits(model, task, whole)
        whole.generation_config = defaults
        with _own_positions(model):
            return whole.generate(inputs, **rest)  # type: ignore[operator]


@contextmanager
def _own_positions(model: PEModel) -> Iterator[None]:
    """Leave positions to the backbone, as in the model's own passes, if a method adds some in front."""
    if not any(method.extra_positions for method in model.attached):
        yield
        return

    def drop(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return arguments, {key: value for key, value in named.items() if key != "position_ids"}

    hook = model.backbone.register_forward_pre_hook(drop, prepend=True, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
