"""Several methods at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from pemeta.errors import ModelError
from pemeta.methods.base import AnyMethod, PEMethod


class Compose(PEMethod):
    """Several methods attached together, whose θ_a is the union of theirs.

    The mix-and-match adapter of He et al. (2022, §4.6) is a short prefix and a scaled parallel adapter::

        Compose(methods=[Prefix(length=30), Adapter(placement="parallel", bottleneck=512, scale=4)])

    Attributes:
        methods: two or more, in the order in which they are attached.

    >>> Compose(methods=["bitfit", {"name": "adapter", "bottleneck": 8}]).output_only
    False
    """

    name: ClassVar[str] = "compose"
    paper: ClassVar[str] = "He et al. (2022), Towards a Unified View of Parameter-Efficient Transfer Learning"

    methods: tuple[AnyMethod, ...] = Field(min_length=2)

    @property
    def output_only(self) -> bool:
        """True if it is for every member."""
        return all(method.output_only for method in self.methods)

    def first_layer(self, backbone: nn.Module) -> int:
        """The lowest layer of any member, not counting those that act on the output only."""
        inside = [method.first_layer(backbone) for method in self.methods if not method.output_only]
        return min(inside, default=0)

    @property
    def by_example(self) -> bool:
        """True if it is for every member."""
        return all(method.by_example for method in self.methods)

    @property
    def adapts_output(self) -> bool:
        """True if it is for any member."""
        return any(method.adapts_output for method in self.methods)

    @property
    def identity_at_start(self) -> bool:
        """True if it is for every member."""
        return all(method.identity_at_start for method in self.methods)

    @property
    def extra_positions(self) -> int:
        """The sum over all members."""
        return sum(method.extra_positions for method in self.methods)

    @property
    def adds_modules(self) -> bool:
        """True if any member adds modules."""
        return any(method.adds_modules for method in self.methods)

    @property
    def mergeable(self) -> bool:
        """True if all members are and at most one adds modules; with two on one map, their order would matter."""
        return sum(method.adds_modules for method in self.methods) <= 1 and all(
            method.mergeable for method in self.methods
        )

    def unsupported(self, backbone: nn.Module) -> str | None:
        """The reason of the first member that has one."""
        reasons = ((method.name, method.unsupported(backbone)) for method in self.methods)
        return next((f"{name}: {reason}" for name, reason in reasons if reason is not None), None)

    def attach(self, backbone: nn.Module) -> None:
        """Attach all members; if one cannot be attached, detach the others again."""
        self.require(backbone)
        done: list[PEMethod] = []
        try:
            for method in self.methods:
                method.attach(backbone)
                done.append(method)
        except ModelError:
            for method in reversed(done):
                method.detach(backbone)
            raise

    def detach(self, backbone: nn.Module) -> None:
        """Detach all members, the last one first."""
        for method in reversed(self.methods):
            method.detach(backbone)

    def transform(self, backbone: nn.Module, hidden: Tensor) -> Tensor:
        """Apply the members' transforms in their order."""
        for method in self.methods:
            hidden = method.transform(backbone, hidden)
        return hidden

    @contextmanager
    def inner_passes(self, backbone: nn.Module) -> Iterator[None]:
        """Those of all members."""
        with ExitStack() as stack:
            for method in self.methods:
                stack.enter_context(method.inner_passes(backbone))
            yield

    def theta_a(self, backbone: nn.Module) -> tuple[str, ...]:
        """The union of the members' names, without duplicates."""
        return tuple(dict.fromkeys(name for method in self.methods for name in method.theta_a(backbone)))

    def merge(self, backbone: nn.Module) -> None:
        """Merge all members."""
        super().merge(backbone)
        for method in self.methods:
            method.merge(backbone)
