"""Heads of source tasks: new ones for each episode, or one for all tasks with equal labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pemeta.errors import ConfigError
from pemeta.model.pe_model import PEModel
from pemeta.tasks.episodes import Episode
from pemeta.tasks.task import Task


def renew_heads(model: PEModel, episodes: Sequence[Episode], *, zero: bool) -> None:
    """Give the tasks of some episodes newly drawn heads, or heads of zeros."""
    for episode in episodes:
        task = episode.task
        seed = int(torch.randint(2**31, ())) if episode.seed is None else episode.seed
        model.add_head(task.name, task.make_head, seed)
        if zero:
            for parameter in model.head(task.name).parameters():
                nn.init.zeros_(parameter)


def share_heads(model: PEModel, tasks: Sequence[Task]) -> None:
    """Let all tasks with equal labels use the head of the first of them.

    Raises:
        ConfigError: no two tasks have equal labels.
    """
    first: dict[str, Task] = {}
    for task in tasks:
        # Heads that functions make may differ even if their shapes are equal.
        owner = first.setdefault(str(task.head_config or task.name), task)
        if owner is not task:
            model.share_head(task.name, owner.name)
    if len(first) == len(tasks) > 1:
        raise ConfigError(
            f"source_heads: shared needs tasks with equal labels, but all of {', '.join(task.name for task in tasks)} "
            "have different ones, or heads that functions make; set source_heads: carried"
        )
