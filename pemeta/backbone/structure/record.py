"""One pass of a tiny batch through a whole backbone: how its layers are called, and what they return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pemeta.backbone.structure.description import Output
from pemeta.backbone.structure.inputs import tiny_batches
from pemeta.errors import ModelError, clause


@dataclass
class LayerCall:
    """A call of a layer.

    Attributes:
        name: The layer's name.
        arguments: Its positional arguments.
        named: Its named arguments.
        output: What it returned.
    """

    name: str
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    output: Any

    @property
    def hidden(self) -> Tensor | None:
        """The hidden states that it got."""
        given = self.arguments[0] if self.arguments else self.named.get("hidden_states")
        return given if isinstance(given, Tensor) else None

    def on(self, hidden: Tensor) -> LayerCall:
        """The same call with other hidden states."""
        old = self.hidden
        arguments = tuple(hidden if one is old else one for one in self.arguments)
        named = {key: hidden if one is old else one for key, one in self.named.items()}
        return replace(self, arguments=arguments, named=named)


@dataclass
class Record:
    """What a pass has shown.

    Attributes:
        inputs: The arguments of the backbone.
        calls: The calls of its layers, in their order.
        states: The last hidden states.
    """

    inputs: dict[str, Any]
    calls: list[LayerCall]
    states: Tensor | None

    def of(self, layer: str) -> LayerCall | None:
        """The first call of a layer."""
        return next((call for call in self.calls if call.name == layer), None)

    def passes(self, layers: Sequence[str]) -> int:
        """How often each layer was called; the most, if they differ."""
        names = [call.name for call in self.calls]
        return max((names.count(layer) for layer in layers), default=0)

    def output(self, layers: Sequence[str]) -> Output:
        """What the layers return, if each passes its hidden states, and nothing else, to the next one."""
        if [call.name for call in self.calls] != list(layers) or len(layers) < 2:
            return "more"
        kinds = {_kind(call.output) for call in self.calls}
        pairs = zip(self.calls, self.calls[1:], strict=False)
        chained = all(_same(hidden_of(before.output), after.hidden) for before, after in pairs)
        return kinds.pop() if chained and len(kinds) == 1 else "more"


def hidden_of(output: Any) -> Tensor | None:
    """The hidden states in what a layer, or a block of one, returns."""
    found = output[0] if isinstance(output, tuple) and output else output
    return found if isinstance(found, Tensor) else None


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None or one.shape != other.shape:
        return False
    return one.is_meta or one is other or torch.equal(one, other)


def _kind(output: Any) -> Output:
    if isinstance(output, Tensor):
        return "states"
    if not isinstance(output, tuple) or hidden_of(output) is None or any(rest is not None for rest in output[1:]):
        return "more"
    return {1: "single", 2: "pair"}.get(len(output), "more")  # type: ignore[return-value]


def recorded(backbone: nn.Module, layers: Sequence[str]) -> Record:
    """Run a tiny batch; to be called within :func:`undisturbed`.

    Raises:
        ModelError: None of the batches that were tried runs.
    """
    failure: Exception | None = None
    for inputs in tiny_batches(backbone):
        calls: list[LayerCall] = []
        handles = [
            backbone.get_submodule(name).register_forward_hook(_Keep(name, calls), with_kwargs=True) for name in layers
        ]
        try:
            output = backbone(**inputs)
        except Exception as error:  # inputs of another kind than it takes
            failure = failure or error
            continue
        finally:
            for handle in handles:
                handle.remove()
        states = getattr(output, "last_hidden_state", None)
        return Record(inputs, calls, states if isinstance(states, Tensor) else None)
    kind = getattr(backbone, "main_input_name", "input_ids")
    raise ModelError(
        f"a pass of a tiny batch of {kind} through {type(backbone).__name__} failed"
        + (f" ({clause(failure)})" if failure is not None else ", because there is no way to make one")
    )


class _Keep:
    """A forward hook that keeps a layer's call."""

    def __init__(self, name: str, calls: list[LayerCall]) -> None:
        self.name, self.calls = name, calls

    def __call__(self, layer: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        self.calls.append(LayerCall(self.name, arguments, named, output))
