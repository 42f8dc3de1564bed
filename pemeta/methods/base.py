"""What a parameter-efficient fine-tuning method is to the rest of the library."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import PlainSerializer, PlainValidator
from torch import Tensor, nn
from typing_extensions import Self

from pemeta.backbone.architectures import first_layer
from pemeta.errors import ModelError
from pemeta.utils.registry import Named


class PEMethod(Named):
    """A parameter-efficient fine-tuning method: it declares θ_a, and adds the modules that hold it if it needs any.

    A method is a frozen description, compared by value; what it adds lives in the backbone that it is
    attached to, under names that begin with ``pemeta_``. Nothing else in the library asks which method it
    has: the learner, the outer loop and fine-tuning see the names that :meth:`theta_a` returns.

    To add a method, write one file in ``pemeta/methods/`` with a subclass that sets ``name`` and
    ``paper``, import it in ``pemeta/methods/__init__.py``, and give it a row in the tests.
    """

    kind: ClassVar[str] = "PE method"
    paper: ClassVar[str]
    """The method's source, as (Author, year) and title."""

    @property
    def output_only(self) -> bool:
        """Whether θ_a acts on the backbone's last hidden states only, so that these stay when θ_a moves."""
        return False

    def first_layer(self, backbone: nn.Module) -> int:
        """Index of the first layer that θ_a touches: the layers below give the same when θ_a moves.

        Found by the names of θ_a: by where it is registered. A method whose θ_a also acts elsewhere, through a hook on
        another part, overrides this and returns zero; a model refuses to leave out layers that depend on θ_a. Zero
        where θ_a is outside of the layers, or the architecture is not a known one.

        Args:
            backbone: a backbone to which the method is attached.
        """
        return first_layer(backbone, self.theta_a(backbone))

    @property
    def identity_at_start(self) -> bool:
        """Whether the backbone computes exactly the same with the method newly attached as without it."""
        return True

    def unsupported(self, backbone: nn.Module) -> str | None:
        """Why the method cannot work on a backbone, as a sentence with the remedy; None where it can."""
        return None

    def attach(self, backbone: nn.Module) -> None:
        """Add the modules that hold θ_a; the backbone's own names and values stay as they are.

        A method without modules of its own adds nothing. New parameters are drawn from PyTorch's global
        generator, so seed it first.

        Raises:
            ModelError: the method cannot work on this backbone, or the backbone has it already; then nothing
                was changed.
        """
        self.require(backbone)

    def require(self, backbone: nn.Module) -> None:
        """Raise what :meth:`unsupported` says, where it says something.

        Raises:
            ModelError: the method cannot work on this backbone.
        """
        reason = self.unsupported(backbone)
        if reason is not None:
            raise ModelError(f"{self.name} cannot be attached to {type(backbone).__name__}: {reason}")

    def detach(self, backbone: nn.Module) -> None:
        """Undo :meth:`attach`: the backbone computes exactly what it did before."""

    def transform(self, backbone: nn.Module, hidden: Tensor) -> Tensor:
        """What the method does to the backbone's last hidden states (B, T, D); by default nothing.

        Reach θ_a through ``backbone``: the inner loop passes a clone, with its own θ_a.
        """
        return hidden

    @abstractmethod
    def theta_a(self, backbone: nn.Module) -> tuple[str, ...]:
        """Names, within the backbone, of the parameters that the method adapts.

        Args:
            backbone: a backbone to which this method, and perhaps others, are attached.
        """

    @property
    def adds_modules(self) -> bool:
        """Whether θ_a is in modules of its own; two such methods on one part act in the order of attachment."""
        return type(self).attach is not PEMethod.attach

    @property
    def extra_positions(self) -> int:
        """Positions that θ_a takes up, and that a sequence has no more."""
        return 0

    @property
    def mergeable(self) -> bool:
        """Whether the backbone's own parameters can take θ_a up; so where θ_a is among them, by default."""
        return True

    def merge(self, backbone: nn.Module) -> None:
        """Fold θ_a into the backbone's own parameters, and detach: the outputs stay as they are.

        Raises:
            ModelError: the method adds what no parameter of the backbone can take up.
        """
        if not self.mergeable:
            raise ModelError(
                f"{self.name} cannot be merged into the backbone's own parameters; save the task's folder instead"
            )

    def peft_config(self, backbone: nn.Module) -> dict[str, Any] | None:
        """What the ``peft`` package's ``adapter_config.json`` would say of this method; None where it has no such."""
        return None

    def peft_names(self, backbone: nn.Module) -> dict[str, str]:
        """Name of each parameter of θ_a to its name in PEFT's files, both within the backbone."""
        return {}

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], backbone: nn.Module) -> Self | None:
        """The method that an ``adapter_config.json`` describes; None where that is of another kind.

        Raises:
            ModelError: it is of this kind, but says something that the method cannot represent.
        """
        return None


def is_added(name: str) -> bool:
    """Whether a parameter's name is of a module that a method added, and not the backbone's own.

    >>> is_added("encoder.layer.0.output.pemeta_adapter.up.weight"), is_added("encoder.layer.0.output.dense.bias")
    (True, False)
    """
    return any(part.startswith("pemeta_") for part in name.split("."))


AnyMethod = Annotated[PEMethod, PlainValidator(PEMethod.parse), PlainSerializer(lambda method: method.to_config())]
"""A PE method in a configuration: by name, or as a mapping with the key ``name``."""
