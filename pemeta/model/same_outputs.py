"""Whether transformers' own model for a task computes the same outputs as the task here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pemeta.errors import ModelError, reason
from pemeta.model.pe_model import PEModel
from pemeta.model.task_classes import REMEDY
from pemeta.typing import Batch
from pemeta.utils.modules import modes_kept

TOLERANCE = {8: (1e-6, 1e-6), 4: (1e-4, 1e-4), 2: (0.1, 0.03)}
"""Difference between equal outputs that rounding explains, by the bytes of a number: anyhow, and as a share of the
largest output, since the logits of a language model are sums of large terms: small ones are off as large ones are.
"""
TOKENS = 8
SHORTER = 5
"""Tokens of the second text, which is padded to the first one's length."""


def example(model: PEModel, pad: int | None = None) -> Batch | None:
    """A small batch for a comparison of outputs; None for a backbone of other inputs than tokens and images.

    Args:
        model: the model.
        pad: id of the token that pads; by default the configuration's. Without any, there is one text.
    """
    backbone, dtype = model.backbone, next(model.backbone.parameters()).dtype
    kind = getattr(backbone, "main_input_name", "input_ids")
    if kind == "input_ids":
        rows = next(backbone.get_input_embeddings().parameters()).shape[0]
        pad = getattr(backbone.config.get_text_config(), "pad_token_id", None) if pad is None else pad
        pad = pad if isinstance(pad, int) and 0 <= pad < rows else None
        ids = torch.tensor(list(islice(cycle(i for i in range(rows) if i != pad), TOKENS)), device=model.device)
        if pad is None:
            return {"input_ids": ids[None], "attention_mask": torch.ones_like(ids)[None]}
        shorter = ids.flip(0).masked_fill(torch.arange(TOKENS, device=model.device) >= SHORTER, pad)
        batch = torch.stack([ids, shorter])
        return {"input_ids": batch, "attention_mask": (batch != pad).long()}
    if kind == "pixel_values" and isinstance(size := getattr(backbone.config, "image_size", None), int):
        shape = (1, getattr(backbone.config, "num_channels", 3), size, size)
        pixels = torch.linspace(-1, 1, shape[1] * size * size, device=model.device, dtype=dtype)
        return {"pixel_values": pixels.view(shape)}
    return None


def of_tokens(outputs: Tensor, batch: Batch) -> Tensor:
    """Outputs of tokens without those of padding, which models may compute in any way; other outputs as they are."""
    mask = batch.get("attention_mask")
    return outputs if mask is None or outputs.shape[:2] != mask.shape else outputs[mask.bool()]


def differ(one: Tensor, other: Tensor) -> float | None:
    """The largest difference between outputs, if it is more than rounding; infinite if their shapes differ."""
    if one.shape != other.shape:
        return float("inf")
    fixed, share = TOLERANCE[min(one.element_size(), other.element_size())]
    one, other = one.double(), other.double()
    if not one.numel():
        return None
    rows = (one - other).abs().flatten(0, -2).amax(-1) if one.dim() > 1 else (one - other).abs()
    # In 16 bits a language model's logits after single odd tokens are mostly rounding; a fault is in all rows.
    found = float(rows.median() if share > 0.01 else rows.max())
    return None if found <= fixed + share * float(other.abs().max()) else found  # nor if it is no number


@contextmanager
def same_draws(device: torch.device) -> Iterator[None]:
    """Begin the block with the same random state each time, for backbones that draw even in evaluation (ViTMAE)."""
    with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device], device_type=device.type):
        torch.manual_seed(0)
        yield


@torch.no_grad()
def difference(model: PEModel, task: str, exported: PreTrainedModel) -> float | None:
    """The largest difference between a task's logits and a class's on a few tokens, if it is more than rounding.

    A class may do more between backbone and head than is visible.

    Raises:
        ModelError: the class does not run.
    """
    batch = example(model, getattr(exported.config.get_text_config(), "pad_token_id", None))
    if batch is None:
        return None
    with modes_kept(model):
        model.eval()
        with same_draws(model.device):
            here = model(batch, task)
        try:
            with same_draws(model.device):
                there = exported(**batch).logits
        except Exception as error:  # such as a class that needs other inputs
            raise ModelError(
                f"{type(exported).__name__} does not run on this backbone ({reason(error)}); {REMEDY}"
            ) from None
    return differ(of_tokens(here, batch), of_tokens(there, batch))


def check_same_logits(model: PEModel, task: str, exported: PreTrainedModel) -> None:
    """Compare logits on a few tokens, since a class may do more between backbone and head than is visible.

    Raises:
        ModelError: they differ, or the class does not run.
    """
    found = difference(model, task, exported)
    if found is not None:
        raise ModelError(
            f"the logits of {type(exported).__name__} differ from this model's by up to {found:.2g}; {REMEDY}"
        )
