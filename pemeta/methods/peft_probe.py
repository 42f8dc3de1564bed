"""Whether a tuner of the ``peft`` package computes, and differentiates, as priming needs; found by trying its layers.

PEFT's tuners are made for a frozen backbone. Some read its weights through ``.data``, put copies in their place, or
want arguments that a backbone does not pass on: they compute what they should, and priming would silently leave θ_p
as it is. So each kind of layer that a tuner has inserted is tried once, on a copy in double precision with other
values of θ_a than the initial ones, which are often zero.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pemeta.errors import reason
from pemeta.utils.seeding import generators_kept, seed_generators

STEPS = (1e-3, 1e-4, 1e-6)
"""Steps of finite differences: some tuners compute in float32 whatever they are given, and some have kinks."""
LARGEST = 2**24
"""Parameters above which a layer's values are not tried, for time and memory, but only whether its graph has them."""
TOLERANCE = 2e-3
"""Relative difference from which on a gradient counts as another one; the faults that there are miss whole terms."""


@dataclass(frozen=True)
class Finding:
    """What a trial of a tuner's layer has shown.

    Attributes:
        fault: Why the tuner cannot be used; None if it can.
        surrogate: Whether the gradient of θ_a itself is not that of the layer's function, by the tuner's design: DoRA
            treats a norm that depends on its parameters as constant.
        theta_p: Whether the fault does not matter if θ_p is not to move.
    """

    fault: str | None = None
    surrogate: bool = False
    theta_p: bool = False


def one_of_each_kind(layers: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """The smallest layer of each kind that a tuner has inserted, with its name; none without values."""
    kinds: dict[tuple[type, ...], tuple[str, Any]] = {}
    for name, layer in layers:
        kind = (type(layer), type(layer.get_base_layer()))
        if not any(parameter.is_meta for parameter in layer.parameters()):
            kinds[kind] = min(kinds.get(kind, (name, layer)), (name, layer), key=lambda one: _size(one[1]))
    return list(kinds.values())


def try_layer(layer: Any, frozen: Callable[[nn.Parameter], bool]) -> Finding:
    """Try a layer that a tuner has inserted; the layer itself is not touched.

    Args:
        layer: The layer.
        frozen: Whether a parameter of the backbone is one that no run moves.
    """
    fixed = [key for key, parameter in layer.get_base_layer().named_parameters() if frozen(parameter)]
    with generators_kept(), torch.inference_mode(False), torch.enable_grad():
        seed_generators(0, None)
        return _try(layer, fixed)


def forgets(base: nn.Module, insert: Callable[[nn.Module], Any], moves: bool) -> bool:
    """Whether a layer computes something else when it is made anew and all its parameters are put back.

    This is what loading a saved model does, and saved are parameters. Some tuners keep other values, drawn at random
    or computed from the backbone's weights as they are when the tuner is attached: before priming.

    Args:
        base: The backbone's part that the layer is around.
        insert: Puts a tuner's layer around the child ``part`` of a module.
        moves: Whether the part's own values may have moved in between.
    """
    if _size(base) > LARGEST:
        return False
    with generators_kept(), torch.inference_mode(False), torch.no_grad():
        try:
            one, other = _made(base, insert, 0, moves), _made(base, insert, 1, moves)
        except Exception:  # a choice of targets that does not fit the part alone
            return False
        inputs, theirs = _inputs(other.part.get_base_layer()), dict(other.named_parameters())  # type: ignore[union-attr,operator]
        for name, parameter in one.named_parameters():
            if name not in theirs or theirs[name].shape != parameter.shape:
                return True
            parameter.copy_(theirs[name])
        return inputs is not None and not torch.allclose(one.part(inputs), other.part(inputs), rtol=1e-3, atol=1e-5)  # type: ignore[operator]


def _made(base: nn.Module, insert: Callable[[nn.Module], Any], seed: int, moves: bool) -> nn.Module:
    """A module whose child ``part`` is a tuner's layer around a copy of ``base``, with other values if it moves."""
    seed_generators(seed, None)
    made = nn.Module()
    made.part = copy.deepcopy(base).to(device="cpu", dtype=torch.float32)
    for parameter in made.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.1 if moves else 0.0)
    with torch.enable_grad():
        insert(made)
    _shake(made.part)
    return made.eval()


def _size(layer: nn.Module) -> int:
    return sum(parameter.numel() for parameter in layer.parameters())


def _try(layer: nn.Module, fixed: Sequence[str]) -> Finding:
    """Try a layer in double precision, or in its own if it insists on that."""
    failure: Exception | None = None
    for dtype in (torch.float64, torch.float32, None) if _size(layer) <= LARGEST else (None,):
        try:
            trial = copy.deepcopy(layer).to(device="cpu", dtype=dtype).eval()
            inputs = _inputs(trial.get_base_layer())  # type: ignore[operator]
            if inputs is None:  # a part that is called in a way of its own; the first step of a run will tell
                return Finding()
            _shake(trial)
            return _Trial(trial, inputs).finding(fixed)
        except Exception as error:  # PEFT's layers raise nearly anything
            failure = error
    assert failure is not None
    return Finding(f"fails in a pass ({reason(failure)})")


def _inputs(base: nn.Module) -> Tensor | None:
    """An input that the backbone's own part takes: words, features, or a picture; None if none of these will do."""
    weight = next(base.parameters(), None)
    if weight is None or weight.ndim == 0:
        return None
    if isinstance(base, nn.Embedding):  # padding has no gradient
        words = [index for index in range(min(base.num_embeddings, 7)) if index != base.padding_idx]
        return torch.tensor(words[:6] * 6)[:6].view(2, 3)
    widths = (getattr(base, "in_features", None), *weight.shape)
    shapes: list[tuple[int, ...]] = [(2, 3, width) for width in widths if isinstance(width, int)]
    shapes += [(1, weight.shape[1], *(2 * size for size in weight.shape[2:]))] if weight.ndim > 2 else []
    for shape in shapes:
        tried = torch.randn(shape, dtype=weight.dtype)
        try:
            with torch.no_grad():
                if isinstance(base(tried), Tensor):
                    return tried
        except Exception:  # the wrong shape
            continue
    return None


def _shake(layer: nn.Module) -> None:
    """Move θ_a from where it starts."""
    own = {id(parameter) for parameter in layer.get_base_layer().parameters()}  # type: ignore[operator]
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
            if id(parameter) not in own and parameter.is_floating_point():
                parameter.add_(torch.randn_like(parameter), alpha=0.3)


class _Trial:
    """A layer and an input, with the gradient of a random function of its output.

    Args:
        layer: A copy, whose parameters may be moved.
        inputs: What it is called with.
    """

    def __init__(self, layer: nn.Module, inputs: Tensor) -> None:
        self.layer, self.inputs = layer, inputs
        base: nn.Module = layer.get_base_layer()  # type: ignore[operator]
        self.plain = base(inputs)
        self.factors = torch.randn_like(self.plain)
        known = dict(base.named_parameters())
        self.own = {name: p for name, p in known.items() if self._gradient(self.plain, [p])[0] is not None}
        ids = {id(parameter) for parameter in known.values()}
        self.added = [p for p in layer.parameters() if id(p) not in ids and p.requires_grad]

    def finding(self, fixed: Sequence[str]) -> Finding:
        """Compare the gradients with finite differences.

        Args:
            fixed: Names of the backbone's own parameters that no run moves.
        """
        if self.inputs.is_floating_point():
            self.inputs.requires_grad_()
        output = self.layer(self.inputs)
        if not isinstance(output, Tensor) or output.shape != self.plain.shape:
            found = f"a tensor of another shape, {tuple(output.shape)}" if isinstance(output, Tensor) else "no tensor"
            return Finding(f"passes on {found}")
        gradients = self._gradient(output, [*self.own.values(), *self.added])
        of_own = dict(zip(self.own, gradients, strict=False))
        of_added = gradients[len(self.own) :]
        if self.added and all(gradient is None for gradient in of_added):
            return Finding("does not use its own parameters, when it is called as the backbone calls it")
        if self.inputs.requires_grad and not self._agrees([self.inputs], self._gradient(output, [self.inputs])):
            return Finding("passes on a gradient that is not of finite differences to what is below it")
        pairs = zip(self.added, of_added, strict=True)
        surrogate = not all(self._agrees([parameter], [gradient]) for parameter, gradient in pairs)
        for name, parameter in self.own.items():
            if name in fixed:
                continue
            gradient = of_own[name]
            agrees = self._agrees([parameter], [gradient])
            if gradient is None and agrees:
                return Finding(
                    f"computes without the backbone's own {name}, which no gradient then reaches", theta_p=True
                )
            if not agrees and not surrogate:
                kind = "no gradient" if gradient is None else "not the whole gradient"
                return Finding(
                    f"gives the backbone's own {name} {kind}, because it reads it without autograd", theta_p=True
                )
        return Finding(surrogate=surrogate)

    def _value(self) -> float:
        with torch.no_grad():
            return float((self.layer(self.inputs) * self.factors).double().sum())

    def _gradient(self, output: Tensor, parameters: Sequence[Tensor]) -> Sequence[Tensor | None]:
        if not output.requires_grad:
            return [None for _ in parameters]
        total = (output * self.factors).sum()
        return torch.autograd.grad(total, list(parameters), allow_unused=True, retain_graph=True)

    def _agrees(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> bool:
        """Whether the gradient along a direction, half random and half its own, is that of finite differences."""
        if sum(parameter.numel() for parameter in parameters) > LARGEST:
            return any(gradient is not None for gradient in gradients)
        along = [_direction(parameter, gradient) for parameter, gradient in zip(parameters, gradients, strict=True)]
        pairs = zip(gradients, along, strict=True)
        exact = sum(float((g.double() * d.double()).sum()) for g, d in pairs if g is not None)
        return any(_close(exact, self._difference(parameters, along, step)) for step in STEPS)

    def _difference(self, parameters: Sequence[Tensor], along: Sequence[Tensor], step: float) -> float:
        ends = []
        before = [parameter.detach().clone() for parameter in parameters]
        for sign in (1, -1):
            with torch.no_grad():
                for parameter, value, direction in zip(parameters, before, along, strict=True):
                    parameter.copy_(value + sign * step * direction)
            ends.append(self._value())
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)
        return (ends[0] - ends[1]) / (2 * step)


def _direction(parameter: Tensor, gradient: Tensor | None) -> Tensor:
    """A direction in which the loss, if the gradient is right, changes by more than rounding does."""
    drawn = torch.randn_like(parameter)
    norm = 0.0 if gradient is None else float(gradient.norm())
    return drawn if gradient is None or not norm else drawn + gradient * (float(drawn.norm()) / norm)


def _close(one: float, other: float) -> bool:
    return abs(one - other) <= TOLERANCE * max(abs(one), abs(other)) + 1e-6


def strays(tuner: nn.Module, backbone: nn.Module) -> Iterator[str]:
    """Parameters of a tuner that are not in the backbone, where neither the inner loop nor a saved task has them."""
    inside = {id(parameter) for parameter in backbone.parameters()}
    return (name for name, parameter in tuner.named_parameters() if id(parameter) not in inside)
