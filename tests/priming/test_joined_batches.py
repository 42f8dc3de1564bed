"""Several batches as one: only where each has the hidden states that it has by itself, which is found by comparing."""

import copy
import dataclasses
import pickle

import pytest
import torch
from architectures import ARCHITECTURES, backbone, batch
from padding_models import ABSOLUTE, DEPENDENT, RELATIVE, WINDOWS, made, sentences
from tiny_models import TASKS, data, shaken
from torch import nn
from unroll import HEAD, episodes, meta, model_of

from pemeta import Adapter, FineTuning, Head, LoRA, PEModel, PrimingLearner, Prompt, evaluate, finetune
from pemeta.backbone.joined_batches import concatenate, split_hidden
from pemeta.training.hidden_state_cache import with_hidden_states

OUTPUT = Adapter(bottleneck=4, init_std=0.3)
TOP = LoRA(rank=2, top_layers=1)


def model_on(name, method=OUTPUT):
    model = PEModel(made(name), method)
    for task in ("en", "es"):
        model.add_head(task, HEAD)
    return shaken(model)


def labelled(name, *lengths, seed=0):
    found = sentences(name, *lengths, seed=seed)
    labels = torch.randint(0, 3, found["input_ids"].shape, generator=torch.Generator().manual_seed(seed))
    return {**found, "labels": labels.masked_fill(found["attention_mask"] == 0, -100)}


def counted(model):
    """The number of rows in each pass of the backbone."""
    passes = []
    model.backbone.register_forward_pre_hook(
        lambda part, inputs, given: passes.append(len(given.get("attention_mask", given.get("pixel_values")))),
        with_kwargs=True,
    )
    return passes


def close(found, expected, atol=1e-5):
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


# What depends on padding runs apart.


@pytest.mark.parametrize("name", DEPENDENT)
def test_batches_of_a_backbone_that_depends_on_padding_run_apart(name):
    model, batches = model_on(name), [labelled(name, 6, 4), labelled(name, 9, 8, seed=1), labelled(name, 3, seed=2)]
    with torch.no_grad():
        joint = split_hidden(model.hidden_states(concatenate(batches, 0)), batches)
        errors = [float((model.hidden_states(b) - x).abs().max()) for b, x in zip(batches, joint, strict=True)]
    assert max(errors) > 0.01
    assert not model.joins(batches)
    for one, reused in zip(batches, model.reusing(batches), strict=True):
        assert torch.equal(reused["trunk"], model.hidden_states(one))
    passes = counted(model)
    model.reusing(batches)
    assert passes == [2, 2, 1]  # it is known by now
    alike = [labelled(name, 6, 4), labelled(name, 6, 5, seed=1)]
    assert model.joins(alike)
    for one, reused in zip(alike, model.reusing(alike), strict=True):
        close(reused["trunk"], model.hidden_states(one))


@pytest.mark.parametrize("name", DEPENDENT)
def test_an_inner_loop_over_sentences_of_many_lengths_is_that_of_each_step(name):
    batches, query = [labelled(name, 6, 4), labelled(name, 9, 8, seed=1)], labelled(name, 5, 5, seed=2)
    found = []
    for together in (True, False):
        model = model_on(name)
        clone = PrimingLearner(model, 0.1, first_order=False).clone("en")
        if together:
            losses = clone.adapt_to(batches, "en")
        else:
            losses = []
            for one in batches:
                loss = clone.loss(one, "en")
                losses.append(float(loss.detach()))
                clone.adapt(loss)
        clone.loss(query, "en").backward()
        found.append((losses, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
    assert found[0][1].keys() == found[1][1].keys()
    for name_, gradient in found[0][1].items():
        close(gradient, found[1][1][name_], atol=1e-4)


@pytest.mark.parametrize("name", ["convbert", "fnet", "funnel"])
def test_the_hidden_states_of_fine_tuning_are_not_kept_where_padding_changes_them(name):
    validation, histories = data(7), []
    for reuse in (True, False):
        model = model_on(name)
        assert with_hidden_states(model, validation).trunk is None
        settings = FineTuning(epochs=2, batch_size=5, lr=0.02, reuse_trunk=reuse)
        histories.append(finetune(model, TASKS[0], validation, settings, progress=False))
    assert histories[0].losses == histories[1].losses
    assert histories[0].validation_scores == histories[1].validation_scores


def test_a_convolution_below_the_layers_of_theta_a():
    """The input of a layer too, and not only the last hidden states."""
    model = PEModel(backbone("bert"), TOP)
    embeddings = model.backbone.embeddings
    embeddings.register_forward_hook(
        lambda part, inputs, output: output + output.roll(1, 1)
    )  # the last, before the first
    batches = [sentences("bert", 6, 6), sentences("bert", 9, 9, seed=1)]
    assert model.first_layer() == 1
    for one, reused in zip(batches, model.reusing(batches), strict=True):
        close(model.hidden_states(reused), model.hidden_states(one))
    assert not model.joins(batches)


def test_what_a_method_has_added_is_tried_before_it_does_anything():
    """A convolution that is zero at first would show nothing, and mix padding into tokens once it is trained."""
    model = PEModel(backbone("bert"), OUTPUT)
    part = model.backbone.encoder.layer[0].output
    part.pemeta_mixed = nn.Conv1d(8, 8, 3, padding=1).double()
    nn.init.zeros_(part.pemeta_mixed.weight)
    part.register_forward_hook(lambda part, given, out: out + part.pemeta_mixed(out.mT).mT)
    kept = part.pemeta_mixed.weight
    assert not model.joins([sentences("bert", 6, 6), sentences("bert", 9, 9, seed=1)])
    assert part.pemeta_mixed.weight is kept
    assert not kept.any()


# Frames and samples.


class Frames(Head):
    """A label for each frame."""

    def __init__(self, width):
        super().__init__()
        self.map = nn.Linear(width, 3)

    def forward(self, hidden, batch, backbone):
        return self.map(hidden)

    def loss(self, logits, batch):
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())

    def predictions(self, logits, batch):
        return logits.argmax(-1)


def sound(samples, seed):
    generator = torch.Generator().manual_seed(seed)
    return {
        "input_values": torch.randn(2, samples, generator=generator),
        "attention_mask": torch.ones(2, samples, dtype=torch.long),
        "labels": torch.randint(0, 3, (2, samples // 4), generator=generator),
    }


def test_frames_are_not_cut_by_samples():
    model = PEModel(made("wav2vec2"), OUTPUT)
    model.add_head("a", Frames)
    batches = [sound(32, 1), sound(24, 2)]
    expected = [model.hidden_states(one) for one in batches]
    assert [x.shape[1] for x in expected] == [8, 6]
    assert all(torch.equal(r["trunk"], x) for r, x in zip(model.reusing(batches), expected, strict=True))
    losses = PrimingLearner(model, 0.1).clone("a").adapt_to(batches, "a")
    step_by_step = PrimingLearner(model, 0.1).clone("a")
    for one, loss in zip(batches, losses, strict=True):
        assert float(step_by_step.loss(one, "a").detach()) == pytest.approx(loss, abs=1e-6)
        step_by_step.adapt(step_by_step.loss(one, "a"))


# What does not depend on padding still runs as one.


@pytest.mark.parametrize("method", [OUTPUT, TOP], ids=["output", "top"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_architectures_of_the_contract_run_as_one_batch(architecture, method):
    """With the very numbers of that batch."""
    model = model_of(method, architecture)
    key = model.unchanging()
    if key is None:
        pytest.skip("all layers depend on θ_a")
    shorter = {k: v if architecture == "vit" else v[:, :4] for k, v in batch(architecture, 1).items()}
    batches = [batch(architecture), shorter, batch(architecture, 2)]
    assert model.joins(batches)
    passes = counted(model)
    reused = model.reusing(batches)
    assert passes == [6]
    whole = concatenate(batches, getattr(model.backbone.config, "pad_token_id", None) or 0)
    joint = split_hidden(model.reusing([whole])[0][key], batches)
    assert all(torch.equal(one[key], part) for one, part in zip(reused, joint, strict=True))


@pytest.mark.parametrize("name", [*WINDOWS, *RELATIVE, *ABSOLUTE])
def test_backbones_that_do_not_depend_on_padding_run_as_one(name):
    model, batches = model_on(name), [labelled(name, 8, 4), labelled(name, 12, 8, seed=1)]
    for one, reused in zip(batches, model.reusing(batches), strict=True):
        real = one["attention_mask"] == 1
        close(reused["trunk"][real], model.hidden_states(one)[real])
    assert model.joins(batches)


# What the comparison is like.


class Centred(nn.Module):
    """Takes the mean over a batch away, as batch normalisation does in every mode if it has no running statistics."""

    def forward(self, part, inputs, output):
        return output - output.mean((0, 1))


def test_sentences_that_depend_on_the_others_of_their_batch_run_apart():
    model = PEModel(made("bert"), OUTPUT)
    model.backbone.embeddings.register_forward_hook(Centred().forward)
    batches = [sentences("bert", 6, 6), sentences("bert", 6, 6, seed=1)]
    for one, reused in zip(batches, model.reusing(batches), strict=True):
        assert torch.equal(reused["trunk"], model.hidden_states(one))


def test_a_backbone_that_draws_random_numbers_without_dropout_runs_in_each_pass():
    """As masked autoencoders and attention by random hashes do."""
    model = PEModel(made("bert"), OUTPUT).eval()
    model.add_head("en", HEAD)
    model.backbone.embeddings.register_forward_hook(lambda part, inputs, output: output + torch.randn(output.shape))
    batches = [sentences("bert", 6, 4), sentences("bert", 9, seed=1)]
    for _ in range(2):
        assert all("trunk" not in one for one in model.reusing(batches))
    assert all("trunk" in one for one in model.reusing(batches, once=True))
    assert with_hidden_states(model, data(7)).trunk is None
    same = dataclasses.replace(data(7), input_ids=data(7).input_ids[:1], sentences=data(7).sentences[:1])
    assert with_hidden_states(model, same).trunk is None


@pytest.mark.parametrize("once", [False, True])
def test_the_comparison_draws_nothing_and_changes_no_mode(once):
    """With dropout, whose passes differ in any case."""
    states = []
    for name in ("bert", "convbert"):
        model = model_on(name)
        for part in model.backbone.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.5
        model.train()
        model.backbone.embeddings.eval()
        modes = [part.training for part in model.modules()]
        batches = [labelled(name, 6, 4), labelled(name, 9, 8, seed=1)]
        torch.manual_seed(0)
        before = torch.get_rng_state()
        assert model.joins(batches) == (name == "bert")
        assert torch.equal(torch.get_rng_state(), before)
        assert [part.training for part in model.modules()] == modes
        reused = model.reusing(batches, once=once)
        states.append(["trunk" in one for one in reused])
        if once:
            assert torch.equal(torch.get_rng_state(), before) is False  # dropout was drawn
    assert states == [[once, once]] * 2


@pytest.mark.parametrize("setting", ["autocast", "bfloat16", "float16", "float64", "checkpointed", "inference"])
@pytest.mark.parametrize("name", ["bert", "convbert", "funnel"])
def test_the_answer_is_the_same_in_every_precision_and_mode(name, setting):
    model = model_on(name)
    if setting == "autocast":
        model.autocast_dtype = torch.bfloat16
    elif setting == "checkpointed" and name == "bert":
        model.checkpoint_layers()
    elif hasattr(torch, setting):
        model.to(getattr(torch, setting))
    batches = [labelled(name, 6, 4), labelled(name, 9, 8, seed=1)]
    with torch.inference_mode(setting == "inference"):
        assert model.joins(batches) == (name == "bert")


def test_the_comparison_is_made_once_for_each_kind_and_length():
    model = model_on("bert")
    passes = counted(model)
    for lengths, expected in (
        ((6, 4), [1, 1, 2]),
        ((5, 7), []),  # not longer than eight
        ((6, 6), [1, 1, 2]),  # equally long
        ((9, 6), [1, 1, 2]),
        ((15, 8), []),
    ):
        model.joins([labelled("bert", length) for length in lengths])
        assert passes == expected, lengths
        passes.clear()
    model.attach(Prompt(length=2))
    passes.clear()  # that a prompt was tried with
    model.joins([labelled("bert", 6), labelled("bert", 4)])
    assert len(passes) == 3
    model.backbone._forward_pre_hooks.popitem()  # the counter, which cannot be pickled
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        others = counted(other)
        other.joins([labelled("bert", 6), labelled("bert", 4)])
        assert others == []


def test_a_backbone_that_attends_in_another_way_from_some_length_on_is_found_then():
    model = PEModel(made("bert"), OUTPUT)

    def far(part, inputs, output):
        return output + output.mean(1, keepdim=True) if output.shape[1] > 8 else output

    model.backbone.embeddings.register_forward_hook(far)
    assert model.joins([labelled("bert", 6), labelled("bert", 4)])
    assert not model.joins([labelled("bert", 9), labelled("bert", 4)])
    assert model.joins([labelled("bert", 6), labelled("bert", 4)])


def test_tasks_as_one_batch_where_padding_matters():
    """The whole of a priming step: with tasks one by one, and as one batch."""
    gradients = []
    for together in (False, True):
        model = model_on("convbert")
        meta("second", batch_tasks=together).accumulate(model, episodes("bert", shorter=2))
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        close(gradients[1][name], gradient)


def test_evaluation_from_kept_hidden_states_is_that_of_whole_passes():
    """A backbone that pads to its window by itself keeps one for each position."""
    model, validation = model_on("longformer"), data(7)
    held = with_hidden_states(model, validation)
    assert [len(row) for row in held.trunk] == [validation.length(index) for index in range(len(validation))]
    assert evaluate(model, held, "en").main == evaluate(model, validation, "en").main
