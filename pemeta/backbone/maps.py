"""Linear maps in a backbone: ``nn.Linear``, and the transposed ``Conv1D`` of GPT-2."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from pemeta.errors import ModelError


def transposed(linear: nn.Module) -> bool:
    """Whether the weight is (in, out), as in transformers' ``Conv1D``, rather than (out, in)."""
    return type(linear).__name__ == "Conv1D"


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear map: ``nn.Linear``, or the transposed ``Conv1D`` of GPT-2."""
    return isinstance(module, nn.Linear) or transposed(module)


def linear_sizes(linear: nn.Module) -> tuple[int, int]:
    """Input and output width of a linear map: ``nn.Linear``, or the transposed ``Conv1D`` of GPT-2.

    Raises:
        ModelError: The module is neither; it is quantised, for example.
    """
    weight = getattr(linear, "weight", None)
    if isinstance(linear, nn.Linear) and type(linear) is not nn.Linear and not _is_matrix(weight):
        return linear.in_features, linear.out_features  # of a quantised map, whose weight is packed in a way of its own
    if weight is None or not _is_matrix(weight):
        raise ModelError(
            f"{type(linear).__name__} is not a plain linear map; load the backbone unquantised, in floating point"
        )
    rows, columns = weight.shape
    return (rows, columns) if transposed(linear) else (columns, rows)


def _is_matrix(weight: Tensor | None) -> bool:
    return weight is not None and weight.ndim == 2 and weight.is_floating_point()


def is_added(name: str) -> bool:
    """Whether a parameter belongs to a module that a method added, rather than to the backbone itself.

    >>> is_added("encoder.layer.0.output.pemeta_adapter.up.weight"), is_added("encoder.layer.0.output.dense.bias")
    (True, False)
    """
    return any(part.startswith("pemeta_") for part in name.split("."))


def walk(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules of a part of a backbone with their names, without what methods have added.

    A layer that the ``peft`` package has put around a map counts as the map.
    """
    yield prefix, module
    if wraps_map(module):
        return
    for name, child in module._modules.items():
        if child is not None and not is_added(name):
            yield from walk(child, f"{prefix}.{name}" if prefix else name)


def wraps_map(module: nn.Module) -> bool:
    """Whether a module is a layer of the ``peft`` package around a linear map."""
    inner = module._modules.get("base_layer")
    return inner is not None and is_linear(inner)


def maps_in(module: nn.Module) -> dict[str, nn.Module]:
    """The linear maps within a module by name, in the order in which they are registered."""
    return {name: part for name, part in walk(module) if name and (is_linear(part) or wraps_map(part))}


def map_sizes(part: nn.Module) -> tuple[int, int]:
    """Input and output width of one of :func:`maps_in`."""
    inner = part._modules.get("base_layer")
    return linear_sizes(part if inner is None else inner)
