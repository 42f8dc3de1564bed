"""What a parameter-efficient fine-tuning method is to the rest of the library."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from pemeta.registry import Named


class PEMethod(Named):
    """A parameter-efficient fine-tuning method: it declares θ_a, and adds the modules that hold it if it needs any.

    A method is a frozen description, compared by value; what it adds lives in the backbone that it is
    attached to. Nothing else in the library asks which method it has: the learner, the outer loop and
    fine-tuning see the names that :meth:`theta_a` returns.

    To add a method, write one file in ``pemeta/methods/`` with a subclass that sets ``name`` and
    ``paper``, import it in ``pemeta/methods/__init__.py``, and give it a row in the tests.
    """

    kind: ClassVar[str] = "PE method"
    paper: ClassVar[str]
    """The method's source, as (Author, year) and title."""
    output_only: ClassVar[bool] = False
    """Whether θ_a acts on the backbone's last hidden states only, so that these stay when θ_a moves."""

    def attach(self, backbone: nn.Module) -> None:
        """Add the modules that hold θ_a; the backbone's own names and values stay as they are.

        A method without modules of its own adds nothing. New parameters are drawn from PyTorch's global
        generator, so seed it first.

        Raises:
            ModelError: the backbone lacks what the method acts on, or has the method already.
        """

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
