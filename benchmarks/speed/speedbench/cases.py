"""What is measured: a case is one contender on one setting; the cases of a race take turns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Case:
    """One contender on one setting.

    Attributes:
        contender: who; a key of ``speedbench.contenders.CONTENDERS``.
        shape: of the backbone.
        method: what the inner loop adapts; empty where there is none.
        first_order: take the inner gradients as constants.
        inner_steps: S.
        tasks: in the meta-batch.
        batch_tasks: pemeta passes all tasks through the trunk as one batch.
        optimizer: AdamW's step, and its state, belong to the step.
        sentences: in each support and each query set.
        tokens: in each sentence.
        epochs: of fine-tuning, where the contender fine-tunes.
        data: ``random`` tokens, all sentences equally long; or ``wikiann``, whose lengths vary, and other sentences in
            each round.
        padding: of pemeta's passes: ``padded``, as others have them, or ``packed``.
        bucket_by_length: fine-tune on batches of similar length.
    """

    contender: str
    shape: str = "MiniLM"
    method: str = "adapter"
    first_order: bool = True
    inner_steps: int = 5
    tasks: int = 2
    batch_tasks: bool = False
    optimizer: bool = False
    sentences: int = 8
    tokens: int = 32
    epochs: int = 0
    data: str = "random"
    padding: str = "padded"
    bucket_by_length: bool = False

    def on(self, **changes: Any) -> Case:
        """The same case but for these fields."""
        return replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """For a record."""
        return asdict(self)

    @property
    def words(self) -> str:
        """What sets the case apart, for a line on the terminal."""
        parts = [self.contender, *filter(None, [self.method])]
        parts += [] if self.first_order else ["second order"]
        parts += [f"S={self.inner_steps}"] if self.inner_steps != 5 else []
        parts += [f"{self.tasks} task{'s' * (self.tasks > 1)}"] if self.tasks != 2 else []
        parts += ["batched"] if self.batch_tasks else []
        parts += ["AdamW"] if self.optimizer else []
        parts += [self.padding] if self.padding != "padded" else []
        parts += ["batches by length"] if self.bucket_by_length else []
        parts += [f"{self.epochs} epoch{'s' * (self.epochs > 1)}"] if self.epochs else []
        return ", ".join(parts)


@dataclass(frozen=True)
class Race:
    """Cases that take turns, so that the machine's drift hits all alike; numbers compare within a race.

    Attributes:
        name: unique in its group.
        cases: each gets a process of its own.
        rounds: timed steps of each case, after one that is not.
        needs_gib: free memory below which the race is left out.
        trials: further steps of packed cases that are not timed, in which rows of each size are tried once.
    """

    name: str
    cases: tuple[Case, ...]
    rounds: int
    needs_gib: float = 2.0
    trials: int = 0


@dataclass(frozen=True)
class Group:
    """Races that answer one question and share a record.

    Attributes:
        name: of the record's file, and for ``--only``.
        title: for people.
        races: run one after the other.
    """

    name: str
    title: str
    races: tuple[Race, ...]


def each(case: Case, contenders: str, **changes: Any) -> Iterator[Case]:
    """The case for each contender in a list of names with commas between."""
    for contender in contenders.split(","):
        yield case.on(contender=contender.strip(), **changes)
