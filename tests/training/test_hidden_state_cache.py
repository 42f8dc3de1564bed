"""Cached hidden states: same results in memory, in a file and without a cache; the file is removed; dropout."""

import dataclasses
import errno
import io
import shutil
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from architectures import ARCHITECTURES, backbone, batch
from tiny_models import TASKS, data, shaken, tiny
from tiny_tasks import EACH_KIND, tiny_gpt2
from torch import nn

from pemeta import EncodedBlocks, FineTuning, HeadOnly, PEModel, TokenClassification, evaluate, finetune
from pemeta.backbone.layer_reuse import has_dropout
from pemeta.methods import Adapter, LoRA, Prefix, Prompt
from pemeta.training import finetuning as finetuning_module
from pemeta.training import hidden_state_cache as module
from pemeta.training.hidden_state_cache import HiddenStateCache, hidden_state_bytes, with_hidden_states

TASK, VALIDATION = TASKS[0], data(7)
COMPARED = 5
"""Passes of four examples of different lengths, each by itself and as one batch, before anything is kept."""
QUICK = FineTuning(epochs=4, batch_size=5, lr=0.02)
OFF = QUICK.model_copy(update={"reuse_trunk": False})


@pytest.fixture
def temporary(monkeypatch, tmp_path):
    """An empty folder for temporary files, with enough space."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(module, "SPARE", 0)
    return tmp_path


@pytest.fixture
def in_file(monkeypatch, temporary):
    """All hidden states go to a file."""
    monkeypatch.setattr(module, "MEMORY", 0)
    return temporary


def mapped(folder) -> bool:
    """Whether this process has a file of a folder open or mapped, also one without a name."""
    maps = Path("/proc/self/maps").read_text()
    handles = [str(handle.readlink()) for handle in Path("/proc/self/fd").iterdir() if handle.is_symlink()]
    return str(folder) in maps or any(str(folder) in handle for handle in handles)


def counted(model):
    passes = []
    model.backbone.register_forward_pre_hook(lambda part, _: passes.append(part.training))
    return passes


def assert_same(models, histories, scores):
    for (name, a), b in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10, msg=name)
    assert histories[0].losses == pytest.approx(histories[1].losses, rel=0, abs=1e-10)
    assert histories[0].validation_scores == pytest.approx(histories[1].validation_scores, rel=0, abs=1e-10)
    assert histories[0].best_epoch == histories[1].best_epoch
    assert scores[0].main == pytest.approx(scores[1].main, rel=0, abs=1e-10)


def check_same_as_off(make, task, validation, settings, fast_passes):
    """Fine-tune with the cache and without; count the backbone's passes with it."""
    models, histories, scores = [make(), make()], [], []
    passes = [counted(model) for model in models]
    for model, chosen in zip(models, (settings, settings.model_copy(update={"reuse_trunk": False})), strict=True):
        histories.append(finetune(model, task, validation, chosen, progress=False))
    asked = isinstance(task.train, EncodedBlocks)  # a new language-modelling head runs the backbone once
    assert (len(passes[0]), len(passes[1])) == (asked + fast_passes, asked + 4 * (3 + 1))
    scores = [evaluate(model, validation, task.name) for model in models]
    assert_same(models, histories, scores)


@pytest.mark.parametrize("place", ["memory", "file"])
@pytest.mark.parametrize(("task", "validation"), EACH_KIND, ids=[data.kind for _, data in EACH_KIND])
def test_memory_file_and_off_are_the_same(place, task, validation, request):
    if place == "file":
        request.getfixturevalue("in_file")
    check_same_as_off(tiny_gpt2, task, validation, QUICK, fast_passes=2 + COMPARED)


@pytest.mark.parametrize("place", ["memory", "file"])
@pytest.mark.parametrize("dropout", [False, True])
def test_dropout_after_the_cached_hidden_states_still_applies(place, dropout, request):
    """A head's dropout, on a backbone without any: the same masks, in training only."""
    if place == "file":
        request.getfixturevalue("in_file")
    head = TokenClassification(labels=TASK.train.labels.tags, dropout=0.5)
    task = dataclasses.replace(TASK, make_head=head)
    settings = QUICK.model_copy(update={"dropout": dropout})
    check_same_as_off(lambda: tiny(dropout=0.0), task, VALIDATION, settings, fast_passes=2 + COMPARED)
    losses = [finetune(tiny(dropout=0.0), t, VALIDATION, settings, progress=False).losses for t in (task, TASK)]
    assert (losses[0] == losses[1]) is not dropout


def test_only_validation_is_cached_if_the_backbone_has_dropout(in_file):
    settings = QUICK.model_copy(update={"dropout": True})
    check_same_as_off(lambda: tiny(dropout=0.5), TASK, VALIDATION, settings, fast_passes=1 + 4 * 3 + COMPARED)


def test_hidden_states_that_came_with_the_data_are_not_used_with_the_cache_off():
    stale = dataclasses.replace(TASK, train=with_hidden_states(tiny(HeadOnly()), TASK.train))
    histories = []
    for task, validation in ((TASK, VALIDATION), (stale, with_hidden_states(tiny(HeadOnly()), VALIDATION))):
        model = tiny()
        with torch.no_grad():
            model.backbone.embeddings.word_embeddings.weight.mul_(2)
        histories.append(finetune(model, task, validation, OFF, progress=False))
    assert histories[0].losses == histories[1].losses
    assert histories[0].validation_scores == histories[1].validation_scores


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_file_holds_every_type_of_numbers_bit_by_bit(dtype, in_file):
    model = tiny(HeadOnly()).to(dtype)
    expected = with_hidden_states(model, VALIDATION, batch_size=32).trunk
    with HiddenStateCache(model) as cache:
        held = cache.hold(VALIDATION)
        assert all(map(torch.equal, held.trunk, expected))
        assert {row.dtype for row in held.trunk} == {dtype}
        assert [len(row) for row in held.trunk] == [len(ids) for ids in VALIDATION.input_ids]
        size = sum(row.numel() * row.element_size() for row in held.trunk)
        assert size == hidden_state_bytes(model, VALIDATION) == held.trunk[0].untyped_storage().nbytes()
    assert held.trunk is None


def test_sizes_add_up_to_the_limit_and_what_is_over_goes_to_a_file(temporary, monkeypatch):
    model, files = tiny(), []
    original = module.map_hidden_states
    monkeypatch.setattr(module, "map_hidden_states", lambda *a: files.append(a[2]) or original(*a))
    validation, train = (hidden_state_bytes(model, one) for one in (VALIDATION, TASK.train))
    for limit, expected in (
        (validation + train, 0),
        (validation + train - 1, 1),
        (validation, 1),
        (min(validation, train) - 1, 2),
    ):
        monkeypatch.setattr(module, "MEMORY", limit)
        files.clear()
        with HiddenStateCache(model) as cache:
            held = [cache.hold(VALIDATION), cache.hold(TASK.train)]
            assert all(one.trunk is not None for one in held)
        assert len(files) == expected, limit


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("error", [None, KeyboardInterrupt, ValueError])
def test_the_file_is_gone_afterwards_whatever_happens(error, in_file, monkeypatch):
    seen = []

    def evaluate_and_look(*arguments):
        seen.append(mapped(in_file))
        if error is not None:
            raise error
        return evaluate(*arguments)

    monkeypatch.setattr(finetuning_module, "evaluate", evaluate_and_look)
    if error is None:
        finetune(tiny(), TASK, VALIDATION, QUICK, progress=False)
    else:
        with pytest.raises(error) as raised:
            finetune(tiny(), TASK, VALIDATION, QUICK, progress=False)
        assert raised.tb is not None  # which holds what finetune held
    assert set(seen) == {True}
    assert not mapped(in_file)
    assert not list(in_file.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_file_is_gone_if_writing_it_is_interrupted(in_file, monkeypatch):
    model, seen = tiny(), []

    def interrupt(*_):
        seen.append(mapped(in_file))
        if len(seen) > COMPARED:
            raise KeyboardInterrupt

    model.backbone.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        finetune(model, TASK, VALIDATION, QUICK, progress=False)
    assert seen == [False] * COMPARED + [True]
    assert not mapped(in_file)
    assert not list(in_file.iterdir())


class Full(io.BytesIO):
    def write(self, *_):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("free", "file", "message"),
    [
        (2**30, io.BytesIO, r"\(1.0 GiB are free in .*, of which 1.0 stay free\)"),
        (2**40, Full, r"\(\[Errno 28\] No space left on device\)"),
    ],
    ids=["before", "while writing"],
)
def test_without_space_all_is_recomputed_and_one_warning_says_so(free, file, message, in_file, monkeypatch):
    monkeypatch.setattr(module, "SPARE", 2**30)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    monkeypatch.setattr(tempfile, "TemporaryFile", file)
    models, histories = [tiny(), tiny()], []
    with pytest.warns(
        UserWarning, match=f"GiB of hidden states cannot be kept {message}.*so each epoch recomputes them"
    ) as warned:
        histories.append(finetune(models[0], TASK, VALIDATION, QUICK, progress=False))
    assert [warning.filename for warning in warned] == [__file__]
    histories.append(finetune(models[1], TASK, VALIDATION, OFF, progress=False))
    assert_same(models, histories, [evaluate(model, VALIDATION, "en") for model in models])


def test_a_file_needs_room_for_itself_and_some_to_spare(in_file, monkeypatch):
    model = tiny()
    size = hidden_state_bytes(model, VALIDATION)
    monkeypatch.setattr(module, "SPARE", 1000)
    for free, kept in ((size + 1000, True), (size + 999, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        with HiddenStateCache(model) as cache:
            if kept:
                assert cache.hold(VALIDATION).trunk is not None
            else:
                with pytest.warns(UserWarning, match="cannot be kept"):
                    assert cache.hold(VALIDATION).trunk is None


def own_dropout(name: str) -> bool:
    """Whether a configuration's key is of the backbone's own dropout, and not of a head's."""
    return "drop" in name and not any(word in name for word in ("classif", "summary", "qa", "pooler"))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_which_backbones_have_dropout(architecture):
    """Any dropout that changes the output of a pass in training mode is found."""
    row = ARCHITECTURES[architecture]
    names = [name for name in backbone(architecture).config.to_dict() if "drop" in name]
    assert any(map(own_dropout, names))  # or there is nothing to find
    assert not has_dropout(backbone(architecture))
    inputs = {key: value for key, value in batch(architecture).items() if key != "labels"}
    for name in names:
        model = dataclasses.replace(row, fields=row.fields | {name: 0.3}).backbone()
        with torch.no_grad():
            differs = not torch.equal(model(**inputs)[0], model.train()(**inputs)[0])
        assert has_dropout(model) == own_dropout(name), name
        assert has_dropout(model) or not differs, name


class DropPath(nn.Module):
    def __init__(self, drop_prob=None):
        super().__init__()
        self.drop_prob = drop_prob


class DropBlock(nn.Module):
    """A configuration without a dropout rate under a known name."""


@pytest.mark.parametrize(
    ("part", "config", "expected"),
    [
        (nn.Linear(2, 2), {}, False),
        (nn.Dropout1d(0.2), {}, True),
        (nn.AlphaDropout(0.0), {}, False),
        (DropPath(0.1), {}, True),
        (DropPath(), {}, False),
        (DropBlock(), {}, True),
        (nn.BatchNorm1d(2), {}, True),
        (nn.Linear(2, 2), {"encoder_layerdrop": 0.1}, True),
        (nn.Linear(2, 2), {"encoder_layerdrop": 0, "dropout": None, "classifier_dropout": 0.5}, False),
        (nn.Linear(2, 2), {"text_config": {"attention_dropout": 0.1}}, True),
        (nn.Linear(2, 2), {"drop_path_rates": [0.0, 0.1]}, True),
        (nn.Linear(2, 2), {"router_jitter_noise": 0.01}, True),
        (nn.Linear(2, 2), {"mask_time_prob": 0.05}, True),
        (nn.Linear(2, 2), {"mask_time_prob": 0.0, "mask_time_length": 10}, False),
    ],
)
def test_what_counts_as_dropout(part, config, expected):
    whole = nn.Sequential(nn.Sequential(part))
    whole.config = SimpleNamespace(to_dict=lambda: config)
    assert has_dropout(whole) is expected


def test_a_method_in_the_layers_keeps_nothing(in_file):
    with HiddenStateCache(tiny(LoRA(rank=2))) as cache:
        assert cache.hold(VALIDATION).trunk is None


TOP = {
    "lora": LoRA(rank=2, top_layers=1),
    "houlsby": Adapter(bottleneck=4, placement="houlsby", top_layers=1),
    "prefix": Prefix(length=3, top_layers=1),
}


@pytest.mark.parametrize("place", ["memory", "file"])
@pytest.mark.parametrize("name", TOP)
def test_layers_below_theta_a_run_once_per_example(name, place, request):
    if place == "file":
        request.getfixturevalue("in_file")
    models = [shaken(tiny(TOP[name], dropout=0.0)) for _ in range(2)]
    lowest, found = [[], []], []
    for model, passes, settings in zip(models, lowest, (QUICK, OFF), strict=True):
        model.backbone.encoder.layer[0].register_forward_pre_hook(lambda *_, passes=passes: passes.append(1))
        history = finetune(model, TASK, VALIDATION, settings, progress=False)
        found.append((history, evaluate(model, VALIDATION, TASK.name)))
    # One batch of each, and one evaluation without the cache.
    assert (len(lowest[0]), len(lowest[1])) == (2 + COMPARED + 1, 4 * (3 + 1) + 1)
    assert_same(models, *zip(*found, strict=True))


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "vit"])
def test_examples_held_at_a_layer_give_the_same_logits(architecture):
    """In batches of other lengths than those in which the hidden states were computed."""
    model = PEModel(backbone(architecture), TOP["lora"])
    model.add_head("en", TASK.make_head)
    held, plain = with_hidden_states(model.eval(), VALIDATION), VALIDATION
    assert (held.trunk is None) == (architecture in ("t5", "mt5"))
    for indices in ([0], [1, 2], [5, 3, 8, 1]):
        expected, batch = model(plain.batch(indices), "en"), held.batch(indices)
        assert any(key.startswith("input_of_layer_1") for key in batch) == (held.trunk is not None)
        real = batch["attention_mask"].bool()
        torch.testing.assert_close(model(batch, "en")[real], expected[real], rtol=0, atol=1e-6)


def test_a_prompt_before_the_sequence_disables_the_cache():
    model = tiny(TOP["lora"])
    assert module.keeps(model, VALIDATION)
    model.attach(Prompt(length=2))
    assert not module.keeps(model, VALIDATION)
    assert with_hidden_states(model, VALIDATION).trunk is None


@pytest.mark.parametrize(("share", "on_device"), [(4.1, True), (3.9, False)])
def test_on_a_gpu_they_stay_there_if_they_fit(share, on_device, monkeypatch):
    """Of its spare memory up to a quarter; the results are the same."""
    task, size = TASKS[0], hidden_state_bytes(tiny(), TASKS[0].train)
    expected = finetune(shaken(tiny()), task, VALIDATION, QUICK, progress=False)
    places = []
    kept = module._with_hidden_states_in_memory

    def recorded(model, examples, *arguments, device=None):
        places.append((examples is task.train, device))
        return kept(model, examples, *arguments)

    monkeypatch.setattr(module, "_with_hidden_states_in_memory", recorded)
    monkeypatch.setattr(module, "spare_memory", lambda device: int(share * size))
    with HiddenStateCache(tiny()) as cache:
        assert cache.hold(task.train).trunk is not None
    assert places == [(True, torch.device("cpu") if on_device else None)]
    found = finetune(shaken(tiny()), task, VALIDATION, QUICK, progress=False)
    assert found.losses == expected.losses


def test_hidden_states_on_a_gpu_are_not_copied_from_it(monkeypatch):
    """Every row is made where the model is."""
    moves, to = [], torch.Tensor.to

    def recorded(tensor, *arguments, **options):
        moves.append(arguments)
        return to(tensor, *arguments, **options)

    model, device = tiny(), torch.device("cpu", 0)
    monkeypatch.setattr(torch.Tensor, "to", recorded)
    module._with_hidden_states_in_memory(model, TASKS[0].train, device=device)
    assert moves.count((device,)) == -(-len(TASKS[0].train) // 32)
