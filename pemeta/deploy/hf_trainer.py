"""Training a model's task with ``transformers.Trainer``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from pemeta.errors import ModelError
from pemeta.model.pe_model import PEModel
from pemeta.utils.modules import parameter_dict
from pemeta.utils.precision import HALF


@dataclass
class TaskOutput(ModelOutput):
    """Output of :class:`TaskModel`: the logits, and the loss if labels were given."""

    loss: Tensor | None = None
    logits: Tensor | None = None


class _Keys(NamedTuple):
    """Return value of ``load_state_dict``, like PyTorch's."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class TaskModel(nn.Module):
    """One task of a :class:`~pemeta.PEModel` as a module with the arguments and the output of transformers' models.

    Only θ_a and the task's head require gradients, until :meth:`release` is called. A checkpoint contains only these,
    so it is as small as a saved task; resuming requires the same primed model.

    Args:
        model: a model with a head for the task; it is trained in place.
        task: name of the task.

    Raises:
        ModelError: the task has no head, or θ_a is in half precision, where Trainer's optimiser loses most updates.
    """

    def __init__(self, model: PEModel, task: str) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.accepts_loss_kwargs = False  # the loss is already a mean; Trainer divides by its accumulation steps
        self._names = model.stored_names(task)
        self._before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        _refuse_half_precision(model, self._names)
        trained = set(self._names)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trained)

    @property
    def config(self) -> Any:
        """The backbone's configuration, which transformers' data collators and callbacks read."""
        return self.model.backbone.config

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
    ) -> TaskOutput:
        """Compute logits, and the loss if labels are given; all inputs are as in the backbone's own ``forward``."""
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
        """θ_a and the task's head, which are the content of Trainer's checkpoints.

        Args:
            destination: dictionary to fill and return, if this is part of another module.
            prefix: prefix of each name.
        """
        found = {} if destination is None else destination
        found.update({f"{prefix}model.{name}": self.model.get_parameter(name).detach() for name in self._names})
        return found

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load θ_a and the head from a result of :meth:`state_dict`.

        Raises:
            ModelError: its parameters are not exactly those of this task.
        """
        expected = {f"model.{name}" for name in self._names}
        if set(state_dict) != expected:
            odd = sorted(expected ^ set(state_dict))[0]
            raise ModelError(
                f"this checkpoint belongs to another task or method: {odd} is "
                f"{'missing from it' if odd in expected else 'not trained here'}"
            )
        self.model.load_state({name.removeprefix("model."): value for name, value in state_dict.items()})
        return _Keys([], [])

    def release(self) -> PEModel:
        """Return the model, with ``requires_grad`` of all parameters restored."""
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(self._before.get(name, True))
        return self.model


def _refuse_half_precision(model: PEModel, names: Sequence[str]) -> None:
    """Refuse to train parameters that are in half precision, of which this package's own loops keep float32 values."""
    half = next(((n, p.dtype) for n, p in parameter_dict(model, names).items() if p.dtype in HALF), None)
    if half is not None:
        raise ModelError(
            f"{half[0]} is a part of θ_a in {str(half[1]).removeprefix('torch.')}, in which Trainer's optimiser would "
            "lose most updates; load the backbone in float32 (Trainer computes in half precision with bf16=True), or "
            "use finetune"
        )
