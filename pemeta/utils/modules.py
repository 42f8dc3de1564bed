"""Parameters and training modes of any PyTorch module."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from pemeta.errors import ModelError


def parameter_dict(module: nn.Module, names: Collection[str]) -> dict[str, nn.Parameter]:
    """The named parameters of a module, in the module's order."""
    wanted = set(names)
    return {name: parameter for name, parameter in module.named_parameters() if name in wanted}


def count(module: nn.Module, names: Collection[str]) -> int:
    """Number of scalars in the named parameters."""
    return sum(parameter.numel() for parameter in parameter_dict(module, names).values())


def load_values(module: nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    """Copy values into the parameters with the same names.

    Raises:
        ModelError: The module has no parameter of a name, or its shape differs; nothing is copied then.
    """
    parameters = dict(module.named_parameters())
    for name, value in values.items():
        if name not in parameters:
            raise ModelError(f"the model has no parameter {name}; this state is from another model or method")
        if parameters[name].shape != value.shape:
            raise ModelError(
                f"{name} has shape {tuple(parameters[name].shape)} in the model and {tuple(value.shape)} in the "
                "state; this state is from another model or method"
            )
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)


def is_finite(value: torch.Tensor) -> bool:
    """Whether all elements are finite, without allocating a tensor of the same size."""
    return not value.numel() or all(bool(torch.isfinite(end)) for end in value.detach().aminmax())


def parts_with(module: nn.Module, weight: torch.Tensor) -> list[nn.Module]:
    """The parts of a module that have this very tensor as their weight, several if it is tied."""
    return [part for part in module.modules() if getattr(part, "weight", None) is weight]


def calls_only(module: nn.Module, forward: Callable[..., Any]) -> bool:
    """Whether to call a module is to call this method of its class and nothing else: no hook, override or graph.

    >>> calls_only(nn.Identity(), nn.Identity.forward), calls_only(nn.Identity(), nn.Module.forward)
    (True, False)
    """
    own = getattr(type(module), "forward", None) is forward and "forward" not in vars(module)
    compiled = vars(module).get("_compiled_call_impl") is not None or torch.compiler.is_compiling()
    return own and not is_hooked(module) and not compiled


def is_hooked(module: nn.Module) -> bool:
    """Whether a call of a module, or its backward pass, runs hooks."""
    return any(value for name, value in vars(module).items() if "_hooks" in name and "state_dict" not in name)


def state_digest(module: nn.Module) -> str:
    """A digest of the names and values of all parameters, as twelve hexadecimal digits."""
    sha = hashlib.sha256()
    for name, parameter in module.named_parameters():
        sha.update(name.encode())
        for value in plain_tensors(parameter):
            sha.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()[:12]


def plain_tensors(parameter: Tensor) -> Iterator[Tensor]:
    """The plain tensors that hold a parameter's values: itself, or those within it."""
    if not is_traceable_wrapper_subclass(parameter):
        yield parameter.detach()
        return
    for name in parameter.__tensor_flatten__()[0]:
        yield from plain_tensors(getattr(parameter, name))


@contextmanager
def only_trainable(module: nn.Module, names: Collection[str]) -> Iterator[dict[str, nn.Parameter]]:
    """Make exactly the named parameters require gradients within the block; restore all flags afterwards."""
    wanted = set(names)
    before = {parameter: parameter.requires_grad for parameter in module.parameters()}
    try:
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in wanted)
        yield parameter_dict(module, names)
    finally:
        for parameter, required in before.items():
            parameter.requires_grad_(required)


@contextmanager
def constant(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Make parameters require no gradient within the block; those that did do so again afterwards."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def modes_kept(module: nn.Module) -> Iterator[None]:
    """Restore the mode of each submodule after the block, which may call ``train`` and ``eval``."""
    before = {part: part.training for part in module.modules()}
    try:
        yield
    finally:
        for part in module.modules():
            part.training = before.get(part, module.training)


class Structure:
    """What a module is made of: its parts, their parameters, hooks, modes and flags, to be put back as they were.

    Values are not copied.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module, self._attributes = module, set(vars(module))
        self._parts = [(part, part.training, _contents(part)) for part in module.modules()]
        self._flags = {parameter: parameter.requires_grad for parameter in module.parameters()}

    def restore(self) -> None:
        """Put everything back; what was added is removed."""
        for part, mode, contents in self._parts:
            part.training = mode
            for name, content in contents.items():
                vars(part)[name].clear()
                vars(part)[name].update(content)
        for parameter, required in self._flags.items():
            parameter.requires_grad_(required)
        for name in set(vars(self._module)) - self._attributes:
            delattr(self._module, name)

    def hooked(self) -> bool:
        """Whether hooks have been added since that run with a pass of one of the parts."""
        return any(
            not vars(part)[name].keys() <= content.keys()
            for part, _, contents in self._parts
            for name, content in contents.items()
            if "hooks" in name
        )


def _contents(part: nn.Module) -> dict[str, dict[Any, Any]]:
    """Copies of the dictionaries in which a module keeps its parts, parameters, buffers and hooks."""
    kept = {name: value for name, value in vars(part).items() if isinstance(value, dict)}
    return {name: dict(value) for name, value in kept.items() if name in _OWN or "_hooks" in name}


_OWN = ("_modules", "_parameters", "_buffers")


def module_key(name: str) -> str:
    """A name as a key of a ModuleDict, which allows neither dots nor names of its own attributes.

    >>> module_key("a.b"), name_of_key(module_key("a.b"))
    ('task_a%2Eb', 'a.b')
    """
    return "task_" + name.replace("%", "%25").replace(".", "%2E")


def name_of_key(key: str) -> str:
    """The name that :func:`module_key` has made a key of."""
    return key.removeprefix("task_").replace("%2E", ".").replace("%25", "%")
