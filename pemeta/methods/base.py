"""The interface of parameter-efficient fine-tuning methods to the rest of the library."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any, ClassVar

import torch
from pydantic import PlainSerializer, PlainValidator
from torch import Tensor, nn
from typing_extensions import Self

from pemeta.backbone.architectures import first_layer
from pemeta.backbone.maps import is_added as is_added
from pemeta.errors import ModelError
from pemeta.typing import State
from pemeta.utils.registry import Named


class PEMethod(Named):
    """A parameter-efficient fine-tuning method, which declares θ_a and adds the modules that hold it, if any.

    A method is a frozen description, compared by value; the modules that it adds live in the backbone that it is
    attached to, under names that begin with ``pemeta_``. The rest of the library does not depend on the kind of
    method: the learner, the outer loop and fine-tuning only see the names that :meth:`theta_a` returns.

    To add a method, write one file in ``pemeta/methods/`` with a subclass that sets ``name`` and
    ``paper``, import it in ``pemeta/methods/__init__.py``, and give it a row in the tests.
    """

    kind: ClassVar[str] = "PE method"
    paper: ClassVar[str]
    """The method's source, as (Author, year) and title."""

    @property
    def output_only(self) -> bool:
        """Whether θ_a acts only on the backbone's last hidden states, which then do not change when θ_a does."""
        return False

    def first_layer(self, backbone: nn.Module) -> int:
        """Index of the first layer that θ_a affects; the outputs of the layers below do not change when θ_a does.

        The index is found from the names of θ_a, i.e. from where its parameters are registered. A method whose θ_a
        also acts elsewhere, through a hook on another part, overrides this and returns zero; a model refuses to skip
        layers that depend on θ_a. Zero if θ_a is outside of the layers, or the architecture is unknown.

        Args:
            backbone: a backbone to which the method is attached.
        """
        return first_layer(backbone, self.theta_a(backbone))

    @property
    def by_example(self) -> bool:
        """Whether the modules that hold θ_a treat each example of a batch by itself, so that tasks can share a pass.

        ``batch_tasks`` then runs all tasks of a meta-batch at once: such a module is called with the examples of all
        tasks behind each other, and each task's go through it with the task's own values. A module that is called
        without examples, as one that holds a prefix, returns its result for each task, along a new first dimension.
        That this changes nothing is tried on first use. False: tasks run one after the other.
        """
        return False

    @property
    def adapts_output(self) -> bool:
        """Whether θ_a includes what a language model has behind its backbone, such as an untied output matrix."""
        return False

    @property
    def identity_at_start(self) -> bool:
        """Whether the backbone's output is exactly the same with the newly attached method as without it."""
        return True

    def unsupported(self, backbone: nn.Module) -> str | None:
        """The reason why the method cannot work on a backbone, as a sentence with the remedy; None if it can."""
        return None

    def attach(self, backbone: nn.Module) -> None:
        """Add the modules that hold θ_a; the backbone's own names and values do not change.

        A method without modules of its own adds nothing. New parameters are drawn from PyTorch's global
        generator, so seed it first.

        Raises:
            ModelError: the method cannot work on this backbone, or is already attached; the backbone is then
                unchanged.
        """
        self.require(backbone)

    def require(self, backbone: nn.Module) -> None:
        """Raise an error if :meth:`unsupported` gives a reason.

        Raises:
            ModelError: the method cannot work on this backbone.
        """
        reason = self.unsupported(backbone)
        if reason is not None:
            raise ModelError(f"{self.name} cannot be attached to {type(backbone).__name__}: {reason}")

    def detach(self, backbone: nn.Module) -> None:
        """Undo :meth:`attach`, so that the backbone computes exactly what it did before."""

    def transform(self, backbone: nn.Module, hidden: Tensor) -> Tensor:
        """Transform the backbone's last hidden states (B, T, D); by default, return them unchanged.

        Access θ_a through ``backbone`` in each call: in the inner loop it has a clone's values for a pass.
        """
        return hidden

    def inner_passes(self, backbone: nn.Module) -> AbstractContextManager[None]:
        """A block for the passes of an inner loop, which a method may run with fewer operations where θ_p is constant.

        By default, passes stay what they are. What a pass gives must not depend on the block, but for rounding.
        """
        return nullcontext()

    @abstractmethod
    def theta_a(self, backbone: nn.Module) -> tuple[str, ...]:
        """Names, within the backbone, of the parameters that the method adapts.

        Args:
            backbone: a backbone to which this method, and possibly others, are attached.
        """

    @property
    def adds_modules(self) -> bool:
        """Whether the method adds modules; two such methods on one part act in the order of attachment."""
        return type(self).attach is not PEMethod.attach

    @property
    def extra_positions(self) -> int:
        """Number of positions that θ_a takes up, by which a sequence must be shorter."""
        return 0

    @property
    def mergeable(self) -> bool:
        """Whether θ_a can be folded into the backbone's own parameters; true by default, for a θ_a among them."""
        return True

    def merge(self, backbone: nn.Module) -> None:
        """Fold θ_a into the backbone's own parameters, and detach; the outputs do not change.

        Raises:
            ModelError: the method cannot be expressed by the backbone's own parameters.
        """
        if not self.mergeable:
            raise ModelError(
                f"{self.name} cannot be merged into the backbone's own parameters; save the task's folder instead"
            )

    def peft_config(self, backbone: nn.Module) -> dict[str, Any] | None:
        """The content of the ``peft`` package's ``adapter_config.json`` for this method; None if PEFT has no equal."""
        return None

    def peft_names(self, backbone: nn.Module) -> dict[str, str]:
        """Mapping from the name of each parameter of θ_a to its name in PEFT's files, both within the backbone."""
        return {}

    def load_peft(self, backbone: nn.Module, values: State) -> State:
        """Load the values in PEFT's files, by their names within the backbone, and return those that are not θ_a's.

        Raises:
            ModelError: a parameter of θ_a is missing or has another shape; the message begins with the verb, since it
                is the file's fault. Some values may be loaded already.
        """
        ours, rest = {theirs: name for name, theirs in self.peft_names(backbone).items()}, dict(values)
        missing = sorted(ours.keys() - rest.keys())
        if missing:
            raise ModelError(f"lacks {len(missing)} of the adapter's parameters, e.g. {missing[0]}")
        with torch.no_grad():
            for theirs, name in ours.items():
                parameter, value = backbone.get_parameter(name), rest.pop(theirs)
                # Apart from dimensions of 1, which IA³'s factors have in PEFT.
                if [size for size in value.shape if size > 1] != [size for size in parameter.shape if size > 1]:
                    raise ModelError(f"has {theirs} of shape {list(value.shape)}, not {list(parameter.shape)}")
                parameter.copy_(value.reshape(parameter.shape))
        return rest

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], backbone: nn.Module) -> Self | None:
        """The method that an ``adapter_config.json`` describes; None if it describes another kind.

        Raises:
            ModelError: it is of this kind, but has a setting that the method cannot represent.
        """
        return None


AnyMethod = Annotated[PEMethod, PlainValidator(PEMethod.parse), PlainSerializer(lambda method: method.to_config())]
"""A PE method in a configuration: a name, or a mapping with the key ``name``."""
