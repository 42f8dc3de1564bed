"""What the ``peft`` package makes of an adapter that pemeta has just written."""

from __future__ import annotations

import copy
import warnings
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from pemeta.errors import ModelError, reason
from pemeta.model.model_files import without_methods
from pemeta.model.pe_model import PEModel
from pemeta.model.same_outputs import differ, example, same_draws
from pemeta.model.task_classes import Shell
from pemeta.utils.hub import quiet
from pemeta.utils.modules import modes_kept


def check_in_peft(
    model: PEModel, folder: Path, shell: Shell | None, head: nn.Linear | None, task: str | None, from_file: bool
) -> None:
    """Load an adapter with peft, if that is installed, into the class that users load, and compare its outputs.

    Args:
        model: the model whose θ_a was written; it shares its parameters with the class for the moment.
        folder: the adapter's folder.
        shell: the class; None for the backbone's own.
        head: the task's linear map.
        task: the task, if its head is part of what users load.
        from_file: whether the linear map was written, rather than being the class's own.

    Raises:
        ModelError: peft does not load all of it, or its outputs are others.
    """
    if find_spec("peft") is None:
        return
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        with (
            warnings.catch_warnings(record=True) as said,
            quiet(),
            torch.no_grad(),
            modes_kept(model),
            same_draws(model.device),
        ):
            warnings.simplefilter("always")
            model.eval()
            found = _difference(model, folder, shell, _emptied(head) if from_file else head, task)
    except ModelError:
        raise
    except Exception as error:  # PEFT raises nearly anything here
        raise ModelError(f"peft cannot load what was written ({reason(error)}); save the task with save_task") from None
    finally:
        for parameter, required in flags.items():  # PEFT freezes all that is not its own
            parameter.requires_grad_(required)
    lost = next((str(one.message) for one in said if "missing adapter keys" in str(one.message)), None)
    if lost is not None or found is not None:
        fault = "does not find all of θ_a" if found is None else f"computes other outputs (by up to {found:.2g})"
        name = type(model.backbone if shell is None else shell.model).__name__
        raise ModelError(f"peft {fault} after loading what was written into {name}; save the task with save_task")


def _emptied(head: nn.Linear | None) -> nn.Linear | None:
    """A linear map of zeros in the place of one, which peft has to fill from the file."""
    empty = copy.deepcopy(head)
    for parameter in () if empty is None else empty.parameters():
        parameter.data.zero_()
    return empty


def _difference(
    model: PEModel, folder: Path, shell: Shell | None, head: nn.Linear | None, task: str | None
) -> float | None:
    """The largest difference between the outputs here and in PEFT, if it is more than rounding."""
    from peft import PeftModel

    whole: nn.Module = without_methods(model)
    if shell is not None:
        whole = shell.fill(whole, getattr(shell.model, shell.head) if head is None else head)
    theirs = PeftModel.from_pretrained(whole, folder).eval()
    batch = example(model)
    if batch is None:
        return None
    inner = theirs.get_base_model()
    backbone = inner if shell is None else getattr(inner, shell.prefix)
    with same_draws(model.device):
        here = model.hidden_states(batch) if task is None else model(batch, task)
    with same_draws(model.device):
        there = backbone(**batch).last_hidden_state if task is None else theirs(**batch).logits
    return differ(here, there)
