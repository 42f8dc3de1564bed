"""LoRA's targets: parts of the layers, and PEFT's own names, ends of names, patterns and all-linear."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, LlamaConfig, LlamaModel

from pemeta import Adapter, LoRA, Peft, PEMethod, PEModel
from pemeta.backbone import reach
from pemeta.errors import ModelError
from pemeta.utils import messages

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")


def llama() -> LlamaModel:
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
    return LlamaModel(LlamaConfig(vocab_size=30, num_key_value_heads=1, **sizes))


def gpt2() -> GPT2Model:
    return GPT2Model(GPT2Config(vocab_size=30, n_embd=8, n_layer=2, n_head=2, n_positions=16))


def bert() -> BertModel:
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
    return BertModel(BertConfig(vocab_size=30, **sizes), add_pooling_layer=False)


def maps(backbone: torch.nn.Module, method: LoRA, before: PEMethod | None = None) -> set[str]:
    PEModel(backbone, before or method).attach(method)
    return {name for name, part in backbone.named_modules() if "pemeta_lora" in part._modules}


@pytest.mark.parametrize("backbone", [llama, gpt2, bert])
@pytest.mark.parametrize(
    "targets", ["all-linear", ["o_proj", "c_attn", "dense"], r".*(q_proj|c_fc|intermediate\.dense)"]
)
def test_targets_select_what_peft_selects(backbone, targets):
    model = backbone()
    names = [n for n, _ in model.named_modules()]
    own = [t for t in targets if any(n.endswith(t) for n in names)] if isinstance(targets, list) else targets
    theirs = peft.get_peft_model(model.__class__(model.config), peft.LoraConfig(r=2, target_modules=own))
    expected = {name for name in theirs.targeted_module_names if "pooler" not in name}
    assert maps(model, LoRA(rank=2, targets=own)) == expected
    assert expected


class Pooled(BertModel):
    """A BERT with a map that its hidden states do not depend on."""

    def __init__(self, config):
        super().__init__(config, add_pooling_layer=False)
        self.dense = torch.nn.Linear(8, 8)


@pytest.mark.parametrize(
    "method",
    [
        LoRA(rank=2, targets="all-linear"),
        LoRA(rank=2, targets=("dense", "key")),
        Peft(config={"peft_type": "LORA", "r": 2, "target_modules": "all-linear"}),
        Peft(config={"peft_type": "LORA", "r": 2, "target_modules": "all-linear", "exclude_modules": ["value"]}),
        Peft(config={"peft_type": "LOHA", "r": 2, "target_modules": "all-linear", "exclude_modules": ".*query"}),
    ],
    ids=["lora", "pattern", "peft", "without values", "without queries"],
)
def test_maps_that_passes_do_not_use_are_left_out(method, capsys):
    pooled, plain = Pooled(bert().config), bert()
    reach._UNUSED.clear()
    messages._said.clear()
    model, other = PEModel(pooled, method), PEModel(plain, method)
    assert model.partition().theta_a == other.partition().theta_a
    assert capsys.readouterr().err == (
        "pemeta: dense of Pooled is left out, because its last hidden states do not depend on what a method "
        "adds there\n"
    )
    with pytest.raises(ModelError, match=r"no gradient of a tiny batch reaches dense"):
        PEModel(Pooled(bert().config), LoRA(rank=2, targets=r"den.e"))


def test_maps_of_experts_that_a_tiny_batch_does_not_use_stay():
    class Switched(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = torch.nn.ModuleList([torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)])

        def forward(self, hidden):
            return self.experts[0](hidden)

    whole = llama()
    for layer in whole.layers:
        layer.mlp = Switched()
    found = maps(whole, LoRA(rank=2, targets="all-linear"))
    assert {f"layers.{layer}.mlp.experts.{expert}" for layer in (0, 1) for expert in (0, 1)} <= found


def test_parts_and_names_together():
    assert maps(llama(), LoRA(targets=("query", "layers.1.mlp.down_proj"))) == {
        "layers.0.self_attn.q_proj",
        "layers.1.self_attn.q_proj",
        "layers.1.mlp.down_proj",
    }
    assert maps(llama(), LoRA(targets="all-linear", top_layers=1)) == {
        f"layers.1.{name}"
        for name in (*(f"self_attn.{p}_proj" for p in "qkvo"), *(f"mlp.{p}_proj" for p in ("gate", "up", "down")))
    }


def test_one_name_is_a_list_of_one():
    assert LoRA(targets="query") == LoRA(targets=("query",))
    assert LoRA.parse(LoRA(targets="all-linear").to_config() | {"name": "lora"}).targets == ("all-linear",)


@pytest.mark.parametrize("target", ["qury", "", "layers", "embed_tokens", "norm", "(", "top"])
def test_a_target_that_selects_nothing_names_what_there_is(target):
    with pytest.raises(
        ModelError, match=r"is neither a part .*query, key.* nor the name of a linear map .*q_proj, k_proj"
    ):
        PEModel(llama(), LoRA(targets=(target,)))


def test_a_method_that_is_attached_already_is_no_target():
    found = maps(llama(), LoRA(rank=2, targets="all-linear"), Adapter(bottleneck=2, placement="houlsby"))
    assert found == maps(llama(), LoRA(rank=2, targets="all-linear"))
