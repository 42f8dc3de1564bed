"""What is given in place of a model is refused in one sentence that says what to pass, and that works."""

import inspect
from pathlib import Path

import pytest
import torch
import transformers as t
from architectures import ARCHITECTURES, D, backbone
from tiny_models import ADAPTER, TASKS, data, tiny, with_heads
from zoo.animals import backbone as zoo_backbone
from zoo.fields import T5, VIT

from pemeta import (
    FineTuning,
    Full,
    HeadOnly,
    PEModel,
    PrimingLearner,
    Prompt,
    Server,
    TaskModel,
    evaluate,
    finetune,
    predict,
    prime,
)
from pemeta import MetaPriming as Meta
from pemeta.errors import ModelError
from pemeta.utils.hub import quiet

SMALL = ("bert", "gpt2", "llama", "roberta", "t5")


def with_head(architecture, task):
    config = backbone(architecture).config
    name = type(config).__name__.removesuffix("Config")
    with quiet():
        return getattr(t, f"{name}{task}")(config)


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("bert", "ForTokenClassification"),
        ("bert", "ForPreTraining"),
        ("roberta", "ForSequenceClassification"),
        ("distilbert", "ForQuestionAnswering"),
        ("gpt2", "ForTokenClassification"),
        ("modernbert", "ForTokenClassification"),
        ("vit", "ForImageClassification"),
    ],
)
def test_a_model_with_a_head_is_refused_and_its_base_model_taken(architecture, task):
    model = with_head(architecture, task)
    with pytest.raises(
        ModelError, match=r"with a head of its own \(.*\).* pass its base model, which is model\.base_m"
    ):
        PEModel(model, ADAPTER)
    base = model.base_model
    if isinstance(getattr(base, "pooler", None), torch.nn.Module):
        base.pooler = None  # the next sentence
    PEModel(base, ADAPTER)


@pytest.mark.parametrize(
    ("architecture", "task"),
    [("bert", "ForMaskedLM"), ("gpt2", "LMHeadModel"), ("llama", "ForCausalLM"), ("qwen3", "ForCausalLM")],
)
def test_a_language_model_is_taken_with_its_head(architecture, task):
    whole = with_head(architecture, task)
    model = PEModel(whole, ADAPTER)
    assert model.backbone is whole.base_model
    assert model.output.name == type(whole).__name__


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_of_the_contract_suite_is_taken(architecture):
    PEModel(backbone(architecture), HeadOnly())


def test_what_embeds_inputs_outside_of_its_base_model_is_no_head():
    """DINOv3's base model, by transformers' prefix, is its encoder alone."""
    model = zoo_backbone("dinov3")
    assert model.base_model is not model
    PEModel(model, HeadOnly())


BART = {"d_model": D, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "vocab_size": 30} | {
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 12,
    "decoder_ffn_dim": 12,
    "max_position_embeddings": 20,
}


@pytest.mark.parametrize(
    "model",
    [
        lambda: t.T5Model(t.T5Config(**T5)),
        lambda: t.T5ForConditionalGeneration(t.T5Config(**T5)),
        lambda: t.BartModel(t.BartConfig(**BART)),
        lambda: t.BartForSequenceClassification(t.BartConfig(**BART)),
    ],
    ids=["T5Model", "T5ForConditionalGeneration", "BartModel", "BartForSequenceClassification"],
)
def test_an_encoder_with_a_decoder_is_refused_and_its_encoder_taken(model):
    with quiet():
        whole = model()
    with pytest.raises(ModelError, match=r"has an encoder and a decoder.*AutoModelForTextEncoding.*model\.get_encoder"):
        PEModel(whole, HeadOnly())
    encoder = whole.base_model.get_encoder()
    model = with_heads(PEModel(encoder, ADAPTER))
    assert model.loss(TASKS[0].train.batch(range(2)), "en").isfinite()


CONVNEXT = {"num_channels": 3, "patch_size": 2, "hidden_sizes": [4, 8], "depths": [1, 1], "num_stages": 2}
CLIP = {"hidden_size": D, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
SWIN = {"image_size": 8, "patch_size": 2, "embed_dim": 4, "depths": [1, 1], "num_heads": [1, 2], "window_size": 2}


def clip_text():
    return t.CLIPTextModel(t.CLIPTextConfig(**CLIP, vocab_size=30, max_position_embeddings=16, eos_token_id=2)).eval()


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (lambda: t.ConvNextModel(t.ConvNextConfig(**CONVNEXT)), "ConvNextModel has no hidden_size .*use a Transformer"),
        (
            lambda: t.ResNetModel(t.ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1])),
            "ResNetModel has no hidden_size .*use a Transformer",
        ),
        (
            lambda: t.CLIPModel(
                t.CLIPConfig(
                    text_config=CLIP | {"vocab_size": 30, "eos_token_id": 2},
                    vision_config=CLIP | {"image_size": 8, "patch_size": 4},
                )
            ),
            r"CLIPModel has no hidden_size .*pass a part of it \(model\.text_model, model\.vision_model\)",
        ),
    ],
    ids=["convnext", "resnet", "clip"],
)
def test_outputs_that_are_no_sequence_of_that_width_are_refused(model, says):
    with pytest.raises(ModelError, match=says):
        PEModel(model(), ADAPTER)


def test_hidden_states_that_a_model_maps_to_the_width_of_its_embeddings():
    """OPT-350m's are 512 wide, with layers of 1024."""
    model = with_heads(PEModel(zoo_backbone("opt-350m"), ADAPTER))
    assert (model.hidden_size, model.backbone.config.hidden_size) == (4, 8)
    assert model.backbone.pemeta_adapter.down.in_features == 4
    assert model.loss(TASKS[0].train.batch(range(2)), "en").isfinite()


def test_outputs_of_another_shape_are_found_in_the_first_pass():
    model = with_heads(tiny())
    words = TASKS[0].train.batch(range(2))
    model.backbone.register_forward_hook(lambda part, given, output: setattr(output, "last_hidden_state", None))
    with pytest.raises(ModelError, match="the last hidden states of BertModel are not in its output, but methods"):
        model(words, "en")
    model = with_heads(tiny())
    model.backbone.register_forward_hook(
        lambda part, given, output: setattr(output, "last_hidden_state", output.last_hidden_state[..., :4])
    )
    with pytest.raises(ModelError, match=r"are of shape \(2, \d, 4\), but .*D = 8"):
        model(words, "en")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda states: states[..., :4], r"are of shape \(2, 6, 4\), but .*D = 8"),
        (lambda states: states.transpose(1, 2)[:, :, None], r"are of shape \(2, 8, 1, 6\), but"),
        (lambda states: states.reshape(1, -1, 8), r"are of shape \(1, 12, 8\) for 2 inputs, but"),
        (lambda states: None, "are not in its output, but"),
    ],
    ids=["narrow", "map", "joined", "none"],
)
def test_outputs_of_another_shape_are_refused_when_a_model_is_made(change, says):
    class Other(t.BertModel):
        def __init__(self, config):
            super().__init__(config, add_pooling_layer=False)

        def forward(self, *arguments, **named):
            output = super().forward(*arguments, **named)
            output.last_hidden_state = change(output.last_hidden_state)
            return output

    for method in (ADAPTER, HeadOnly(), Full()):
        with pytest.raises(ModelError, match=f"the last hidden states of Other {says}"):
            PEModel(Other(tiny().backbone.config), method)


# Prompts, where no vectors can take the place of tokens


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (clip_text, "a prompt needs vectors in place of tokens, which CLIPTextModel does not take"),
        (
            lambda: t.SwinModel(t.SwinConfig(**SWIN), add_pooling_layer=False),
            "as one sequence of vectors of width 8, but SwinEmbeddings gives something else",
        ),
    ],
    ids=["clip", "swin"],
)
def test_a_prompt_without_a_place_is_refused(model, says):
    made = model()
    before, state = torch.get_rng_state(), list(made.state_dict())
    with pytest.raises(ModelError, match=rf"{says}.*use another method"):
        PEModel(made, Prompt(length=2))
    assert list(made.state_dict()) == state
    assert torch.equal(torch.get_rng_state(), before)
    PEModel(made, ADAPTER)


def test_a_prompt_for_images_draws_no_number_beside_its_vectors():
    """So that values are what they were before its place was looked at."""
    config = t.ViTConfig(**VIT | {"hidden_dropout_prob": 0.5})
    model = t.ViTModel(config, add_pooling_layer=False).train()
    tokens = PEModel(model, Prompt(length=2), seed=3).backbone.embeddings.pemeta_prompt.tokens
    assert model.embeddings.training
    other = t.ViTModel(config, add_pooling_layer=False).eval()
    assert torch.equal(PEModel(other, Prompt(length=2), seed=3).backbone.embeddings.pemeta_prompt.tokens, tokens)


# Anything else


class Pipeline:
    """As far as a model is concerned."""

    def __init__(self) -> None:
        self.model = with_head("bert", "ForTokenClassification")


BACKBONES = {
    "a name": (
        lambda: "bert-base-cased",
        r"found 'bert-base-cased'; load it with PEModel\.from_pretrained\('bert-base",
    ),
    "a path": (
        lambda: Path("runs/model"),
        r"found 'runs/model'; load it with PEModel\.from_pretrained\('runs/model', m",
    ),
    "a class": (lambda: t.BertModel, r"found the class BertModel; load a model of it, BertModel\.from_pretrained"),
    "a model": (tiny, "found a PEModel; it has a backbone already: use it as it is"),
    "a pipeline": (Pipeline, r"found a Pipeline; pass its model\.base_model"),
    "a module": (
        lambda: torch.nn.Linear(2, 2),
        r"found a Linear; for any other module there is PrimingLearner\(module",
    ),
    "None": (lambda: None, "found None; load one with transformers' AutoModel.from_pretrained"),
    "a number": (lambda: 3, "found 3; load one"),
    "a configuration": (lambda: t.BertConfig(), "found a BertConfig; load one"),
}


@pytest.mark.parametrize("given", BACKBONES)
def test_what_is_no_backbone_is_refused(given):
    make, says = BACKBONES[given]
    with pytest.raises(ModelError, match=rf"^PEModel takes a model of transformers; {says}"):
        PEModel(make(), ADAPTER)


TAKERS = {
    "PrimingLearner": lambda model: PrimingLearner(model),
    "prime": lambda model: prime(model, TASKS, Meta(outer_steps=1), progress=False),
    "finetune": lambda model: finetune(model, TASKS[0], data(1), FineTuning(epochs=1), progress=False),
    "evaluate": lambda model: evaluate(model, data(1), "en"),
    "predict": lambda model: predict(model, data(1), "en"),
    "Server": lambda model: Server(model, None),
}
MODELS = {
    "a name": (lambda: "some/model", r"found 'some/model'; load it with PEModel\.from_pretrained\('some/model'\)"),
    "a path": (
        lambda: Path("runs/model"),
        r"found 'runs/model'; load it with PEModel\.from_pretrained\('runs/model'\)",
    ),
    "None": (lambda: None, r"found None; make one of a backbone and a method, PEModel\(backbone, method\)"),
    "a backbone": (lambda: backbone("bert"), r"found a BertModel; make one of a backbone and a method"),
    "a task of a Trainer": (lambda: TaskModel(with_heads(tiny()), "en"), r"found a TaskModel; pass the PEModel in it"),
    "a class": (lambda: PEModel, r"found the class PEModel; make one"),
}


@pytest.mark.parametrize("given", MODELS)
@pytest.mark.parametrize("taker", TAKERS)
def test_what_is_no_model_is_refused(taker, given):
    make, says = MODELS[given]
    value = make()
    if taker == "PrimingLearner" and isinstance(value, torch.nn.Module):
        pytest.skip("any module, with a partition")
    with pytest.raises(ModelError, match=rf"^{taker} takes a PEModel; {says}"):
        TAKERS[taker](value)


def test_the_takers_of_a_model_are_those_that_are_public():
    import pemeta

    found = {
        name
        for name in pemeta.__all__
        if callable(getattr(pemeta, name))
        and next(iter(signature_of(getattr(pemeta, name))), None) in ("model", "module")
    }
    assert found - {"TaskModel", "to_transformers", "save_peft"} == set(TAKERS)


def signature_of(taker):
    try:
        return inspect.signature(taker).parameters
    except (TypeError, ValueError):
        return {}
