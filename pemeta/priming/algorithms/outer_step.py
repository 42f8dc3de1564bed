"""What an outer step is told, gives back, and does for each of its episodes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from pemeta.model.pe_model import PEModel
from pemeta.tasks.episodes import Episode
from pemeta.utils.seeding import derive_seed, generators_kept, seed_generators


@dataclass(frozen=True)
class StepLosses:
    """Mean losses over the tasks of one outer step.

    Attributes:
        inner: loss on the support sets at each inner step, before that step's update.
        outer: loss whose gradient is the outer gradient.
    """

    inner: tuple[float, ...]
    outer: float


@dataclass(frozen=True)
class OuterStep:
    """What an algorithm is told about the outer step whose gradient it takes.

    Attributes:
        number: the step, counted from 0.
        loss_scale: factor on the outer gradient and on all inner gradients, against underflow in float16.
        optimizer: the outer optimiser; None if there is none yet.
    """

    number: int = 0
    loss_scale: float = 1.0
    optimizer: Optimizer | None = None


FIRST = OuterStep()


@dataclass(frozen=True)
class PhaseMemory:
    """How ``pemeta plan`` accounts for the memory of a phase.

    Attributes:
        listed: the phase has an entry of its own; otherwise it counts as part of what surrounds it.
        keeps: what the phase leaves behind is kept for the phases after it.
        cloned: the inner loop's clone is alive in the phase, and so is what earlier phases keep.
    """

    listed: bool = True
    keeps: bool = False
    cloned: bool = False


def own_generators(model: PEModel, episodes: Sequence[Episode]) -> AbstractContextManager[None]:
    """Reserve PyTorch's generators for seeded episodes within the block, and restore them after it."""
    seeded = any(episode.seed is not None for episode in episodes)
    return generators_kept(model.device) if seeded else nullcontext()


def seed_passes(model: PEModel, episode: Episode, *labels: str) -> None:
    """Seed the dropout of an episode's passes with the episode's own seed, if it has one."""
    if episode.seed is not None:
        seed_generators(derive_seed(episode.seed, *labels), model.device)


def total(parts: Sequence[Tensor]) -> Tensor:
    """The sum of the shares of a loss, unread."""
    return parts[0] if len(parts) == 1 else torch.stack(list(parts)).sum()


def mean(values: Sequence[float]) -> float:
    """The mean of some losses."""
    return sum(values) / len(values)
