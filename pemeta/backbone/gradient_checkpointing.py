"""Gradient checkpointing that is correct even if a module's parameters or mode change between its passes.

PyTorch's checkpointing reruns a layer in the backward pass *with the parameters and mode that the layer has at that
time*. A module has its own parameters again by then, and not the clone's values that it computed with; the same holds
after ``torch.func.functional_call``. The gradients would be silently wrong. Here a layer is rerun with those of its
first pass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from pemeta.errors import ModelError


class _Snapshot:
    """A context that restores a layer's parameters and modes, and PyTorch's attention kernels, from its creation.

    It can be entered repeatedly: in second order, a layer is rerun in each of two backward passes.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.parameters = [(part, dict(part._parameters)) for part in layer.modules() if part._parameters]
        self.forwards = [(part, vars(part)["forward"]) for part in layer.modules() if "forward" in vars(part)]
        self.modes = {part: part.training for part in layer.modules()} | {layer: in_training(layer)}
        self.kernels = _kernels()
        self._left: list[ExitStack] = []

    def __enter__(self) -> None:
        stack = ExitStack()
        for part, parameters in self.parameters:
            stack.callback(part._parameters.update, dict(part._parameters))
            part._parameters.update(parameters)
        for part, forward in self.forwards:  # of parts that compute with values of several tasks
            stack.callback(_set_forward, part, vars(part).get("forward"))
            _set_forward(part, forward)
        stack.enter_context(_modes(self.modes))
        stack.enter_context(sdpa_kernel(self.kernels))
        self._left.append(stack)

    def __exit__(self, *error: object) -> None:
        self._left.pop().close()


def _set_forward(part: nn.Module, forward: Callable[..., Any] | None) -> None:
    """Give a module a forward of its own, or take it away."""
    if forward is None:
        part.__dict__.pop("forward", None)
    else:
        part.__dict__["forward"] = forward


def in_training(layer: nn.Module) -> bool:
    """Whether a layer's children are in training mode; its own flag may only mean that it is to be checkpointed."""
    return any(part.training for part in layer.children())


@contextmanager
def _modes(modes: dict[nn.Module, bool]) -> Iterator[None]:
    """Set the mode of each module for the block."""
    before = {part: part.training for part in modes}
    try:
        for part, mode in modes.items():
            part.training = mode
        yield
    finally:
        for part, mode in before.items():
            part.training = mode


def _kernels() -> list[SDPBackend]:
    """The kernels of fused attention that are enabled in PyTorch at present."""
    flags = {
        SDPBackend.FLASH_ATTENTION: torch.backends.cuda.flash_sdp_enabled,
        SDPBackend.EFFICIENT_ATTENTION: torch.backends.cuda.mem_efficient_sdp_enabled,
        SDPBackend.CUDNN_ATTENTION: torch.backends.cuda.cudnn_sdp_enabled,
        SDPBackend.MATH: torch.backends.cuda.math_sdp_enabled,
    }
    return [backend for backend, enabled in flags.items() if enabled()]  # type: ignore[no-untyped-call]


def checkpointed(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run the forward pass of a transformers layer with gradient checkpointing.

    Args:
        function: Forward pass of the layer: a ``functools.partial`` of a function that takes the layer first.
        arguments: Positional arguments of the forward pass.

    Raises:
        ModelError: The layer cannot be determined from the function.
    """
    layer = _layer(function)
    own_mode = {layer: in_training(layer)}
    if not torch.is_grad_enabled():
        with _modes(own_mode):
            return function(*arguments)
    before = _Snapshot(layer)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return _modes(own_mode), before

    return checkpoint(function, *arguments, use_reentrant=False, context_fn=contexts)


def _layer(function: Callable[..., Any]) -> nn.Module:
    """The layer of a ``partial(forward, layer, ...)`` or ``partial(layer.method, ...)``; versions differ in this."""
    whole = function if isinstance(function, functools.partial) else functools.partial(function)
    for candidate in (*whole.args, getattr(whole.func, "__self__", None)):
        if isinstance(candidate, nn.Module):
            return candidate
    raise ModelError(
        "this backbone checkpoints its layers in a way that pemeta does not support; turn gradient checkpointing off"
    )


def checkpoint_layers(backbone: nn.Module, enable: bool = True) -> None:
    """Turn checkpointing by :func:`checkpointed` on or off for every layer of a transformers model.

    Args:
        backbone: A ``PreTrainedModel``.
        enable: Whether to turn it on.

    Raises:
        ModelError: The backbone has no layer that can be checkpointed.
    """
    if not any(isinstance(part, GradientCheckpointingLayer) for part in backbone.modules()):
        raise ModelError(
            f"{type(backbone).__name__} has no layers that can be checkpointed; set checkpoint_layers: false"
        )
    for part in backbone.modules():
        if hasattr(part, "gradient_checkpointing"):
            part.gradient_checkpointing = enable  # type: ignore[assignment] # a flag, which mypy takes for a module
            part._gradient_checkpointing_func = checkpointed  # type: ignore[assignment]


def replace_checkpointing(parts: Iterable[nn.Module]) -> None:
    """Use :func:`checkpointed` in all parts in which other code has turned gradient checkpointing on."""
    for part in parts:
        used = vars(part).get("_gradient_checkpointing_func")
        if getattr(part, "gradient_checkpointing", False) and used is not checkpointed:
            part._gradient_checkpointing_func = checkpointed  # type: ignore[assignment]
