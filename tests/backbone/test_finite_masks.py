"""Padding that sees nothing gives no token a value that is no number."""

import padding_models
import pytest
import torch
from architectures import ARCHITECTURES
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from pemeta import Adapter, LoRA, PEModel
from pemeta.backbone.packing import is_packed

CASES = {"llama": "left", "gemma2": "right", "modernbert-local": "right"}


@pytest.mark.parametrize("name", CASES)
def test_a_short_sentence_is_what_it_is_alone(name):
    """In float64, for which these compute a softmax in float32; the window of some holds no token at all."""
    made = (
        ARCHITECTURES[name].backbone("eager") if name in ARCHITECTURES else padding_models.ALL[name].backbone("eager")
    )
    model, before = PEModel(made, LoRA(rank=2)), dict(ALL_MASK_ATTENTION_FUNCTIONS)
    ids = torch.arange(4, 28).view(2, 12)
    mask = torch.ones_like(ids)
    mask[1, 3:] = 0
    if CASES[name] == "left":
        mask = mask.flip(1)
    alone = model.hidden_states({"input_ids": ids[1:, mask[1] != 0], "attention_mask": torch.ones(1, 3).long()})
    found = model.hidden_states({"input_ids": ids, "attention_mask": mask})
    torch.testing.assert_close(found[1:, mask[1] != 0], alone, rtol=0, atol=2e-6)
    found[mask != 0].square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert dict(ALL_MASK_ATTENTION_FUNCTIONS) == before


def test_such_sentences_are_packed_too():
    model = PEModel(padding_models.ALL["gemma2"].backbone("eager"), Adapter(bottleneck=2))
    ids = torch.arange(4, 28).view(2, 12)
    batch = {"input_ids": ids, "attention_mask": (torch.arange(12) < torch.tensor([[12], [3]])).long()}
    with torch.no_grad():
        expected = model.hidden_states(batch)
        model.padding = "packed"
        placed = model.placed(batch)
        found = model.hidden_states(placed)
    assert is_packed(placed)
    mask = batch["attention_mask"] != 0
    torch.testing.assert_close(found[mask], expected[mask], rtol=0, atol=2e-6)
