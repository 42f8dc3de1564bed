"""The feed-forward block of a layer: maps to an inner width and back, position by position."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pemeta.backbone.maps import walk
from pemeta.backbone.structure.record import hidden_of
from pemeta.backbone.structure.trial import Trial, closeness, differs, drawn, rows_of

BOTTLENECK = 2
"""How much wider the feed-forward block is at least than other blocks of such maps."""
LOOKED_FOR = "linear maps from the width of the hidden states to an inner width and back"


@dataclass(frozen=True)
class FeedForward:
    """Names of the block's parts, as in ``Architecture``."""

    ups: tuple[str, ...] = ()
    down: str | None = None
    block: str | None = None
    residual: bool = False
    experts: str | None = None
    why: str = ""


def experts_of(layer: nn.Module) -> str | None:
    """The module with the maps of several experts: stacked in parameters, or in a list; None if there is none."""
    for name, part in walk(layer):
        stacked = any(one is not None and one.ndim == 3 for one in part._parameters.values())
        several = stacked or isinstance(part, nn.ModuleList | nn.ModuleDict)
        if name and several and "expert" in f"{name} {type(part).__name__}".lower():
            return name
    return None


def feed_forward(trial: Trial, attention: Collection[str]) -> FeedForward:
    """The feed-forward block of a layer, as far as it was found.

    Args:
        trial: The layer.
        attention: Names of the maps that belong to its attention.
    """
    experts = experts_of(trial.layer)
    if experts is not None:
        return _of_experts(trial, experts)
    found = {down: ups for down in trial.derived if down not in attention if (ups := _ups(trial, down, attention))}
    widest = sorted(found, key=lambda down: trial.size(down)[0])[-2:]
    if len(widest) == 2 and trial.size(widest[1])[0] >= BOTTLENECK * trial.size(widest[0])[0]:
        found = {widest[1]: found[widest[1]]}  # adapters of languages, inputs of each layer
    if len(found) != 1:
        several = f"found several blocks, with {', '.join(found)}" if found else "found none"
        return FeedForward(why=f"looked for {LOOKED_FOR}; {several}")
    [(down, ups)] = found.items()
    block, residual = _block(trial, ups, down)
    return FeedForward(ups, down, block, residual, why="no module of the layer is the feed-forward block alone")


def _ups(trial: Trial, down: str, attention: Collection[str]) -> tuple[str, ...]:
    """The maps of which a map gets an activation; empty if it is not the last of a feed-forward block."""
    if trial.size(down)[1] != trial.width or trial.effects(down)[""] == "none":
        return ()
    feeds = trial.feeds(down)
    ups = [name for name in trial.derived if name in feeds and name not in attention]
    right = all(feeds[name] == "local" and trial.size(name)[0] == trial.width for name in ups)
    return tuple(ups) if ups and right and len(ups) == len(feeds) and len(ups) <= 2 else ()


def _of_experts(trial: Trial, experts: str) -> FeedForward:
    """The block that has the experts: the smallest module around them that maps hidden states to hidden states."""
    why = f"{experts} has the maps of several experts, of which tokens use some, and no map of all tokens"
    for block in _around(experts):
        arguments, output = trial.run(blocks=[block]).blocks.get(block, ((), None))
        given, found = hidden_of(arguments), hidden_of(output)
        like = trial.call.hidden
        if like is not None and given is not None and found is not None and given.shape == found.shape == like.shape:
            return FeedForward(block=block, experts=experts, why=why)
    return FeedForward(experts=experts, why=why)


def _around(name: str) -> list[str]:
    """The modules around a module within the layer, the smallest first."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]


def common_parent(names: Sequence[str]) -> str:
    """The smallest module around all of these; empty if it is the layer.

    >>> common_parent(["mlp.up", "mlp.down"]), common_parent(["intermediate.dense", "output.dense"])
    ('mlp', '')
    """
    parents = [name.split(".")[:-1] for name in names]
    together = []
    for steps in zip(*parents, strict=False):
        if len(set(steps)) > 1:
            break
        together.append(steps[0])
    return ".".join(together)


def _block(trial: Trial, ups: Sequence[str], down: str) -> tuple[str | None, bool]:
    """The module that is the block, or its last module, called with the block's input too; and which of these it is."""
    parent, last = common_parent([*ups, down]), common_parent([down])
    shift = _Shift(drawn(trial.plain.outputs[down], 5))
    for block in dict.fromkeys((parent, last)):
        if not block:
            continue
        arguments, plain = trial.run(blocks=[block]).blocks.get(block, ((), None))
        shifted = trial.run({down: shift.added_to}, blocks=[block]).blocks.get(block, ((), None))[1]
        given = [one for one in arguments if isinstance(one, Tensor)]
        start = trial.plain.inputs[ups[0]]
        if block == parent and given and _same(given[0], start) and _adds(plain, shifted, shift.by):
            return block, False
        if (
            block != parent
            and len(given) == len(arguments) == 2
            and _same(given[1], start)
            and _same(given[0], trial.plain.inputs[down])
        ):
            return block, True
    return None, False


@dataclass(frozen=True)
class _Shift:
    by: Tensor

    def added_to(self, output: Tensor) -> Tensor:
        """The output of a map, moved."""
        return output + self.by


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and not differs(one, other)


def _adds(plain: Any, shifted: Any, shift: Tensor) -> bool:
    """Whether what is added to a map's output is added to the block's output, and to nothing else in it."""
    if not isinstance(plain, Tensor) or not isinstance(shifted, Tensor) or plain.shape != shift.shape:
        return False
    off = (rows_of(shifted) - rows_of(plain) - rows_of(shift)).abs().amax()
    return bool(off <= closeness(shift) * torch.maximum(rows_of(plain).abs().amax(), rows_of(shift).abs().amax()))


def takes_block_input(part: nn.Module) -> bool:
    """Whether a module is called with the inner activation and the block's input, by its signature: BERT's output."""
    names = list(inspect.signature(part.forward).parameters)
    return len(names) == 2 and names[1].startswith("input")
