"""Methods that add small modules inside the backbone: how these are put there, found again, and taken out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from pemeta.errors import ModelError
from pemeta.methods.base import PEMethod

Act = Callable[..., Any]


@dataclass(frozen=True)
class Insertion:
    """A module to add to one part of the backbone, and what it does there.

    Attributes:
        path: name, within the backbone, of the part; empty for the backbone itself.
        make: the new module; called once everything is known to fit.
        after: called with the added module, the part's positional arguments and its output; returns the new output.
        before: called with the added module and the part's positional arguments; returns new ones. Either is a
            function of a file, so that a model can be copied and pickled.
    """

    path: str
    make: Callable[[], nn.Module]
    after: Act | None = None
    before: Act | None = None


@dataclass(frozen=True)
class Hook:
    """A forward hook that reaches the added module through the part that it is called with.

    So a clone, which shares its original's hooks, acts with its own module.
    """

    child: str
    act: Act

    def __call__(self, part: nn.Module, *rest: Any) -> Any:
        """What PyTorch calls."""
        return self.act(part._modules[self.child], *rest)


class Inserted(PEMethod):
    """A method whose θ_a is in modules that it inserts, each as the child ``child`` of some part of the backbone."""

    @property
    @abstractmethod
    def child(self) -> str:
        """Name of the added modules; it begins with ``pemeta_``."""

    @property
    def mergeable(self) -> bool:
        """Not, unless the method says how."""
        return False

    @abstractmethod
    def insertions(self, backbone: nn.Module) -> Sequence[Insertion]:
        """What to insert, and where.

        Raises:
            ModelError: the backbone lacks what the method acts on.
        """

    def unsupported(self, backbone: nn.Module) -> str | None:
        """That a part is missing, or that such a module is somewhere already: the name tells them apart."""
        try:
            self.insertions(backbone)
        except ModelError as error:
            return str(error)
        taken = [name or "the backbone" for name, part in backbone.named_modules() if self.child in part._modules]
        if taken:
            return f"{taken[0]} has a {self.child} already; detach that method before attaching another of its kind"
        return None

    def attach(self, backbone: nn.Module) -> None:
        """Insert the modules, on the device and in the type of the backbone."""
        self.require(backbone)
        reference = next(backbone.parameters())
        for one in self.insertions(backbone):
            part = backbone.get_submodule(one.path)
            part.add_module(self.child, one.make().to(device=reference.device, dtype=reference.dtype))
            if one.after is not None:
                part.register_forward_hook(Hook(self.child, one.after))
            if one.before is not None:
                part.register_forward_pre_hook(Hook(self.child, one.before))

    def detach(self, backbone: nn.Module) -> None:
        """Take the modules and their hooks out."""
        for part in list(self.parts(backbone)):
            delattr(part, self.child)
            for hooks in (part._forward_hooks, part._forward_pre_hooks):
                for key in [key for key, hook in hooks.items() if getattr(hook, "child", None) == self.child]:
                    del hooks[key]

    def parts(self, backbone: nn.Module) -> Iterator[nn.Module]:
        """The parts of the backbone that have a module of this method."""
        return (part for part in backbone.modules() if self.child in part._modules)

    def theta_a(self, backbone: nn.Module) -> tuple[str, ...]:
        """All parameters of the inserted modules."""
        names = tuple(name for name, _ in backbone.named_parameters() if self.child in name.split("."))
        if not names:
            raise ModelError(f"{self.name} is not attached to this backbone; attach it first")
        return names
