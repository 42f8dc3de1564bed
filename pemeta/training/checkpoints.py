"""The state of a training run between two steps, in safetensors files of which the last two are kept."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from pemeta.errors import OutputError, excerpt, reason
from pemeta.training.optimizer import Optimization
from pemeta.typing import State
from pemeta.utils.files import read_tensors, remove, unwritable, write_tensors
from pemeta.utils.seeding import generator_states, restore_generators

SLOW = 1.0
"""Seconds that saving may take before states are saved less often than they could be."""
SHARE = 20
"""A slow state is saved only after training for this many times as long as saving takes, which costs 5 %."""


class Checkpoint:
    """The files that a training run saves its state to and continues from.

    ``path`` holds the last state, and the file ``previous`` beside it the one before, which is used if the last one
    is incomplete or damaged.

    Args:
        path: A safetensors file.
        identity: A JSON mapping of everything that must not change between a state and its continuation.
        device: The device whose random generators belong to the state.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], device: torch.device) -> None:
        self.path = path
        self.previous = previous_of(path)
        self.identity = json.loads(json.dumps(identity))
        self.device = device
        self._damaged = False  # the last state: it must not take the place of the one before
        self._took = 0.0
        self._saved = time.monotonic()

    def due(self, step: int, every: int) -> bool:
        """Whether a state is to be saved after a step: each ``every`` steps, or less often where that takes long."""
        waited = time.monotonic() - self._saved
        return step % every == 0 and (self._took < SLOW or waited > SHARE * self._took)

    def save(self, tensors: State, optimization: Optimization, about: Mapping[str, Any]) -> None:
        """Save values, optimiser, schedule, loss scale and random generators, and ``about`` (a JSON value) beside them.

        Raises:
            OutputError: the file cannot be written; the state before is there.
        """
        begun = time.monotonic()
        whole: State = {f"value.{name}": value for name, value in tensors.items()}
        for index, state in optimization.optimizer.moments().items():
            whole.update({f"optimizer.{index}.{key}": value for key, value in state.items()})
        masters = optimization.optimizer.master_values()
        whole.update({f"master.{place}": value.cpu() for place, value in masters.items()})
        whole.update({f"random.{kind}": value for kind, value in generator_states(self.device).items()})
        beside = {
            "identity": self.identity,
            "about": about,
            "groups": optimization.groups(),
            "schedule": optimization.scheduler.state_dict(),
            "loss_scale": [optimization.scale.value, optimization.scale.good_steps],
        }
        try:
            if self.path.exists() and not self._damaged:
                self.path.replace(self.previous)
        except OSError as error:
            raise unwritable(self.path, error) from None
        write_tensors(self.path, whole, beside)
        self._damaged = False
        self._saved = time.monotonic()
        self._took = self._saved - begun

    def load(self, optimization: Optimization) -> tuple[State, Any] | None:
        """Restore all but the values, which are given back with what was saved beside them; None without a state.

        Raises:
            OutputError: no state can be read, or it is of another run; nothing is changed.
        """
        broken: list[OutputError] = []
        for path in (self.path, self.previous):
            if not path.exists():
                continue
            try:
                tensors, beside = read_tensors(path)
            except OutputError as error:
                broken.append(error)
                self._damaged |= path == self.path
                continue
            self._check_identity(path, beside)
            if broken:
                tqdm.write(f"{str(broken[0]).partition(';')[0]}; going on from the state before it", file=sys.stderr)
            try:
                return self._restore(tensors, beside, optimization), beside["about"]
            except (LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
                raise OutputError(f"cannot continue from {path}: {reason(error)}; remove it to start again") from None
        if broken:
            raise broken[0]
        return None

    def _check_identity(self, path: Path, beside: Any) -> None:
        before = beside.get("identity") if isinstance(beside, dict) else None
        if not isinstance(before, dict):
            raise OutputError(f"{path} is not a checkpoint of this version; remove it to start again")
        found = [
            f"{name} was {excerpt(was)} and is {excerpt(now)} now"
            for name, was, now in differences(before, self.identity)
        ]
        if found:
            more = f" (and {len(found) - 2} more)" if len(found) > 2 else ""
            raise OutputError(
                f"cannot continue from {path}, because the run has changed: {', '.join(found[:2])}{more}; put that "
                "back, or remove the file to start again"
            )

    def _restore(self, tensors: State, beside: Mapping[str, Any], optimization: Optimization) -> State:
        state: dict[int, State] = {}
        for name, value in _under("optimizer", tensors).items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = value
        optimization.load_moments(state, beside["groups"])
        optimization.optimizer.load_master_values(_under("master", tensors))
        optimization.scheduler.load_state_dict(beside["schedule"])
        optimization.scale.value, optimization.scale.good_steps = beside["loss_scale"]
        restore_generators(_under("random", tensors), self.device)
        return _under("value", tensors)

    def remove(self) -> None:
        """Remove what was saved, because what came of the run is."""
        remove_checkpoint(self.path)


def previous_of(path: Path) -> Path:
    """Where the state before the last one is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def remove_checkpoint(path: Path) -> None:
    """Remove both states of a run, if they are there."""
    remove(path)
    remove(previous_of(path))


def differences(before: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two JSON values differ: dotted path, and both values, None where there is none.

    >>> list(differences({"seed": 1, "settings": {"lr": 0.1}}, {"seed": 1, "settings": {"lr": 0.2}}))
    [('settings.lr', 0.1, 0.2)]
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*before, *now]):
            yield from differences(before.get(key), now.get(key), f"{path}.{key}" if path else str(key))
    elif before != now:
        yield path, before, now


def prefixed(**parts: State) -> State:
    """Several states as one, their names behind the name of the part."""
    return {f"{part}.{name}": value for part, state in parts.items() for name, value in state.items()}


def unprefixed(values: State, *parts: str) -> dict[str, State]:
    """The inverse of :func:`prefixed`; a part that is missing is empty.

    Raises:
        ValueError: A name belongs to none of the parts.
    """
    for name in values:
        if name.partition(".")[0] not in parts:
            raise ValueError(f"{name} belongs to none of {', '.join(parts)}")
    return {part: _under(part, values) for part in parts}


def _under(part: str, tensors: State) -> State:
    return {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}
