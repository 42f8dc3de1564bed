"""Gradient checkpointing that is right where a module's parameters are replaced between its passes.

PyTorch's checkpointing runs a layer again in the backward pass, *with the parameters that the layer has then*. A clone
in the inner loop has others by then, in second order, and so has a module after ``torch.func.functional_call``:
the gradients would be wrong, without a sign of it. Here a layer is run again with the parameters of its first pass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint


class _AsBefore:
    """A context in which a layer has the parameters, and PyTorch the attention kernels, that they had when it was made.

    It can be entered again after it was left: second order runs a layer again in each of two backward passes.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.parameters = [(part, dict(part._parameters)) for part in layer.modules() if part._parameters]
        self.kernels = _kernels()
        self._left: list[ExitStack] = []

    def __enter__(self) -> None:
        stack = ExitStack()
        for part, parameters in self.parameters:
            stack.callback(part._parameters.update, dict(part._parameters))
            part._parameters.update(parameters)
        stack.enter_context(sdpa_kernel(self.kernels))
        self._left.append(stack)

    def __exit__(self, *error: object) -> None:
        self._left.pop().close()


def _kernels() -> list[SDPBackend]:
    """The kernels of fused attention that PyTorch may choose from now."""
    flags = {
        SDPBackend.FLASH_ATTENTION: torch.backends.cuda.flash_sdp_enabled,
        SDPBackend.EFFICIENT_ATTENTION: torch.backends.cuda.mem_efficient_sdp_enabled,
        SDPBackend.CUDNN_ATTENTION: torch.backends.cuda.cudnn_sdp_enabled,
        SDPBackend.MATH: torch.backends.cuda.math_sdp_enabled,
    }
    return [backend for backend, enabled in flags.items() if enabled()]  # type: ignore[no-untyped-call]


def checkpointed(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a transformers layer calls in place of its forward pass where gradient checkpointing is on.

    Args:
        function: the layer's forward pass: a ``functools.partial`` of a function that takes the layer first.
        arguments: the positional ones.
    """
    if not torch.is_grad_enabled():
        return function(*arguments)

    before = _AsBefore(_layer(function))

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), before

    return checkpoint(function, *arguments, use_reentrant=False, context_fn=contexts)


def _layer(function: Callable[..., Any]) -> nn.Module:
    """The module of a ``partial(forward, layer, ...)``, or of a ``partial(layer.method, ...)``, as versions differ."""
    assert isinstance(function, functools.partial)
    candidates = [*function.args, getattr(function.func, "__self__", None)]
    return next(candidate for candidate in candidates if isinstance(candidate, nn.Module))


def checkpoint_layers(backbone: nn.Module, enable: bool = True) -> None:
    """Let every layer of a transformers model be checkpointed by :func:`checkpointed`, or none.

    Args:
        backbone: a ``PreTrainedModel``.
        enable: or turn it off.
    """
    for part in backbone.modules():
        if hasattr(part, "gradient_checkpointing"):
            part.gradient_checkpointing = enable  # type: ignore[assignment] # a flag, which mypy takes for a module
            part._gradient_checkpointing_func = checkpointed  # type: ignore[assignment]


def replace_checkpointing(module: nn.Module) -> None:
    """Where someone else turned gradient checkpointing on, make it :func:`checkpointed`."""
    for part in module.modules():
        if getattr(part, "gradient_checkpointing", False):
            part._gradient_checkpointing_func = checkpointed  # type: ignore[assignment]
