"""A method is tried with a tiny batch when it is attached, and leaves no trace where that fails."""

from functools import partial

import pytest
import torch
import transformers as t
from architectures import backbone, batch

from pemeta import BitFit, Compose, Full, HeadOnly, LayerNormTuning, LoRA, Peft, PEModel, Prompt
from pemeta.errors import ModelError
from pemeta.methods.inserted import Insertion
from pemeta.methods.lora import LowRank


class Moved(LowRank):
    """A pair that does not start as zero."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        torch.nn.init.normal_(self.up.weight)


def fail(added, arguments, output):
    raise RuntimeError("sizes differ.  Target sizes: [3].")


def halve(added, arguments, output):
    return output[:, ::2]


class Odd(LoRA):
    """LoRA on the last map of the last layer, with something else in its place."""

    what: str

    def insertions(self, backbone):
        [one] = super().insertions(backbone)
        make = partial(Moved, 12, 8, 2, 1.0, 0.0) if self.what == "moves" else one.make
        return [Insertion(one.path, make, after={"fails": fail, "halves": halve}.get(self.what, one.after))]


WRONG = {
    "moves": "it changes what a tiny batch gives, although it starts as the identity; use another method",
    "fails": r"a pass of a tiny batch with it fails \(sizes differ\); use another method",
    "halves": r"a pass of a tiny batch with it fails \(The size of tensor .*\); use another method",
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_work_is_refused_and_leaves_no_trace(what):
    whole, plain = backbone("bert").train(), backbone("bert")
    numbers = torch.get_rng_state()
    with pytest.raises(ModelError, match=f"^lora cannot be attached to BertModel: {WRONG[what]}$"):
        PEModel(whole, Odd(what=what, rank=2, targets=("ffn_down",), top_layers=1))
    assert torch.equal(torch.get_rng_state(), numbers)
    assert [name for name, _ in whole.named_modules()] == [name for name, _ in plain.named_modules()]
    assert not any(part._forward_hooks for part in whole.modules())
    assert all(part.training for part in whole.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in whole.parameters())
    inputs = {key: value for key, value in batch("bert").items() if key != "labels"}
    assert torch.equal(whole.eval()(**inputs).last_hidden_state, plain(**inputs).last_hidden_state)


def test_backbones_of_one_kind_are_tried_once():
    passes = []
    for rank in (3, 3, 4):
        whole = backbone("distilbert")
        handle = whole.register_forward_hook(lambda *_: passes.append(1))
        PEModel(whole, LoRA(rank=rank, targets=("key",)))
        handle.remove()
        passes.append(0)
    # Before and after the first; none for the same again; before and after another.
    assert passes == [1, 1, 0, 0, 1, 1, 0]


def test_a_backbone_without_values_is_not_tried():
    model = PEModel(backbone("bert").to("meta"), LoRA(rank=2))
    assert model.get_parameter(model.partition().theta_a[0]).is_meta


class Deaf(t.LlamaModel):
    """A Llama with a bias, and norms, that its passes do not use."""

    def __init__(self, config):
        super().__init__(config)
        self.unused = torch.nn.LayerNorm(config.hidden_size)


def test_what_is_adapted_of_the_backbone_itself_is_used_in_a_pass():
    whole = Deaf(backbone("llama").config)
    with pytest.raises(ModelError, match=r"^bitfit cannot .* no gradient of a tiny batch reaches unused\.bias; .*"):
        PEModel(whole, BitFit())
    with pytest.raises(ModelError, match=r"^compose cannot .* no gradient of a tiny batch reaches unused\.bias; .*"):
        PEModel(whole, Compose(methods=(BitFit(), HeadOnly())))
    PEModel(whole, LayerNormTuning())  # others are used
    PEModel(Deaf(whole.config).requires_grad_(False), Full())


class Own(t.PreTrainedModel):
    """PyTorch's own encoder, which counts its passes."""

    config_class = t.BertConfig

    def __init__(self, config):
        super().__init__(config)
        self.words = torch.nn.Embedding(30, 8)
        layer = torch.nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
        self.layers = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.register_buffer("passes", torch.zeros(()))
        self.post_init()

    def get_input_embeddings(self):
        return self.words

    def forward(self, input_ids=None, inputs_embeds=None):
        self.passes += 1
        states = self.words(input_ids) if inputs_embeds is None else inputs_embeds
        return t.modeling_outputs.BaseModelOutput(last_hidden_state=self.layers(states))


@pytest.mark.parametrize("method", [HeadOnly(), LoRA(targets="all-linear"), Prompt(length=2), Full()], ids=str)
def test_buffers_keep_their_values(method):
    assert PEModel(Own(backbone("bert").config), method).backbone.passes == 0


def test_layers_that_a_kernel_passes_by_are_refused():
    """In evaluation mode the kernel takes the weights of the maps, and would silently leave out what peft put in."""
    pytest.importorskip("peft")
    tuner = Peft(config={"peft_type": "LORA", "r": 2, "target_modules": ["linear1"]})
    with pytest.raises(ModelError, match=r"no gradient of a tiny batch reaches layers\.layers\.0\.linear1\.lora_A"):
        PEModel(Own(backbone("bert").config), tuner)
    PEModel(Own(backbone("bert").config), LoRA(targets=("ffn_up",)))  # its hooks keep the kernel away


def test_a_compiled_backbone_is_not_tried():
    whole = backbone("bert")
    whole.compile(backend=lambda *_: pytest.fail("it was run"))
    PEModel(whole, HeadOnly())
