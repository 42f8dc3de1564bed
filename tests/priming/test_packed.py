"""Priming on packed rows: the same gradients as by an explicit unroll over padded passes, in both orders."""

import pytest
from architectures import ARCHITECTURES
from unroll import FLOAT32, episodes, largest_error, meta, model_of

from pemeta import IA3, Adapter, BitFit, Compose, Full, HeadOnly, LayerNormTuning, LoRA, Peft, Prefix, Prompt
from pemeta.errors import ModelError

METHODS = {
    "adapter": Adapter(bottleneck=4, init_std=0.3),
    "houlsby": Adapter(bottleneck=4, placement="houlsby", init_std=0.3),
    "lora": LoRA(rank=2),
    "top lora": LoRA(rank=2, top_layers=1),
    "bitfit": BitFit(),
    "ia3": IA3(),
    "prefix": Prefix(length=3),
    "prompt": Prompt(length=3),
    "head": HeadOnly(),
    "layer norm": LayerNormTuning(),
    "full": Full(),
    "composed": Compose(methods=(Prefix(length=2), Adapter(bottleneck=4, placement="parallel"))),
    "peft": Peft(config={"peft_type": "LORA", "r": 2, "target_modules": "all-linear"}),
}
SOME = {"bert", "llama"}
MANY = {"layer norm", "full", "composed", "peft"}
"""Methods whose rows are all among the long tests."""


def pairs():
    for name in ARCHITECTURES:
        if name not in ("vit", "deberta-v2"):
            for row in METHODS:
                yield pytest.param(name, row, marks=() if name in SOME and row not in MANY else pytest.mark.long)


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize(("name", "row"), list(pairs()))
def test_gradients_are_those_of_padded_passes(name, row, order):
    try:
        model = model_of(METHODS[row], name)
    except ModelError as refusal:
        pytest.skip(str(refusal))
    model.padding = "packed"
    error = largest_error(model, meta(order), model_of(METHODS[row], name), episodes(name, shorter=1))
    assert error < (3e-7 if name in FLOAT32 else 1e-10)  # a softmax in float32 rounds by 6e-8 of each number


@pytest.mark.parametrize("row", ["lora", "prefix", "prompt"])
def test_second_order_through_sdpa(row):
    """PyTorch's own formula takes the mask of rows, too."""
    model = model_of(METHODS[row], "bert", "sdpa")
    model.padding = "packed"
    assert largest_error(model, meta("second"), model_of(METHODS[row], "bert"), episodes("bert", shorter=1)) < 1e-10


@pytest.mark.parametrize("settings", [{"batch_tasks": True}, {"fresh_support": True}, {"outer_loss": "mean"}])
@pytest.mark.parametrize("row", ["adapter", "top lora", "prompt"])
def test_joined_batches_are_packed_together(row, settings):
    algorithm = meta("first", **settings)
    model = model_of(METHODS[row], "bert", "sdpa")
    model.padding = "packed"
    made = episodes("bert", supports=2 if algorithm.fresh_support else 1, shorter=1)
    assert largest_error(model, algorithm, model_of(METHODS[row], "bert", "sdpa"), made) < 1e-10
