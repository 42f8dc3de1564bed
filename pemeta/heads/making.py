"""Making the head of a task from what a caller gives, which may be no head's description."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from pemeta.backbone.checks import refuse_running_statistics
from pemeta.errors import ConfigError, ModelError, article, excerpt, reason
from pemeta.heads.base import Head, HeadSpec


def require_task_name(task: object) -> None:
    """Refuse what cannot name a task.

    Raises:
        ModelError: it is no text, or an empty one.
    """
    if not isinstance(task, str) or not task:
        raise ModelError(f"a task needs a name; found {'an empty one' if isinstance(task, str) else excerpt(task)}")


def head_maker(make: Any) -> Callable[[int], Head]:
    """What makes a head for a width: a description, also as a configuration holds it, or a function.

    Raises:
        ConfigError: it is none of these, or a description with a wrong field.
    """
    if isinstance(make, nn.Module):
        raise ConfigError(
            "a head is made for a task, by a HeadSpec or a function of the width of the hidden states; found "
            f"{article(type(make).__name__)}; give what makes it: lambda width: {type(make).__name__}(width, ...)"
        )
    if callable(make) and not (isinstance(make, type) and issubclass(make, HeadSpec)):
        return make  # type: ignore[no-any-return]
    return HeadSpec.parse(make)


def made_head(task: str, make: Callable[[int], Head], width: int, backbone: nn.Module) -> Head:
    """A new head for hidden states of a width, those of a backbone.

    Raises:
        ConfigError: the function takes other arguments than the width.
        ModelError: it does not return a head, or the head has batch normalisation.
    """
    _check_signature(task, make)
    head: Any = make.on(backbone)(width) if isinstance(make, HeadSpec) else make(width)
    if isinstance(head, nn.Module):
        refuse_running_statistics(head)
    if not isinstance(head, Head):
        raise ModelError(
            f"the head of task {task!r} has to be a pemeta.Head, with a loss and predictions; the function returned "
            f"{article(type(head).__name__)}; let it return a subclass of pemeta.Head, or give a HeadSpec"
        )
    return head


def _check_signature(task: str, make: Callable[[int], Head]) -> None:
    try:
        inspect.signature(make).bind(0)
    except TypeError as error:
        name = getattr(make, "__name__", type(make).__name__)
        raise ConfigError(
            f"the head of task {task!r} is made with the width of the hidden states as the only argument, but {name} "
            f"cannot be called so ({reason(error)}); give a HeadSpec, or a function of the width"
        ) from None
    except ValueError:  # a function without a signature
        return
