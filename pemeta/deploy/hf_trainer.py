"""Training a model's task with ``transformers.Trainer``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import GenerationConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils.generic import ModelOutput

from pemeta.errors import ModelError
from pemeta.heads import CausalLMHead
from pemeta.model.generation import generate
from pemeta.model.given import require_model
from pemeta.model.pe_model import PEModel
from pemeta.utils.modules import parameter_dict, parts_with
from pemeta.utils.precision import HALF
from pemeta.utils.signatures import checked


@dataclass
class TaskOutput(ModelOutput):
    """Output of :class:`TaskModel`: the logits, and the loss if labels were given."""

    loss: Tensor | None = None
    logits: Tensor | None = None


class _Keys(NamedTuple):
    """Return value of ``load_state_dict``, like PyTorch's."""

    missing_keys: list[str]
    unexpected_keys: list[str]


@checked(model=None)
class TaskModel(nn.Module):
    """One task of a :class:`~pemeta.PEModel` as a module with the arguments and the output of transformers' models.

    Only θ_a and the task's head require gradients, until :meth:`release` is called. A checkpoint contains only these,
    so it is as small as a saved task; resuming requires the same primed model.

    Args:
        model: a model with a head for the task; it is trained in place.
        task: name of the task.

    Attributes:
        generation_config: defaults of :meth:`generate`.

    Raises:
        ModelError: the task has no head, or θ_a is in half precision, where Trainer's optimiser loses most updates.
    """

    _keys_to_ignore_on_save = None  # Trainer reads it

    def __init__(self, model: PEModel, task: str) -> None:
        super().__init__()
        require_model(model, "TaskModel")
        self.model = model
        self.task = task
        self.accepts_loss_kwargs = False  # the loss is already a mean; Trainer divides by its accumulation steps
        self.generation_config = GenerationConfig.from_model_config(model.backbone.config)
        self._names = model.stored_names(task)
        self._before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        _refuse_half_precision(model, self._names)
        self._cached = getattr(model.backbone.config, "use_cache", None)  # Trainer turns it off
        self._checkpointed = self.is_activation_checkpointing
        trained = set(self._names)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trained)

    def _get_name(self) -> str:
        """The class's name; for a language model that of transformers' class, by which Trainer shifts the labels."""
        if isinstance(self.model.head(self.task), CausalLMHead):
            return str(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(self.config.model_type, "GPT2LMHeadModel"))
        return type(self).__name__

    @property
    def config(self) -> Any:
        """The backbone's configuration, which transformers' data collators and callbacks read."""
        return self.model.backbone.config

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the backbone's parameters."""
        return next(self.model.backbone.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return self.model.device

    @property
    def main_input_name(self) -> str:
        """Name of the backbone's main input, by whose size Trainer counts tokens."""
        return str(getattr(self.model.backbone, "main_input_name", "input_ids"))

    @property
    def is_activation_checkpointing(self) -> bool:
        """Whether a layer's activations are computed again in the backward pass."""
        return any(getattr(part, "gradient_checkpointing", False) for part in self.model.backbone.modules())

    is_gradient_checkpointing = is_activation_checkpointing

    def get_input_embeddings(self) -> nn.Module:
        """The backbone's input embeddings, to which NEFTune adds noise."""
        named = self.model.backbone.get_input_embeddings()
        assert isinstance(named, nn.Module)
        weight = getattr(named, "weight", None)  # patches have none
        # T5 calls another part than it names.
        return named if weight is None else parts_with(self.model.backbone, weight)[-1]

    def get_output_embeddings(self) -> None:
        """Return None, because the head is no output embedding of transformers."""

    @checked()
    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Number of parameters, by which Trainer estimates the operations of a step.

        Args:
            only_trainable: count θ_a and the task's head only.
            exclude_embeddings: do not count the tables of embeddings.
        """
        tables = {part.weight for part in self.model.modules() if isinstance(part, nn.Embedding)}
        return sum(
            parameter.numel()
            for parameter in self.model.parameters()
            if (parameter.requires_grad or not only_trainable) and not (exclude_embeddings and parameter in tables)
        )

    @checked()
    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        """Recompute each layer in the backward pass, as ``PEModel.checkpoint_layers`` does.

        Args:
            activation_checkpointing_kwargs: of PyTorch's checkpointing; only ``use_reentrant=False`` is possible.
            options: every layer, without offloading, is all that is possible (``every_n_layers=1, offload=False``).

        Raises:
            ModelError: another kind of checkpointing is asked for, or the backbone's layers cannot be checkpointed.
        """
        usual = {"use_reentrant": False, "every_n_layers": 1, "offload": False}
        asked = {**(activation_checkpointing_kwargs or {}), **options}
        for name, value in asked.items():
            if name not in usual or value != usual[name]:
                raise ModelError(
                    f"pemeta recomputes every layer, without reentrance or offloading, but {name} is {value!r}; omit it"
                )
        try:
            self.model.checkpoint_layers()
        except ModelError:
            raise ModelError(
                f"{type(self.model.backbone).__name__} has no layers that can be checkpointed; leave "
                "gradient_checkpointing off"
            ) from None

    def activation_checkpointing_disable(self) -> None:
        """Turn recomputation off."""
        self.model.checkpoint_layers(False)

    @checked()
    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        """An earlier name of :meth:`activation_checkpointing_enable`."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, **options)

    def gradient_checkpointing_disable(self) -> None:
        """An earlier name of :meth:`activation_checkpointing_disable`."""
        self.activation_checkpointing_disable()

    def can_generate(self) -> bool:
        """Whether the task is a language model."""
        return isinstance(self.model.head(self.task), CausalLMHead)

    @checked()
    def generate(self, inputs: Tensor | None = None, **options: Any) -> Any:
        """Continue sequences, as transformers' ``generate`` does, with θ_a and the task's head.

        Args:
            inputs: token ids (B, T), or omit them and give ``input_ids``.
            options: all other arguments of transformers' ``generate``; ``labels`` are ignored.

        Raises:
            ModelError: the task is not a language model, or transformers' class for it computes other logits.
        """
        return generate(self.model, self.task, inputs, self.generation_config, options)

    @checked()
    def save_pretrained(self, folder: str | Path, **_: Any) -> None:
        """Write θ_a and the head as a task's folder, by :meth:`pemeta.PEModel.save_task`.

        Args:
            folder: the folder.
        """
        self.model.save_task(folder, self.task)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        input_features: Tensor | None = None,
        input_values: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> TaskOutput:
        """Compute logits, and the loss if labels are given; all inputs are as in the backbone's own ``forward``."""
        given = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "labels": labels,
            "token_type_ids": token_type_ids,
            "pixel_values": pixel_values,
            "input_features": input_features,
            "input_values": input_values,
            "position_ids": position_ids,
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
        """Return the model, with ``requires_grad``, caching and checkpointing as they were."""
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(self._before.get(name, True))
        if self._cached is not None:
            self.config.use_cache = self._cached
        if self.is_activation_checkpointing and not self._checkpointed:
            self.activation_checkpointing_disable()
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
