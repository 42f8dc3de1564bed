"""Priming with θ_a and θ_h of each source task's own, which persist."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import ClassVar, Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn
from typing_extensions import Self

from pemeta.backbone.checks import refuse_unfaithful
from pemeta.errors import ConfigError
from pemeta.model.partition import Partition
from pemeta.model.pe_model import PEModel
from pemeta.priming.algorithms.finetune import FineTunePriming
from pemeta.priming.placing import find_places, placed
from pemeta.tasks.task import Task
from pemeta.utils.modules import parameter_dict
from pemeta.utils.precision import wide

OWN = "theta_a"
"""Name, in a task's head, of the list of the task's own θ_a."""


class PersistentPriming(FineTunePriming):
    """Priming with a θ_a and a θ_h for each source task, which persist and are trained together with θ_p.

    There is no inner loop and no reset: one optimiser moves θ_p by the gradients of all tasks, and each task's own θ_a
    and θ_h by those of that task (Block et al., 2025). What fine-tuning starts from is θ_p*, and a θ_a that depends on
    ``start``.

    Attributes:
        start: θ_a before priming (``fresh``), as Block et al. fine-tune, or the ``mean`` of the tasks' θ_a. The mean of
            factors, such as LoRA's, is not the factors of the mean. Fresh, our choice: it was ahead in first runs on
            WikiAnn.
        primes: what the outer gradient moves besides the tasks' θ_a and θ_h, which it always does: ``theta_p``, or
            patterns of names for a part of it.
    """

    name: ClassVar[str] = "persistent"
    paper: ClassVar[str] = "Block, Collins, Mokhtari and Shakkottai (2025)"

    start: Literal["fresh", "mean"] = "fresh"

    @model_validator(mode="after")
    def _leaves_something(self) -> Self:
        if self.start == "fresh" and not set(self.primes) - {"theta_a", "theta_h"}:
            raise ValueError(
                "start: fresh keeps nothing of the tasks' θ_a, and primes lists no part of θ_p, so that priming would "
                "change nothing; set start: mean, or add theta_p to primes"
            )
        return self

    def make_heads(self, model: PEModel, tasks: Sequence[Task], seed: int) -> None:
        """Give each source task a head, and in it a θ_a of its own, which begins as the model's.

        Raises:
            ConfigError: two tasks use one head, from an earlier priming.
            ModelError: the model would not compute with other values (accelerate hooks, parameters over devices).
        """
        refuse_unfaithful(model)
        super().make_heads(model, tasks, seed)
        first: dict[str, str] = {}
        for task in tasks:
            if (owner := first.setdefault(model.head_prefix(task.name), task.name)) != task.name:
                raise ConfigError(
                    f"persistent priming trains a head for each source task, but {task.name!r} uses that of {owner!r}; "
                    f"remove it with drop_head({task.name!r}) before"
                )
        shared = parameter_dict(model, model.partition().theta_a).values()
        for task in tasks:
            head = model.head(task.name)
            if not hasattr(head, OWN):
                setattr(head, OWN, nn.ParameterList([wide(p.detach().clone()) for p in shared]))

    def conclude(self, model: PEModel) -> None:
        """Set θ_a to the mean of the tasks' own, if fine-tuning is to start from it."""
        if self.start == "fresh":
            return
        own = [_own(model, task) for task in model.tasks if hasattr(model.head(task), OWN)]
        shared = parameter_dict(model, model.partition().theta_a).values()
        with torch.no_grad():
            for parameter, values in zip(shared, zip(*own, strict=True), strict=True):
                parameter.copy_(torch.stack(values).mean(0))

    def release(self, model: PEModel) -> None:
        """Remove the tasks' own θ_a."""
        for task in model.tasks:
            if hasattr(model.head(task), OWN):
                delattr(model.head(task), OWN)

    def trained(self, model: PEModel) -> tuple[str, ...]:
        """Names of what ``primes`` lists of θ_p, and of all tasks' own θ_a and θ_h."""
        theta_a = set(model.partition().theta_a)
        return tuple(name for name in super().trained(model) if name not in theta_a)

    def tensors_of(self, model: PEModel, names: Sequence[str]) -> Mapping[str, Sequence[Tensor]]:
        """The model's own, and for θ_a those of all tasks that have one of their own."""
        own = [_own(model, task) for task in model.tasks if hasattr(model.head(task), OWN)]
        of_tasks = dict(zip(model.partition().theta_a, zip(*own, strict=True), strict=True))
        return {name: of_tasks.get(name, values) for name, values in super().tensors_of(model, names).items()}

    @property
    def grows_with_sources(self) -> bool:
        """True, because each source task has its own θ_a."""
        return True

    def _model_wide(self, parts: Partition) -> tuple[str, ...]:
        """θ_p: each task has its own θ_a."""
        return parts.theta_p

    def _values(self, model: PEModel, parts: Partition) -> Callable[[str], AbstractContextManager[None]]:
        """For a task's name its own θ_a, put in place of the model's."""
        places = find_places(model, parts.theta_a)

        def own(task: str) -> AbstractContextManager[None]:
            values = dict(zip(parts.theta_a, _own(model, task), strict=True))
            return placed(model, self, places, values)

        return own


def _own(model: PEModel, task: str) -> list[Tensor]:
    return list(getattr(model.head(task), OWN))
