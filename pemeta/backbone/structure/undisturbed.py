"""Passes of a backbone as it is without methods and other hooks, which leave no trace."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from pemeta.backbone.attention import PREFIXED
from pemeta.utils.hub import quiet
from pemeta.utils.seeding import generators_kept, seed_generators

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_hooks",
    "_backward_pre_hooks",
)
_CONTENTS = ("_modules", "_parameters", "_buffers")
_LARGEST = 2**20
"""Elements of buffers of which copies are kept: counters and statistics, not weights of quantised maps."""


def has_values(backbone: nn.Module) -> bool:
    """Whether all parameters have values: not on the meta device, and in no estimate."""
    return not any(one.is_meta or isinstance(one, FakeTensor) for one in backbone.parameters())


@contextmanager
def undisturbed(backbone: nn.Module, bare: bool = True) -> Iterator[None]:
    """Let passes within the block be those of the bare backbone in evaluation mode, without gradients and hooks.

    Afterwards everything is as before: attributes of all modules and of their configurations, too, which some passes
    set (BigBird changes its attention for short sequences), values of buffers, and the random generators.

    Args:
        backbone: The backbone.
        bare: Whether methods that are attached, and other hooks, have no effect.
    """
    parts = list(backbone.modules())
    configurations = {id(one): one for part in parts if (one := vars(part).get("config")) is not None}
    kept: list[tuple[Any, dict[str, Any]]] = [(one, dict(vars(one))) for one in (*parts, *configurations.values())]
    contents = [(vars(part)[name], dict(vars(part)[name])) for part in parts for name in _CONTENTS]
    buffers = [(one, one.clone()) for one in backbone.buffers() if not one.is_meta and one.numel() <= _LARGEST]
    device = next((one.device for one in backbone.parameters()), None)
    try:
        for part in parts:
            part.training = False
            if bare:
                _make_bare(part)
        for one in configurations.values():
            if bare:
                _set_plain_attention(one)
        with torch.inference_mode(False), torch.no_grad(), generators_kept(device), quiet():
            seed_generators(0, device)
            yield
    finally:
        for owner, attributes in kept:
            vars(owner).clear()
            vars(owner).update(attributes)
        for held, content in contents:
            held.clear()
            held.update(content)
        with torch.no_grad():
            for buffer, value in buffers:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)


def _make_bare(part: nn.Module) -> None:
    """Take a module's hooks and what a compiler has made of it away."""
    for name in _HOOKS:
        if name in vars(part):
            vars(part)[name] = OrderedDict()
    if vars(part).get("_compiled_call_impl") is not None:
        part._compiled_call_impl = None


def _set_plain_attention(config: object) -> None:
    """Let attention be what it was before a prefix was attached, and that of no package which other devices need."""
    name = getattr(config, "_attn_implementation_internal", None)
    if isinstance(name, str):
        bare = name.removeprefix(PREFIXED)
        vars(config)["_attn_implementation_internal"] = bare if bare in ("eager", "sdpa") else "eager"
