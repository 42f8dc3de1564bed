"""Whether an output map computes what the language model does that it is taken from: tried on a few tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from pemeta.backbone.given import output_width
from pemeta.backbone.output_map import OutputMap
from pemeta.backbone.structure.inputs import tiny_batches
from pemeta.backbone.structure.undisturbed import has_values, undisturbed
from pemeta.errors import ModelError, clause
from pemeta.utils.hub import quiet
from pemeta.utils.modules import modes_kept, only_trainable
from pemeta.utils.precision import wide

TOLERANCE = {8: 1e-10, 4: 1e-4, 2: 0.03}
"""Difference, relative to the largest logit, that rounding explains, by the bytes of a number."""
ROWS, SIZE = 3, 10.0
"""Made-up hidden states: how many, and how large, so that a cap shows."""


def refuse_other_logits(whole: PreTrainedModel, output: OutputMap) -> None:
    """Compare the logits of a language model with those of its output map on its backbone's last hidden states.

    A language model without values, and one for which no batch can be made, is taken at its word.

    Raises:
        ModelError: they differ, or the class does not run on hidden states alone.
    """
    base: Any = whole.base_model
    if not has_values(whole):
        return
    with undisturbed(whole), modes_kept(output):
        output.eval()
        for inputs in tiny_batches(whole):
            try:
                expected, hidden = whole(**inputs).logits, base(**inputs).last_hidden_state
            except Exception:  # inputs of another kind than it takes
                continue
            _compare(output, base, hidden, expected)
            return


def _compare(output: OutputMap, base: PreTrainedModel, hidden: Tensor, expected: Tensor) -> None:
    rest = f"pass its base model, model.base_model, and use a head of the task's own in place of that of {output.name}"
    try:
        found = output(hidden, base)
        # Positions in another order, and in one row: heads compute logits at labelled positions alone.
        few = output(hidden.flatten(0, 1).flip(0), base).flip(0).view_as(found)
    except Exception as error:
        raise ModelError(
            f"{output.name} does not compute logits from its backbone's last hidden states alone ({clause(error)}); "
            f"{rest}"
        ) from None
    for logits, what in ((found, "on its backbone's last hidden states"), (few, "on those of single positions")):
        difference = _difference(logits, expected)
        if difference > TOLERANCE.get(expected.element_size(), 0.03):
            raise ModelError(
                f"the logits of {output.name} are other ones than those of its part behind the backbone {what} (by "
                f"{difference:.2g} of the largest); {rest}"
            )


def try_factors(output: OutputMap, backbone: Any) -> None:
    """Find out whether logits are a product and functions of single numbers after it, and note it on the output map.

    A chunk of them is then enough for a part of the loss, and for its gradients.
    """
    values = has_values(backbone) and has_values(output)
    with modes_kept(output), torch.inference_mode(False), torch.no_grad(), quiet():
        output.eval()
        try:
            output.factored, output.plain = _tried(output, backbone, values)
        except Exception:  # it looks at more than the product
            output.factored, output.plain = not values, False


def _tried(output: OutputMap, backbone: Any, values: bool) -> tuple[bool, bool]:
    """Whether they are, and whether nothing follows the product; without values as far as can be told."""
    held, width = next(backbone.parameters()), output_width(backbone)
    assert width is not None  # or it would not be a backbone
    numbers = torch.arange(1, ROWS * width + 1, device=held.device, dtype=torch.float32).sin().view(ROWS, width)
    hidden = (SIZE * numbers).to(held.dtype)
    expected = output(hidden, backbone)
    before, weight, bias, _ = output.factors(hidden, backbone)
    products = F.linear(before, weight, bias)
    plain = not output.changes(products, width, backbone)
    if not values:
        return True, plain
    found = output.after(products.clone(), width, backbone)
    # Each number's result is to be its own, whatever its neighbours and its row are: a softmax's is not.
    every = torch.arange(products.numel(), device=products.device).view_as(products) % 2 == 0
    others = output.after(torch.where(every, products, products + 1), width, backbone)
    turned = output.after(products.roll(1, 0), width, backbone)
    with only_trainable(output, [name for name, _ in output.named_parameters()]), torch.enable_grad():
        alone = not output.after(products.clone(), width, backbone).requires_grad
    pairs = ((found, expected), (others[every], found[every]), (turned, found.roll(1, 0)))
    most = TOLERANCE.get(expected.element_size(), 0.03)
    return alone and all(_difference(one, other) <= most for one, other in pairs), plain


def _difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest number; infinite if shapes differ."""
    if found.shape != expected.shape:
        return float("inf")
    largest = wide(expected).abs().max().clamp(min=1e-30)
    return float((wide(found) - wide(expected)).abs().max() / largest)
