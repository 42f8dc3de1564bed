"""What the ``peft`` package makes of an adapter that pemeta has just written."""

from __future__ import annotations

import re
import warnings
from importlib.util import find_spec
from pathlib import Path

import torch

from pemeta.deploy.adapter_class import AdapterClass
from pemeta.errors import ModelError, reason
from pemeta.model.model_files import without_methods
from pemeta.model.pe_model import PEModel
from pemeta.model.same_outputs import differ, example, of_tokens, same_draws
from pemeta.utils.hub import quiet
from pemeta.utils.modules import modes_kept

_ADAPTERS = re.compile(r"\.(lora|ia3)_")
"""In the names of θ_a in PEFT; of other missing names peft makes new values, as of a head to be trained."""


def check_in_peft(model: PEModel, folder: Path, target: AdapterClass, task: str | None) -> None:
    """Load an adapter with peft, if that is installed, into the class that users load, and compare its outputs.

    Args:
        model: the model whose θ_a was written; it shares its parameters with the class for the moment.
        folder: the adapter's folder.
        target: the class.
        task: the task, if its head is part of what users load.

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
            found = _difference(model, folder, target, task)
    except ModelError:
        raise
    except Exception as error:  # PEFT raises nearly anything here
        raise ModelError(f"peft cannot load what was written ({reason(error)}); save the task with save_task") from None
    finally:
        for parameter, required in flags.items():  # PEFT freezes all that is not its own
            parameter.requires_grad_(required)
    lost = next((text for text in map(_text, said) if "missing adapter keys" in text and _ADAPTERS.search(text)), None)
    if lost is not None or found is not None:
        fault = "does not find all of θ_a" if found is None else f"computes other outputs (by up to {found:.2g})"
        name = type(target.around(without_methods(model))).__name__
        raise ModelError(f"peft {fault} after loading what was written into {name}; save the task with save_task")


def _text(warning: warnings.WarningMessage) -> str:
    return str(warning.message)


def _difference(model: PEModel, folder: Path, target: AdapterClass, task: str | None) -> float | None:
    """The largest difference between the outputs here and in PEFT, if it is more than rounding."""
    from peft import PeftModel

    theirs = PeftModel.from_pretrained(target.around(without_methods(model)), folder).eval()
    batch = example(model)
    if batch is None:
        return None
    inner = theirs.get_base_model()
    backbone = getattr(inner, target.prefix) if target.prefix else inner
    with same_draws(model.device):
        here = model.hidden_states(batch) if task is None else model(batch, task)
    with same_draws(model.device):
        there = backbone(**batch).last_hidden_state if task is None else theirs(**batch).logits
    return differ(of_tokens(here, batch), of_tokens(there, batch))
