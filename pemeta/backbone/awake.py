"""Values for trials of a backbone whose methods, as long as they are not trained, would show nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pemeta.backbone.maps import is_added, wraps_map


@contextmanager
def awake(model: nn.Module) -> Iterator[None]:
    """Let what methods have added act within the block: it may be zero at first, and tokens meet in it later."""
    drawn, made = torch.Generator().manual_seed(0), {}
    before: list[tuple[dict[str, Any], str, Tensor]] = []
    for part, keys in _added(model):
        before += [(part._parameters, key, value) for key, value in keys.items() if value.is_floating_point()]
    try:
        for parameters, key, value in before:
            if id(value) not in made:  # one for all places of a tied parameter
                noise = 0.1 * torch.randn(value.shape, generator=drawn)
                made[id(value)] = nn.Parameter(value.detach() + noise.to(value), requires_grad=False)
            parameters[key] = made[id(value)]
        yield
    finally:
        for parameters, key, value in before:
            parameters[key] = value


def _added(model: nn.Module) -> Iterator[tuple[nn.Module, dict[str, Tensor]]]:
    """The modules with parameters that methods have added, or the package ``peft`` beside a map, and these by name."""
    wrappers = tuple(f"{path}." for path, part in model.named_modules() if wraps_map(part))
    for path, part in model.named_modules():
        beside = next((path.removeprefix(one) for one in wrappers if path.startswith(one)), "base_layer")
        around = wraps_map(part) or beside.partition(".")[0] != "base_layer"
        keys = {
            key: value
            for key, value in part._parameters.items()
            if value is not None and (around or is_added(f"{path}.{key}"))
        }
        if keys:
            yield part, keys
