"""What a task's head starts from in fine-tuning: newly drawn values, or those of a head that priming has left."""

from __future__ import annotations

from typing import Literal

from pemeta.errors import ConfigError, ModelError
from pemeta.heads import HeadSpec
from pemeta.model.pe_model import PEModel
from pemeta.tasks.task import Task
from pemeta.typing import State


def give_head(model: PEModel, task: Task, start: Literal["new", "primed"], seed: int) -> None:
    """Give a task its head for fine-tuning, in place of one of the same name.

    Raises:
        ConfigError: ``start`` is ``primed``, and the model has no head, or several, that it could mean; or fine-tuning
            would change nothing.
    """
    primed = _primed_values(model, task) if start == "primed" else State()
    model.add_head(task.name, task.make_head, seed)
    prefix = model.head_prefix(task.name)
    model.load_state({f"{prefix}.{name}": value for name, value in primed.items()})
    if not model.stored_names(task.name):
        raise ConfigError(
            f"fine-tuning changes nothing, because {model.method.name} leaves θ_a empty and the head of task "
            f"{task.name!r} has no parameters; choose a method with a θ_a, or a head with parameters (output='own' of "
            "a language model's)"
        )


def _primed_values(model: PEModel, task: Task) -> State:
    """The values of the head that equals the task's, by parameter name in the head.

    A head that several tasks share is preferred to those of one task, such as targets that were fine-tuned before.
    """
    if not isinstance(task.make_head, HeadSpec):
        raise ConfigError(
            f"head: primed needs to compare heads, but that of task {task.name!r} is made by a function; make it from "
            f"a HeadSpec ({', '.join(HeadSpec.members())}, or your own subclass), or set head: new"
        )
    alike: dict[str, list[str]] = {}
    for name in model.tasks:
        if _spec(model, name) == task.make_head:
            alike.setdefault(model.head_prefix(name), []).append(name)
    if not alike:
        raise ConfigError(
            f"head: primed needs a head with the labels of task {task.name!r}, but the model has none; prime with "
            "source_heads: shared on tasks with equal labels, or set head: new"
        )
    shared = {prefix: names for prefix, names in alike.items() if len(names) > 1}
    found = shared or alike
    if len(found) > 1:
        tasks = ", ".join(names[0] for names in found.values())
        raise ConfigError(
            f"head: primed needs one head with the labels of task {task.name!r}, but the model has several (of {tasks})"
            "; prime with source_heads: shared, remove all but one with drop_head, or set head: new"
        )
    ((prefix, names),) = found.items()
    return {key.removeprefix(f"{prefix}."): value for key, value in model.state(model.head_names(names[0])).items()}


def _spec(model: PEModel, task: str) -> HeadSpec | None:
    """The specification of a task's head; None if a function made it."""
    try:
        return model.head_spec(task)
    except ModelError:
        return None
