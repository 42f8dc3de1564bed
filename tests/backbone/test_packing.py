"""Rows of several sentences: exactly what padded ones give, for each architecture, or not taken."""

import copy
import dataclasses
import warnings

import pytest
import torch
from architectures import ARCHITECTURES
from hypothesis import given, settings
from hypothesis import strategies as st
from unroll import FLOAT32
from zoo import animals

from pemeta import Adapter, LoRA, PEModel, Prefix, Prompt
from pemeta.backbone import packed_passes
from pemeta.backbone.awake import awake
from pemeta.backbone.packing import cost, is_packed, pack, plan, unpacked
from pemeta.backbone.row_masks import Form, mask_of
from pemeta.errors import ConfigError, ModelError

PACKED = set(ARCHITECTURES) - {"deberta-v2", "vit"}
"""Of the contract suite's sixteen."""

WINDOWS = {
    "modernbert": dataclasses.replace(
        ARCHITECTURES["modernbert"], fields=ARCHITECTURES["modernbert"].fields | {"local_attention": 6}
    )
}


def sentences(*lengths, pad=0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(4, 29, mask.shape, generator=generator)
    return {"input_ids": ids.masked_fill(mask == 0, pad), "attention_mask": mask}


def model_on(name, method=None, attention="eager"):
    if name in ARCHITECTURES:
        attention = "eager" if name == "deberta-v2" else attention
        backbone = ARCHITECTURES[name].backbone(attention)
    else:
        backbone = animals.ROWS[name].backbone(attention)
    return PEModel(backbone, method or Adapter(bottleneck=2))


def both_ways(model, lengths=(7, 3, 5, 2, 6)):
    """Hidden states of tokens padded and packed, and whether they were packed."""
    pad = getattr(model.backbone.config, "pad_token_id", None) or 0
    batch = sentences(*lengths, pad=pad)
    with torch.no_grad():
        expected = model.hidden_states(model.placed(batch))
        with model.padded_as("packed"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is not
            placed = model.placed(batch)
            found = model.hidden_states(placed)
    mask = batch["attention_mask"] != 0
    assert found.shape == expected.shape
    return found[mask], expected[mask], is_packed(placed)


def assert_same(found, expected, name):
    """Relative to the largest number: a softmax or a norm in float32 rounds by 6e-8 of its own, in each layer."""
    exact = name in ARCHITECTURES and name not in FLOAT32
    largest = float(expected.nan_to_num().abs().max())  # windows leave some tokens without any to attend to
    torch.testing.assert_close(found, expected, rtol=0, atol=(1e-10 if exact else 5e-7) * largest, equal_nan=True)


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=20).filter(any), st.integers(0, 3), st.booleans())
def test_each_token_has_one_place(lengths, room, align):
    planned = plan(lengths, 8, room=room, align=align)
    places = planned.places(max(lengths))
    used = places[places >= 0]
    assert len(used) == sum(lengths) == len(set(used.tolist()))
    assert planned.length >= max(n + room for n in lengths if n)
    assert len(planned.rows) * planned.length >= sum(lengths)
    back = planned.sources(max(lengths)).flatten()[used]
    assert torch.equal(back, torch.arange(places.numel())[places.flatten() >= 0])
    assert int((planned.slots() >= 0).sum()) == room * sum(n > 0 for n in lengths)


def test_rows_are_no_longer_than_they_are_worth():
    """Wide maps want one row without waste, and many sentences several, because attention costs by the square."""
    assert len(plan([9, 4, 2], 512).rows) == 1
    assert len(plan([9, 4, 3, 2], 512).rows) == 2  # without waste too
    many = plan([40] * 64, 64)
    assert len(many.rows) > 4
    assert cost(len(many.rows), many.length, 64) < cost(1, 64 * 40, 64)
    assert plan([40] * 64, 512, limit=100).length <= 100
    assert [plan([19, 5, 3], 8, limit=n, align=True).length for n in (20, 24)] == [19, 24]


def test_the_mask_keeps_sentences_apart():
    planned = plan([2, 1], 8)
    mask = mask_of(planned.segments(), Form(causal=True, positions=None), torch.float64)[0, 0]
    assert (mask == 0).tolist() == [[True, False, False], [True, True, False], [False, False, True]]
    assert torch.isfinite(mask).all()


def test_what_is_packed_can_be_unpacked():
    batch = sentences(3, 1, 2)
    planned = plan([3, 1, 2], 8)
    rows = pack(batch, planned, Form(causal=False, positions=2), torch.float64)
    assert rows["packed.position_ids"].tolist() == [[2, 3, 4], [2, 3, 2]]
    ids = unpacked(rows["packed.input_ids"][..., None], rows)[..., 0]
    assert torch.equal(ids, batch["input_ids"])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "vit"])
def test_packed_is_padded(name, attention):
    found, expected, packed = both_ways(model_on(name, attention=attention))
    assert_same(found, expected, name)
    assert packed == (name in PACKED)


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name, row in animals.ROWS.items() if row.kind == "tokens"])
def test_each_of_the_zoo_is_packed_exactly_or_not_at_all(name):
    if animals.plain_states(name) is None:
        pytest.skip("no sequence of hidden states")
    found, expected, _ = both_ways(model_on(name))
    assert_same(found, expected, name)


@pytest.mark.parametrize(
    "method", [LoRA(rank=2), Prefix(length=3), Prefix(length=2, reparametrize=4), Prompt(length=3)]
)
@pytest.mark.parametrize("name", ["bert", "roberta", "modernbert", "t5", "gpt2", "llama"])
def test_prefixes_and_prompts_belong_to_each_sentence(name, method):
    model = model_on(name, method, "sdpa")
    found, expected, packed = both_ways(model)
    assert_same(found, expected, name)
    assert packed


@pytest.mark.parametrize("method", [Adapter(bottleneck=2), Prefix(length=3), Prompt(length=3)])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", WINDOWS)
def test_windows_stay(name, attention, method):
    """A mask for rows takes the place of the architecture's own, so that it has to have their windows."""
    model = PEModel(WINDOWS[name].backbone(attention), method)
    found, expected, packed = both_ways(model, (13, 3, 5))
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-7 * float(expected.abs().max()))
    assert packed
    assert model._packed._found[-1][-1].near


def test_half_precision_does_not_hide_positions():
    """RoFormer's, by the row, are off by four times what float16 rounds by."""
    assert is_taken(PEModel(ARCHITECTURES["bert"].backbone("sdpa").half(), LoRA(rank=2)), sentences(6, 3, 4))
    backbone = animals.ROWS["roformer"].backbone("eager").half()
    assert not is_taken(PEModel(backbone, Adapter(bottleneck=2)), sentences(12, 3, 5, 7))


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_does_not_hide_a_window(dtype):
    """Of the masks that round alike, the one that float32 tells is taken."""
    wide = {"local_attention": 64, "max_position_embeddings": 600}
    row = dataclasses.replace(ARCHITECTURES["modernbert"], fields=ARCHITECTURES["modernbert"].fields | wide)
    model = PEModel(row.backbone("sdpa").to(dtype), LoRA(rank=2))
    kept = {name: (id(value), value.dtype) for name, value in model.state_dict(keep_vars=True).items()}
    assert is_taken(model, sentences(200, 5))
    assert model._packed._found[-1][-1].near == 32
    assert {name: (id(value), value.dtype) for name, value in model.state_dict(keep_vars=True).items()} == kept


def is_taken(model, batch):
    with model.padded_as("packed"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return is_packed(model.placed(batch))


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2"])
def test_a_sentence_may_contain_the_token_that_pads(name):
    """RoBERTa does not count it, so that rows that count would be wrong; they are tried with one."""
    model = model_on(name)
    assert both_ways(model)[2]  # known for sentences without it
    pad = getattr(model.backbone.config, "pad_token_id", None) or 0
    batch = sentences(7, 3, 5, pad=pad)
    batch["input_ids"][0, 2] = pad
    mask = batch["attention_mask"] != 0
    with torch.no_grad():
        expected = model.hidden_states(batch)[mask]
        with model.padded_as("packed"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = model.hidden_states(model.placed(batch))[mask]
    assert_same(found, expected, name)
    assert is_taken(model, batch) == (name != "roberta")


def test_token_types_go_with_their_tokens():
    model = model_on("bert")
    batch = sentences(6, 3, 4)
    batch["token_type_ids"] = (torch.arange(6) > 1).long() * batch["attention_mask"]
    with torch.no_grad():
        expected = model.hidden_states(batch)
        with model.padded_as("packed"):
            found = model.hidden_states(model.placed(batch))
    mask = batch["attention_mask"] != 0
    torch.testing.assert_close(found[mask], expected[mask], rtol=0, atol=1e-10)
    assert not torch.allclose(expected[mask], model.hidden_states(sentences(6, 3, 4))[mask])
    assert is_taken(model, batch)


def test_what_is_not_known_of_is_padded():
    model, batch = model_on("bert"), sentences(6, 3, 4)
    assert is_taken(model, batch)
    assert not is_taken(model, {**batch, "position_ids": torch.arange(6).expand(3, -1)})
    assert not is_taken(model, {**batch, "global_attention_mask": batch["attention_mask"]})
    empty = {key: value.clone() for key, value in batch.items()}
    empty["attention_mask"][1] = 0
    assert not is_taken(model, empty)


def test_a_norm_over_the_batch_is_padded():
    """It is the same in evaluation mode, where rows are tried."""
    model = model_on("bert")
    model.backbone.encoder.norm = torch.nn.BatchNorm1d(8).double()
    assert not is_taken(model, sentences(6, 3, 4))


def test_a_trial_moves_what_a_method_has_added():
    """Tokens may meet in it later, though it is zero at first: here a convolution."""
    model = model_on("bert")
    part = model.backbone.encoder.layer[0].output
    part.pemeta_mixed = torch.nn.Conv1d(8, 8, 3, padding=1).double()
    torch.nn.init.zeros_(part.pemeta_mixed.weight)
    torch.nn.init.zeros_(part.pemeta_mixed.bias)
    part.register_forward_hook(lambda part, given, out: out + part.pemeta_mixed(out.mT).mT)
    kept = part.pemeta_mixed.weight
    assert not is_taken(model, sentences(6, 3, 4))
    assert part.pemeta_mixed.weight is kept
    assert not kept.any()


def test_a_trial_moves_what_peft_has_put_beside_a_map():
    """Its names say nothing; the map itself keeps its values."""
    model = model_on("bert")
    output = model.backbone.encoder.layer[0].output
    around = torch.nn.Module()
    around.base_layer, around.lora_B = output.dense, torch.nn.ModuleDict({"default": torch.nn.Linear(3, 2)})
    output.dense = around
    kept = dict(around.named_parameters())
    with awake(model):
        moved = {name for name, value in around.named_parameters() if not torch.equal(value, kept[name])}
    assert moved == {"lora_B.default.weight", "lora_B.default.bias"}
    assert all(value is kept[name] for name, value in around.named_parameters())


def test_a_trial_that_cannot_tell_does_not_count():
    model = PEModel(ARCHITECTURES["bert"].backbone("eager").float(), Adapter(bottleneck=2))
    assert is_taken(model, sentences(6, 3, 4))
    model = PEModel(ARCHITECTURES["bert"].backbone("eager").float(), Adapter(bottleneck=2))
    with torch.no_grad():
        for layer in model.backbone.encoder.layer:
            layer.attention.output.dense.weight.mul_(1e-7)  # as a layer's factor may be at first
    assert not is_taken(model, sentences(6, 3, 4))


def test_what_attention_takes_from_positions_is_not_lost_where_scores_are_small_at_first():
    """RoFormer numbers positions by the row: by 8e-3 another result, of which newly drawn values show nothing."""
    backbone = animals.ROWS["roformer"].backbone("eager").float()
    assert not is_taken(PEModel(copy.deepcopy(backbone), Adapter(bottleneck=2)), sentences(6, 3, 4))
    with torch.no_grad():
        for weight in backbone.parameters():
            if weight.ndim > 1:
                weight.mul_(0.02 / weight.std())
    assert not is_taken(PEModel(backbone, Adapter(bottleneck=2)), sentences(6, 3, 4))


def test_rows_are_for_the_prompt_that_they_were_made_for():
    model = model_on("bert")
    model.padding = "packed"
    placed = model.placed(sentences(6, 3, 4))
    assert is_packed(model.placed(placed))
    model.attach(Prompt(length=3))
    with pytest.raises(ModelError, match="a prompt of 0 vectors, but the attached methods prepend 3"):
        model.hidden_states(placed)


def test_rows_are_of_the_inputs_that_a_batch_has():
    """Or what was changed after placed() would be left out of a pass."""
    model = model_on("bert")
    model.padding = "packed"
    batch = sentences(6, 3, 4)
    placed = model.placed(batch)
    copied = copy.deepcopy(placed)
    torch.testing.assert_close(model.hidden_states(copied), model.hidden_states(placed))
    with pytest.raises(ModelError, match="the input_ids of a batch are not those of its rows"):
        model.hidden_states({**placed, "input_ids": placed["input_ids"].flip(0)})
    for change in (
        {"attention_mask": sentences(6, 3, 3)["attention_mask"]},
        {"token_type_ids": torch.ones_like(batch["input_ids"])},
        {"position_ids": torch.arange(6).expand(3, -1)},
    ):
        with pytest.raises(ModelError, match=f"the {next(iter(change))} of a batch"):
            model.placed({**placed, **change})
    copied["input_ids"][0, 0] = 7
    with pytest.raises(ModelError, match="input_ids"):
        model.hidden_states(copied)


def test_facts_are_of_the_inputs_that_a_batch_has(monkeypatch):
    monkeypatch.setattr(packed_passes, "LEAST_SAVED", 0)  # of a tiny model
    model = model_on("bert")
    model.padding = "auto"
    placed = model.placed(sentences(6, 6, 6, 5))
    assert not is_packed(placed)
    changed = {**placed, **sentences(12, 3, 2, 2)}
    again = model.placed(changed)
    assert is_packed(again)
    with torch.no_grad():
        found, expected = model.hidden_states(again), model.hidden_states(sentences(12, 3, 2, 2))
    mask = changed["attention_mask"] != 0
    torch.testing.assert_close(found[mask], expected[mask])


def test_a_pass_over_rows_that_ends_early_leaves_the_next_as_it_is():
    """Its prompt stays in its rows, while that of another model is dropped at the end."""
    images = PEModel(ARCHITECTURES["vit"].backbone("sdpa"), Prompt(length=2))
    batch = ARCHITECTURES["vit"].inputs()
    expected = images.hidden_states(batch)
    model = model_on("bert", LoRA(rank=2, top_layers=1))
    model.attach(Prompt(length=3))
    model.padding = "packed"
    [reused] = model.reusing([model.placed(sentences(5, 3))])
    assert "input_of_layer_1" in reused
    torch.testing.assert_close(images.hidden_states(batch), expected)


def test_padding_on_the_left_stays():
    model = model_on("bert")
    model.padding = "packed"
    batch = {key: value.flip(1) for key, value in sentences(5, 3).items()}
    assert not is_packed(model.placed(batch))
    assert not is_packed(model.placed({"input_ids": batch["input_ids"]}))


def test_what_cannot_be_packed_is_told_once():
    model = model_on("deberta-v2")
    model.padding = "packed"
    with pytest.warns(UserWarning, match="DebertaV2Model gives other hidden states .* padding: padded or auto"):
        model.placed(sentences(5, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.placed(sentences(6, 1))
        model.padding = "auto"
        model.placed(sentences(5, 3))


def test_what_fails_with_short_sentences_is_not_tried_with_longer_ones(monkeypatch):
    """A server would try all forms for each size to come."""
    monkeypatch.setattr(packed_passes, "LEAST_SAVED", 0)  # of a tiny model
    model, passes = model_on("deberta-v2"), []
    model.padding = "auto"
    model.backbone.register_forward_pre_hook(lambda part, given: passes.append(1))
    model.placed(sentences(18, 3, 2))
    tried = len(passes)
    assert tried > 1
    model.placed(sentences(7, 2, 2))
    assert not model.packs
    assert len(passes) == tried


def test_auto_packs_where_it_saves_enough_work(monkeypatch):
    model = model_on("bert")
    model.padding = "auto"
    width, layers, batch = 8, 2, sentences(12, 3, 2, 2)
    assert (model.backbone.config.hidden_size, model.backbone.config.num_hidden_layers) == (width, layers)
    saved = (cost(4, 12, width) - cost(1, 19, width)) * width * layers
    assert saved < packed_passes.LEAST_SAVED
    for least, packs in ((packed_passes.LEAST_SAVED, False), (saved + 1, False), (saved, True)):
        monkeypatch.setattr(packed_passes, "LEAST_SAVED", least)
        assert is_packed(model.placed(batch)) == packs
    assert model.packed_batches == 1
    monkeypatch.setattr(packed_passes, "LEAST_SAVED", 0)
    assert not is_packed(model.placed(sentences(6, 6, 6, 5)))


def test_padding_is_one_of_three():
    model = model_on("bert")
    with pytest.raises(ConfigError, match="padding is one of auto, packed, padded; found 'none'"):
        model.padding = "none"
    assert model.padding == "padded"


def test_the_trial_draws_no_numbers_and_leaves_the_mode():
    model = model_on("bert").train()
    model.padding = "packed"
    before = torch.get_rng_state()
    assert is_packed(model.placed(sentences(5, 3)))
    assert torch.equal(torch.get_rng_state(), before)
    assert model.backbone.training
