"""A task of a model in the shape that ``transformers.Trainer`` trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from pemeta.errors import ModelError
from pemeta.model.pe_model import PEModel


@dataclass
class TaskOutput(ModelOutput):
    """What :class:`TaskModel` returns: the loss where there are labels, and the logits."""

    loss: Tensor | None = None
    logits: Tensor | None = None


class _Keys(NamedTuple):
    """As PyTorch's ``load_state_dict`` returns it."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class TaskModel(nn.Module):
    """One task of a :class:`~pemeta.PEModel` as a module with the arguments and the output of transformers' models.

    Only θ_a and the task's head require gradients, until :meth:`release`. A checkpoint holds these alone, so
    it is as small as what a task stores; resuming needs the same primed model.

    Args:
        model: with a head for the task; it is trained in place.
        task: the task.

    Raises:
        ModelError: the task has no head.
    """

    def __init__(self, model: PEModel, task: str) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.accepts_loss_kwargs = False  # the loss is a mean already; Trainer divides by its accumulation steps
        self._names = model.stored_names(task)
        self._before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in set(self._names))

    @property
    def config(self) -> Any:
        """The backbone's configuration, which transformers' data collators and callbacks look at."""
        return self.model.backbone.config

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
    ) -> TaskOutput:
        """Logits, and the loss where there are labels; all inputs as in the backbone's own ``forward``."""
        given = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "labels": labels,
            "token_type_ids": token_type_ids,
            "pixel_values": pixel_values,
        }
        batch = {key: value for key, value in given.items() if value is not None}
        logits = self.model(batch, self.task)
        loss = None if labels is None else self.model.head(self.task).loss(logits, batch)
        return TaskOutput(loss=loss, logits=logits)

    def state_dict(  # type: ignore[override]
        self, *_: Any, destination: dict[str, Any] | None = None, prefix: str = "", **__: Any
    ) -> dict[str, Any]:
        """θ_a and the task's head, which is what a checkpoint of Trainer holds.

        Args:
            destination: filled and returned, where this is a part of another module.
            prefix: put before each name.
        """
        found = {} if destination is None else destination
        found.update({f"{prefix}model.{name}": self.model.get_parameter(name).detach() for name in self._names})
        return found

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Copy θ_a and the head from what :meth:`state_dict` gave.

        Raises:
            ModelError: these are other parameters.
        """
        expected = {f"model.{name}" for name in self._names}
        if set(state_dict) != expected:
            odd = sorted(expected ^ set(state_dict))[0]
            raise ModelError(
                f"this checkpoint is of another task or method: {odd} is "
                f"{'missing from it' if odd in expected else 'not among what is trained here'}"
            )
        self.model.load_state({name.removeprefix("model."): value for name, value in state_dict.items()})
        return _Keys([], [])

    def release(self) -> PEModel:
        """The model, with all parameters requiring gradients as they did before."""
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(self._before.get(name, True))
        return self.model
