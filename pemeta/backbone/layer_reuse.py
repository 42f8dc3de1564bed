"""Reuse of the layers below θ_a: they run once per batch, however many passes over it follow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from pemeta.backbone.architectures import architecture_of, kind_of, layer_names
from pemeta.backbone.finite_masks import finite_masks
from pemeta.backbone.structure.description import Output
from pemeta.backbone.structure.record import recorded
from pemeta.backbone.structure.undisturbed import has_values, undisturbed
from pemeta.errors import ModelError
from pemeta.typing import Batch

INPUT_OF_LAYER = "input_of_layer_"
"""Start of a batch's key for the input (B, T, D) of a layer, computed earlier; the layer's number follows."""
TRANSFORMED = "transformed"
"""A batch's key for the hidden states (B, T, D) as heads get them, after all methods, computed earlier."""
_STATES = ("trunk", TRANSFORMED)
PACKED = "packed."
"""Start of a batch's keys for what :mod:`~pemeta.backbone.packing` adds to it."""


def separable(backbone: nn.Module, first: int) -> bool:
    """Whether a pass can skip the layers below ``first`` if the input of that layer is known.

    Not if a part of the backbone is compiled: its graph would be used as it is, whatever is skipped or hooked. And only
    if it gives what a whole pass gives, which is tried with a tiny batch, once for each kind of backbone: DeBERTa may
    have a convolution between the first layer and the second.
    """
    if first == 0 or is_compiled(backbone):
        return False
    found = architecture_of(backbone)
    if found.output == "more" or not has_values(backbone):
        return found.output != "more" and not _convolved(backbone, first)
    key = kind_of(backbone), first
    if key not in _TRIED:
        _TRIED[key] = _gives_the_same(backbone, first)
    return _TRIED[key]


_TRIED: dict[Any, bool] = {}
"""Whether layers below one can be skipped, by the kind of backbone and the number of the layer."""


def _convolved(backbone: nn.Module, first: int) -> bool:
    """Whether there is a convolution between the first layer and the second, where nothing can be tried."""
    stack = backbone.get_submodule(architecture_of(backbone).layers.rpartition(".")[0])
    return first == 1 and getattr(stack, "conv", None) is not None


def _gives_the_same(backbone: nn.Module, first: int) -> bool:
    """Whether a pass without the layers below gives the same last hidden states as a whole one."""
    names = list(layer_names(backbone))
    with undisturbed(backbone):
        try:
            whole = recorded(backbone, names)
        except ModelError:
            return False
    call = whole.of(names[first])
    if call is None or call.hidden is None or whole.states is None:
        return False
    with undisturbed(backbone), skip_layers_below(backbone, {f"{INPUT_OF_LAYER}{first}": call.hidden}):
        try:
            states = getattr(backbone(**whole.inputs), "last_hidden_state", None)
        except Exception:  # a model that does more with its layers than to run them
            return False
    return isinstance(states, Tensor) and states.shape == whole.states.shape and torch.allclose(states, whole.states)


def is_compiled(module: nn.Module) -> bool:
    """Whether a module or a part of it was compiled in place, by its method ``compile``."""
    return any(getattr(part, "_compiled_call_impl", None) is not None for part in module.modules())


class _LayerReached(Exception):  # noqa: N818 - control flow, not an error
    """Ends a pass at a layer; holds the layer's input."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden


def run_below(backbone: nn.Module, inputs: dict[str, Any], first: int) -> Tensor:
    """The input (B, T, D) of layer ``first``; only the layers below it are run.

    Args:
        backbone: The backbone.
        inputs: Arguments of the backbone.
        first: Number of a layer for which :func:`separable` is true.
    """

    def stop(layer: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        raise _LayerReached(arguments[0] if arguments else named["hidden_states"])

    layer = backbone.get_submodule(layer_names(backbone)[first])
    handle = layer.register_forward_pre_hook(stop, prepend=True, with_kwargs=True)
    try:
        with finite_masks(backbone):
            backbone(**inputs)
    except _LayerReached as reached:
        return reached.hidden
    finally:
        handle.remove()
    raise ModelError(f"{type(backbone).__name__} did not run its layer {first}; run the whole backbone")


class _Skipped(nn.Module):
    """A stand-in for a skipped layer, which returns the hidden states that the skipped layers result in."""

    def __init__(self, layer: nn.Module, hidden: Tensor, output: Output) -> None:
        super().__init__()
        self.__dict__["layer"] = layer  # not a child; answers for attributes that models read from their layers
        self.output = {"pair": (hidden, None), "single": (hidden,)}.get(output, hidden)

    def forward(self, *arguments: Any, **kwargs: Any) -> Any:
        return self.output

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["layer"], name)


@contextmanager
def skip_layers_below(backbone: nn.Module, batch: Batch) -> Iterator[None]:
    """Skip, within the block, the layers below the one whose input the batch holds, if it holds one."""
    key = next((key for key in batch if key.startswith(INPUT_OF_LAYER)), None)
    if key is None:
        yield
        return
    output, below = architecture_of(backbone).output, layer_names(backbone)[: int(key.removeprefix(INPUT_OF_LAYER))]
    places = [
        (backbone.get_submodule(parent)._modules, number) for parent, _, number in (n.rpartition(".") for n in below)
    ]
    before = [layers[number] for layers, number in places]
    try:
        for (layers, number), layer in zip(places, before, strict=True):
            assert layer is not None  # a layer of a ModuleList
            layers[number] = _Skipped(layer, batch[key], output)
        yield
    finally:
        for (layers, number), layer in zip(places, before, strict=True):
            layers[number] = layer


_RANDOM = ("drop", "jitter", "mask_time_prob", "mask_feature_prob")
"""Parts of the names under which a configuration holds rates of randomness in training mode."""
_HEAD_PREFIXES = ("classifier_", "seq_classif_", "qa_", "summary_", "pooler_")
"""Prefixes of the names of rates that only transformers' own heads use, not a backbone."""


def has_dropout(backbone: nn.Module) -> bool:
    """Whether a pass of the backbone in training mode may differ from one in evaluation mode.

    It may if a dropout rate, in a module or in the configuration, is above zero; rates of transformers' own heads do
    not count, and unknown rates do.

    >>> has_dropout(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.0))), has_dropout(nn.Sequential(nn.Dropout(0.1)))
    (False, True)
    """
    modules = [part for part in backbone.modules() if "drop" in type(part).__name__.lower()]
    rates = [getattr(part, "p", getattr(part, "drop_prob", 1.0)) for part in modules]
    batch_norms = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in backbone.modules())
    config = getattr(backbone, "config", None)
    return batch_norms or any(map(_above_zero, rates)) or (config is not None and _mentions_rate(config.to_dict()))


def _mentions_rate(config: Mapping[str, Any]) -> bool:
    """Whether any rate in a configuration, or in one nested in it, is above zero."""
    for key, value in config.items():
        name = str(key)  # the keys of `id2label` are numbers
        named = any(word in name for word in _RANDOM) and not name.startswith(_HEAD_PREFIXES)
        if (named and _above_zero(value)) or (isinstance(value, Mapping) and _mentions_rate(value)):
            return True
    return False


def _above_zero(rate: object) -> bool:
    """Whether a rate, or any of several, is above zero."""
    if isinstance(rate, list | tuple):
        return any(map(_above_zero, rate))
    return isinstance(rate, int | float) and rate > 0


def is_stochastic(backbone: nn.Module) -> bool:
    """Whether a pass of the backbone may be random, given the present modes of its submodules.

    The flags of checkpointed layers themselves are ignored: such a layer runs in the mode of its submodules.
    """
    parts = (part for part in backbone.modules() if not isinstance(part, GradientCheckpointingLayer))
    return any(part.training for part in parts) and has_dropout(backbone)


def inputs_of(batch: Batch) -> Batch:
    """The entries of a batch that are inputs of the backbone, padded."""
    return {key: value for key, value in batch.items() if key != "labels" and not _is_added(key)}


def has_states(batch: Batch) -> bool:
    """Whether a batch holds hidden states computed earlier."""
    return any(_is_added(key) and not key.startswith(PACKED) for key in batch)


def _is_added(key: str) -> bool:
    """Whether an entry of a batch was computed from its others."""
    return key in _STATES or key.startswith((INPUT_OF_LAYER, PACKED))


class SharedGraph:
    """Tensors shared by the graphs of several losses, whose common lower graph is differentiated once at the end.

    The backward pass of a loss accumulates its gradient at the shared tensors and frees its own graph.
    """

    def __init__(self) -> None:
        self._pairs: list[tuple[Tensor, Tensor]] = []

    def share(self, tensor: Tensor) -> Tensor:
        """A leaf that takes the place of the tensor in the losses."""
        if not tensor.requires_grad:
            return tensor
        leaf = tensor.detach().requires_grad_()
        self._pairs.append((tensor, leaf))
        return leaf

    def backward(self) -> None:
        """Propagate the accumulated gradients through the shared graph to the parameters' ``grad``."""
        found = [(tensor, leaf.grad) for tensor, leaf in self._pairs if leaf.grad is not None]
        self._pairs.clear()
        if found:
            tensors, gradients = zip(*found, strict=True)
            torch.autograd.backward(tensors, gradients)
