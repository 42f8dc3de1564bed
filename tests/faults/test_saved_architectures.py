"""Every architecture saves and loads with equal outputs, in each precision; its adapter acts in transformers' class."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from zoo.animals import ROWS, SIXTEEN, backbone, inputs
from zoo.named import DECODERS

from pemeta import LoRA, PEMethod, PEModel, load_peft, save_peft
from pemeta.errors import ModelError
from pemeta.model.model_files import values_digest

pytestmark = [
    pytest.mark.faults("architectures saved and loaded with equal outputs, or refused"),
    pytest.mark.filterwarnings("ignore"),
]
KNOWN = ["bert", "t5", "gpt2", "modernbert", "qwen3", "vit"]


def hidden(model: PEModel, data: dict[str, torch.Tensor]) -> torch.Tensor:
    """Hidden states, by experts whose implementation is not saved."""
    model.backbone.config._experts_implementation = "eager"
    with torch.no_grad():
        return model.hidden_states(data)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", [*ROWS, *KNOWN])
def test_what_is_saved_loads_with_equal_outputs(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    assert set(KNOWN) <= set(SIXTEEN)
    whole = backbone(name).to(dtype)
    data = {key: value.to(dtype) if value.is_floating_point() else value for key, value in inputs(name).items()}
    try:
        model = PEModel(whole, PEMethod.parse("head_only")).eval()
        before = hidden(model, data)
    except (ModelError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and dtype != torch.bfloat16:
            raise
        return  # batch normalisation; an operation without this dtype
    model.save_pretrained(tmp_path / "m")
    again = PEModel.from_pretrained(tmp_path / "m", attention="eager").eval()
    assert type(again.backbone) is type(whole)
    assert values_digest(again) == values_digest(model)
    assert {n: p.dtype for n, p in again.named_parameters()} == {n: p.dtype for n, p in model.named_parameters()}
    buffers = dict(again.named_buffers())
    assert all(torch.equal(buffers[name], value) for name, value in model.named_buffers())
    # Kernels differ in their last digit by where a tensor lies in memory.
    eps = torch.finfo(dtype).eps
    assert torch.allclose(hidden(again, data), before, rtol=8 * eps, atol=8 * eps)


NO_LORA = {
    "squeezebert": "no gradient of a tiny batch reaches pooler",  # its other maps are convolutions
    "ibert": "there is no linear map in IBertModel",
    "convnext": "has no hidden_size",
    "resnet": "has no hidden_size",
    "segformer": "has no hidden_size",
    "wav2vec2-conformer": "running statistics",
}
NOT_IN_PEFT = dict.fromkeys(("mamba", "mamba2"), "is incompatible with Mamba") | {
    "videomae": "peft cannot load what was written"
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [*((name, None) for name in ROWS), *((name, "CAUSAL_LM") for name in (*DECODERS, "phi", "opt-350m", "stablelm"))],
)
def test_a_lora_acts_in_transformers_class(name: str, kind: str | None, tmp_path: Path) -> None:
    """``save_peft`` itself compares the outputs in peft."""
    pytest.importorskip("peft")
    reason = {**NO_LORA, **NOT_IN_PEFT}.get(name)
    with pytest.raises(ModelError, match=reason) if reason else nullcontext():
        whole = backbone(name).float()
        whole.config._experts_implementation = "eager"
        model = PEModel(whole, LoRA(rank=2, targets="all-linear"))
        with torch.no_grad():
            for parameter in map(model.get_parameter, model.partition().theta_a):
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        save_peft(model, tmp_path / "peft", task_type=kind)
        again = load_peft(tmp_path / "peft", backbone(name).float()).state()
        assert all(torch.equal(value, again[name]) for name, value in model.state().items())
    assert (tmp_path / "peft").exists() == (reason is None)
