"""Base class of methods that add small modules inside the backbone: inserting, finding and removing these."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from pemeta.errors import ModelError
from pemeta.methods.base import PEMethod
from pemeta.utils.precision import HALF, casts_itself, first_half, narrowed, wide_dtype, widened

HookFunction = Callable[..., Any]


@dataclass(frozen=True)
class Insertion:
    """A module to add to one part of the backbone, and the hooks through which it acts.

    ``after`` and ``before`` must be module-level functions, so that a model can be copied and pickled.

    Attributes:
        path: name of the part within the backbone; empty for the backbone itself.
        make: returns the new module; called once everything is known to fit.
        after: called with the added module, the part's positional arguments and its output; returns the new output.
        before: called with the added module and the part's positional arguments; returns new arguments.
    """

    path: str
    make: Callable[[], nn.Module]
    after: HookFunction | None = None
    before: HookFunction | None = None


@dataclass(frozen=True)
class Hook:
    """A forward hook that finds the added module in the part that it is called with.

    A copy of the backbone shares the hooks of its original, and this way still uses its own module. In a backbone in
    half precision the function gets float32 in place of it, as the added module is, and its result is rounded.
    """

    child: str
    function: HookFunction

    def __call__(self, part: nn.Module, *rest: Any) -> Any:
        """Call the function with the added module of ``part``."""
        added = part._modules[self.child]
        half = first_half(rest)
        own = next(added.parameters(), None)  # type: ignore[union-attr]
        if half is None or casts_itself(half) or own is None or own.dtype in HALF:
            return self.function(added, *rest)
        return narrowed(self.function(added, *widened(rest)), rest[-1])


class Inserted(PEMethod):
    """A method whose θ_a is in the modules that it inserts, each as the child ``child`` of a part of the backbone."""

    @property
    @abstractmethod
    def child(self) -> str:
        """Name of the added modules; it begins with ``pemeta_``."""

    @property
    def mergeable(self) -> bool:
        """False, unless the method implements it."""
        return False

    @abstractmethod
    def insertions(self, backbone: nn.Module) -> Sequence[Insertion]:
        """The modules to insert, and where.

        Raises:
            ModelError: the backbone lacks a part that the method acts on.
        """

    def unsupported(self, backbone: nn.Module) -> str | None:
        """The reason, if a part is missing or the backbone already has a module of this name."""
        try:
            self.insertions(backbone)
        except ModelError as error:
            return str(error)
        taken = [name or "the backbone" for name, part in backbone.named_modules() if self.child in part._modules]
        if taken:
            return f"{taken[0]} already has a {self.child}; detach that method before attaching another of its kind"
        return None

    def attach(self, backbone: nn.Module) -> None:
        """Insert the modules, with the backbone's device and dtype; in float32 if that is half precision."""
        self.require(backbone)
        reference = next(backbone.parameters())
        dtype = wide_dtype(reference.dtype)
        for one in self.insertions(backbone):
            part = backbone.get_submodule(one.path)
            part.add_module(self.child, one.make().to(device=reference.device, dtype=dtype))
            if one.after is not None:
                part.register_forward_hook(Hook(self.child, one.after))
            if one.before is not None:
                part.register_forward_pre_hook(Hook(self.child, one.before))

    def detach(self, backbone: nn.Module) -> None:
        """Remove the modules and their hooks."""
        for part in list(self.parts(backbone)):
            delattr(part, self.child)
            for hooks in (part._forward_hooks, part._forward_pre_hooks):
                for key in [key for key, hook in hooks.items() if getattr(hook, "child", None) == self.child]:
                    del hooks[key]

    def parts(self, backbone: nn.Module) -> Iterator[nn.Module]:
        """The parts of the backbone to which this method has added a module."""
        return (part for part in backbone.modules() if self.child in part._modules)

    def theta_a(self, backbone: nn.Module) -> tuple[str, ...]:
        """Names of all parameters of the inserted modules."""
        names = tuple(name for name, _ in backbone.named_parameters() if self.child in name.split("."))
        if not names:
            raise ModelError(f"{self.name} is not attached to this backbone; attach it first")
        return names
