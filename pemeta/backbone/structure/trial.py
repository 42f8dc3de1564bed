"""A layer that is run again and again, with the outputs of some of its maps replaced.

Who depends on whom, and whether at the same position only, is what tells the parts of a layer from each other: an
output of the query map at one position changes attention at this position alone, one of the key map elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from pemeta.backbone.maps import map_sizes, maps_in, walk
from pemeta.backbone.structure.record import LayerCall, hidden_of

ROW = 2
"""The position at which outputs are changed: one that others are after, and before, in causal attention."""
Change: TypeAlias = Callable[[Tensor], Tensor]
Effect: TypeAlias = Literal["none", "local", "mixing"]
"""How an output at one position affects another value: nowhere, at one position only, or at several."""


@dataclass
class Seen:
    """What one run of a layer has shown, of the first call of each module.

    Attributes:
        order: Names of maps and norms in the order of their calls.
        inputs: Their first positional arguments.
        outputs: Their outputs.
        states: The layer's hidden states.
        blocks: Arguments and outputs of the other modules that were asked for.
    """

    order: list[str] = field(default_factory=list)
    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    states: Tensor | None = None
    blocks: dict[str, tuple[tuple[Any, ...], Any]] = field(default_factory=dict)


class Trial:
    """A layer, with the arguments of one of its calls.

    Args:
        layer: The layer.
        call: The call.
        skip: Starts of names of maps that are not looked at, such as experts.
    """

    def __init__(self, layer: nn.Module, call: LayerCall, skip: Collection[str] = ()) -> None:
        self.layer, self.call = layer, call
        self.maps = {name: part for name, part in maps_in(layer).items() if not name.startswith(tuple(skip))}
        self.norms = {name: part for name, part in walk(layer) if name and "norm" in type(part).__name__.lower()}
        self.plain = self.run()
        self._effects: dict[str, dict[str, Effect]] = {}

    @cached_property
    def derived(self) -> list[str]:
        """The maps whose input depends on the layer's, in the order of their calls: others are of positions."""
        inputs, moved = self.plain.inputs, self.run(moved=True).inputs
        return [m for m in self.plain.order if m in self.maps and differs(inputs[m], moved.get(m))]

    def size(self, name: str) -> tuple[int, int]:
        """Input and output width of a map."""
        return map_sizes(self.maps[name])

    @property
    def width(self) -> int:
        """Width of the layer's hidden states."""
        hidden = self.call.hidden
        return 0 if hidden is None else hidden.shape[-1]

    def run(
        self, changes: Mapping[str, Change] | None = None, blocks: Collection[str] = (), moved: bool = False
    ) -> Seen:
        """Run the layer.

        Args:
            changes: What becomes of the outputs of some maps, in their first calls.
            blocks: Names of other modules whose arguments and outputs are wanted.
            moved: Whether to run it on other hidden states.
        """
        seen = Seen()
        watched = {**self.maps, **self.norms}
        handles = [
            part.register_forward_hook(_Watch(name, seen, (changes or {}).get(name))) for name, part in watched.items()
        ]
        handles += [self.layer.get_submodule(name).register_forward_hook(_Block(name, seen)) for name in blocks if name]
        call, hidden = self.call, self.call.hidden
        if moved and hidden is not None:
            call = call.on(hidden + drawn(hidden, 7))
        try:
            seen.states = hidden_of(self.layer(*call.arguments, **call.named))
        finally:
            for handle in handles:
                handle.remove()
        return seen

    def effects(self, source: str) -> dict[str, Effect]:
        """How another output of a map at one position affects the inputs of the others, and the layer's output.

        The last is under the empty name.
        """
        if source not in self._effects:
            seen = self.run({source: another_row})
            found = {m: _effect(self.plain.inputs[m], seen.inputs.get(m)) for m in self.derived if m != source}
            self._effects[source] = {**found, "": _effect(self.plain.states, seen.states)}
        return self._effects[source]

    def feeds(self, target: str) -> dict[str, Effect]:
        """The maps that affect a map's input other than through further maps, and how."""
        every = {m: self.effects(m)[target] for m in self.derived if m != target}
        some = [m for m, effect in every.items() if effect != "none"]
        return {m: every[m] for m in some if not any(self.effects(m)[n] != "none" for n in some if n != m)}


def drawn(like: Tensor, seed: int, spread: float = 1.5) -> Tensor:
    """Normal numbers with a tensor's shape, type and device; the same for a seed everywhere."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return (torch.randn(like.shape, generator=generator, device="cpu") * spread).to(
        device=like.device, dtype=like.dtype
    )


def another_row(output: Tensor) -> Tensor:
    """An output that is quite another at one position."""
    rows = output.reshape(-1, output.shape[-1]).clone()
    size = max(1.0, float(rows.float().square().mean().sqrt()))
    rows[ROW] += drawn(rows[ROW], 1, 10 * size)
    return rows.view(output.shape)


def rows_of(value: Tensor) -> Tensor:
    """A value (..., D) as rows, in float32 at least."""
    rows = value.reshape(-1, value.shape[-1])
    return rows if rows.dtype == torch.float64 else rows.float()


def tolerance(value: Tensor) -> float:
    """Relative size of differences that are rounding."""
    return 3e-2 if value.dtype.itemsize < 4 else 1e-5


def closeness(value: Tensor) -> float:
    """Distance up to which numbers of size one that went through several operations count as equal."""
    return 5e-2 if value.dtype.itemsize < 4 else 1e-3


def differs(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two values are not the same, apart from rounding."""
    return _effect(one, other) != "none"


def _effect(before: Tensor | None, after: Tensor | None) -> Effect:
    if before is None or after is None or before.shape != after.shape:
        return "mixing"
    one, other = rows_of(before), rows_of(after)
    far = (one - other).abs().amax(1) > tolerance(before) * float(one.abs().amax().clamp(min=1e-12))
    if not bool(far.any()):
        return "none"
    return "mixing" if int(far.sum()) > 1 else "local"


class _Watch:
    """A forward hook that keeps the first call of a map or norm, and changes its output."""

    def __init__(self, name: str, seen: Seen, change: Change | None) -> None:
        self.name, self.seen, self.change = name, seen, change

    def __call__(self, part: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
        if self.name in self.seen.order or not isinstance(output, Tensor) or not arguments:
            return None
        self.seen.order.append(self.name)
        changed = output if self.change is None else self.change(output)
        self.seen.inputs[self.name], self.seen.outputs[self.name] = arguments[0].clone(), changed.clone()
        return changed


class _Block:
    """A forward hook that keeps the first call of a block."""

    def __init__(self, name: str, seen: Seen) -> None:
        self.name, self.seen = name, seen

    def __call__(self, part: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        self.seen.blocks.setdefault(self.name, (arguments, output))
