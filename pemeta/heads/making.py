"""Making the head of a task from what a caller gives, which may be no head's description."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from pemeta.backbone.checks import refuse_running_statistics
from pemeta.errors import ModelError, article, excerpt
from pemeta.heads.base import Head, HeadSpec


def require_task_name(task: object) -> None:
    """Refuse what cannot name a task.

    Raises:
        ModelError: it is no text, or an empty one.
    """
    if not isinstance(task, str) or not task:
        raise ModelError(f"a task needs a name; found {'an empty one' if task == '' else excerpt(task)}")


def head_maker(make: Any) -> Callable[[int], Head]:
    """What makes a head for a width: a description, also as a configuration holds it, or a function.

    Raises:
        ConfigError: it is none of these, or a description with a wrong field.
    """
    if callable(make) and not (isinstance(make, type) and issubclass(make, HeadSpec)):
        return make  # type: ignore[no-any-return]
    return HeadSpec.parse(make)


def made_head(task: str, make: Callable[[int], Head], width: int) -> Head:
    """A new head for hidden states of a width.

    Raises:
        ModelError: the function does not return a head, or the head has batch normalisation.
    """
    head: Any = make(width)
    if isinstance(head, nn.Module):
        refuse_running_statistics(head)
    if not isinstance(head, Head):
        raise ModelError(
            f"the head of task {task!r} has to be a pemeta.Head, with a loss and predictions; the function returned "
            f"{article(type(head).__name__)}; let it return a subclass of pemeta.Head, or give a HeadSpec"
        )
    return head
