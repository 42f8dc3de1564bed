"""The state of a priming run between two outer steps, in one safetensors file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pemeta.errors import OutputError
from pemeta.files import read_tensors, write_tensors
from pemeta.model import PEModel
from pemeta.optimization import Optimization
from pemeta.seeding import generator_states, restore_generators
from pemeta.typing import State


def save_checkpoint(path: Path, model: PEModel, optimization: Optimization, about: dict[str, Any]) -> None:
    """Save parameters, optimiser, schedule and random generators, and ``about`` (a JSON value) beside them.

    Raises:
        OutputError: the file cannot be written; the last checkpoint is as it was.
    """
    tensors: State = {f"model.{name}": value for name, value in model.state().items()}
    for index, state in optimization.optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{index}.{key}": value.detach().cpu() for key, value in state.items()})
    tensors.update({f"random.{kind}": value for kind, value in generator_states(model.device).items()})
    groups = optimization.optimizer.state_dict()["param_groups"]
    scale = [optimization.scale.value, optimization.scale.good_steps]
    schedule = optimization.scheduler.state_dict()
    write_tensors(path, tensors, {**about, "groups": groups, "schedule": schedule, "loss_scale": scale})


def load_checkpoint(path: Path, model: PEModel, optimization: Optimization, digest: str) -> dict[str, Any]:
    """Restore what :func:`save_checkpoint` saved, and return its ``about``.

    Args:
        path: the file.
        model: what is restored.
        optimization: what is restored.
        digest: what ``about["digest"]`` must be; otherwise nothing is changed.

    Raises:
        OutputError: the file is not whole, or is of another run.
        ModelError: the model's parameters are others.
    """
    tensors, about = read_tensors(path)
    if not isinstance(about, dict) or about.get("digest") != digest:
        raise OutputError(f"{path} is of a run with other settings, data or backbone; remove it to start again")
    model.load_state({name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")})
    state: dict[int, State] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
    try:
        optimization.optimizer.load_state_dict({"state": state, "param_groups": about["groups"]})
        optimization.scheduler.load_state_dict(about["schedule"])
        optimization.scale.value, optimization.scale.good_steps = about["loss_scale"]
    except (KeyError, ValueError, TypeError) as error:
        raise OutputError(f"{path} is of another run ({error}); remove it to start again") from None
    random = {name.removeprefix("random."): t for name, t in tensors.items() if name.startswith("random.")}
    restore_generators(random, model.device)
    return dict(about)
