"""States of training runs: the last two are kept, damage is noticed, and a run goes on as if nothing had been."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from interrupted_runs import interrupt_at, same
from tiny_models import METHODS, TASKS, data, tiny

from pemeta import FineTuning, MetaPriming, Task, finetune, prime
from pemeta.errors import ConfigError, NotFiniteError, OutputError, TrainingError
from pemeta.model.pe_model import PEModel
from pemeta.training import checkpoints as checkpoint
from pemeta.training import finetuning
from pemeta.training.checkpoints import previous_of, remove_checkpoint
from pemeta.training.optimizer import MOST_SKIPPED, Optimization
from pemeta.utils.files import read_tensors, write_tensors

PRIMING = MetaPriming(outer_steps=7, outer_lr=0.01, support_size=3, query_size=3, inner_dropout=True)
TARGET = Task.token_classification("af", data(5))
VALIDATION = data(6)
FINE_TUNING = FineTuning(epochs=4, batch_size=5, lr=0.05, dropout=True)  # three steps an epoch

primed = partial(prime, tasks=TASKS, algorithm=PRIMING, seed=3, progress=False)
fine_tuned = partial(finetune, task=TARGET, validation=VALIDATION, settings=FINE_TUNING, seed=3, progress=False)


@pytest.mark.parametrize("step", range(1, 13))
def test_fine_tuning_goes_on_from_any_step(tmp_path, monkeypatch, step):
    """With dropout, so that the random generators count."""
    whole, path = tiny(), tmp_path / "c.safetensors"
    history = fine_tuned(whole)
    interrupt_at(monkeypatch, step)
    parts = tiny()
    with pytest.raises(KeyboardInterrupt, match=f"fine-tuning af stopped after step {step} of 12"):
        fine_tuned(parts, checkpoint=path)
    torch.rand(100)  # whatever else happens between the two
    parts = tiny()
    again = fine_tuned(parts, checkpoint=path)
    assert (again.losses, again.validation_scores) == (history.losses, history.validation_scores)
    assert again.best_epoch == history.best_epoch
    assert same(whole, parts)
    remove_checkpoint(path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", METHODS)
def test_every_method_s_fine_tuning_goes_on(tmp_path, monkeypatch, name):
    method, _ = METHODS[name]
    whole, parts, path = tiny(method), tiny(method), tmp_path / "c.safetensors"
    history = fine_tuned(whole)
    interrupt_at(monkeypatch, 8)
    with pytest.raises(KeyboardInterrupt):
        fine_tuned(parts, checkpoint=path, checkpoint_every=2)
    parts = tiny(method)
    again = fine_tuned(parts, checkpoint=path)
    assert (again.losses, again.validation_scores) == (history.losses, history.validation_scores)
    assert same(whole, parts)


def test_an_interrupt_in_the_last_validation_is_not_lost(tmp_path, monkeypatch):
    """Whoever interrupts a grid there means the grid."""
    path, whole, parts = tmp_path / "c.safetensors", tiny(), tiny()
    history = fine_tuned(whole)
    calls = interrupt_at(monkeypatch, FINE_TUNING.epochs, finetuning, "evaluate")
    with pytest.raises(KeyboardInterrupt, match="fine-tuning af stopped after step 12 of 12"):
        fine_tuned(tiny(), checkpoint=path)
    assert fine_tuned(parts, checkpoint=path).validation_scores == history.validation_scores
    assert len(calls) == FINE_TUNING.epochs
    assert same(whole, parts)


def test_states_that_take_long_to_save_are_saved_less_often(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    at = checkpoint.Checkpoint(tmp_path / "c.safetensors", {}, torch.device("cpu"))
    assert [at.due(step, 4) for step in range(1, 9)] == [False, False, False, True] * 2

    def slow(*_):
        now[0] += 3.0

    monkeypatch.setattr(checkpoint, "write_tensors", slow)
    at.save({}, Optimization([torch.nn.Parameter(torch.ones(1))], 0.1, 5), {})
    now[0] += 59
    assert not at.due(4, 4)
    now[0] += 2
    assert at.due(4, 4)
    assert not at.due(5, 4)


def run_both(kind):
    """The run whose checkpoints a test looks at."""
    return primed if kind == "priming" else fine_tuned


@pytest.mark.parametrize("kind", ["priming", "fine-tuning"])
@pytest.mark.parametrize("damage", ["truncated", "a bit", "missing", "not whole"])
def test_where_the_last_state_is_damaged_the_one_before_it_counts(tmp_path, capsys, kind, damage):
    run, path = run_both(kind), tmp_path / "c.safetensors"
    whole, parts = tiny(), tiny()
    history = run(whole)
    run(tiny(), checkpoint=path, checkpoint_every=2)
    before = path.read_bytes()
    if damage == "missing":  # killed between putting the last one aside and writing the next
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(before[:-9])
    elif damage == "a bit":
        path.write_bytes(before[:-9] + bytes([before[-9] ^ 1]) + before[-8:])
    else:
        path.write_bytes(b"")
    again = run(parts, checkpoint=path)
    assert again.losses == history.losses
    assert same(whole, parts)
    told = capsys.readouterr().err
    assert (f"cannot read {path}: " in told) == (damage != "missing")
    assert ("going on from the state before it" in told) == (damage != "missing")


@pytest.mark.parametrize("kind", ["priming", "fine-tuning"])
def test_a_damaged_state_does_not_take_the_place_of_the_one_before(tmp_path, monkeypatch, kind):
    run, path = run_both(kind), tmp_path / "c.safetensors"
    run(tiny(), checkpoint=path, checkpoint_every=2)
    good = previous_of(path).read_bytes()
    path.write_bytes(path.read_bytes()[:-9])
    monkeypatch.setattr(
        "pemeta.training.checkpoints.write_tensors", lambda *_: (_ for _ in ()).throw(OutputError("full"))
    )
    with pytest.raises(OutputError, match="full"):
        run(tiny(), checkpoint=path, checkpoint_every=1)
    assert previous_of(path).read_bytes() == good


def test_a_validation_score_that_is_not_finite_is_an_error(monkeypatch):
    monkeypatch.setattr(finetuning, "evaluate", lambda *_: SimpleNamespace(main=float("nan")))
    with pytest.raises(TrainingError, match="fine-tuning af, epoch 1: the validation score is nan; lower lr"):
        fine_tuned(tiny())


@pytest.mark.parametrize("run", [primed, fine_tuned])
@pytest.mark.parametrize(
    ("given", "says"), [({"not_finite": "Skip"}, "found 'Skip'"), ({"checkpoint_every": 0}, "found 0")]
)
def test_a_choice_that_there_is_not(run, given, says):
    with pytest.raises(ConfigError, match=says):
        run(tiny(), **given)


@pytest.mark.parametrize("kind", ["priming", "fine-tuning"])
def test_where_both_states_are_damaged_nothing_is_begun_anew(tmp_path, kind):
    run, path = run_both(kind), tmp_path / "c.safetensors"
    run(tiny(), checkpoint=path, checkpoint_every=2)
    for file in (path, previous_of(path)):
        file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(OutputError, match=r"c.safetensors: .*; remove it to have it recreated"):
        run(tiny(), checkpoint=path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("random.cpu", torch.zeros(3, dtype=torch.uint8)),
        ("random.cpu", torch.zeros(3)),
        ("random.cpu", None),
        ("optimizer.first.exp_avg", torch.zeros(3)),
        ("optimizer.9999.exp_avg", torch.zeros(3)),
        ("optimizer.0.exp_avg", torch.zeros(3)),
        ("optimizer.0.exp_avg", None),
        ("groups", []),
        ("groups", 1),
        ("schedule", []),
        ("schedule", {"nothing": 1}),
        ("loss_scale", [1.0]),
        ("about", None),
        ("about", {"losses": 1}),
    ],
)
@pytest.mark.parametrize("kind", ["priming", "fine-tuning"])
def test_a_state_that_is_whole_and_makes_no_sense_is_refused(tmp_path, kind, name, value):
    run, path = run_both(kind), tmp_path / "c.safetensors"
    run(tiny(), checkpoint=path, checkpoint_every=2)
    tensors, beside = read_tensors(path)
    place = beside if name in beside else tensors
    place[name] = value
    write_tensors(path, {key: tensor for key, tensor in tensors.items() if tensor is not None}, beside)
    with pytest.raises(OutputError, match=r"cannot continue from .*c.safetensors: .*; remove it to start again"):
        run(tiny(), checkpoint=path)


def test_a_state_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "c.safetensors"
    fine_tuned(tiny(), checkpoint=path, checkpoint_every=2)
    last = path.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pemeta.utils.files.save_file", full)
    with pytest.raises(OutputError, match="No space left on device"):
        fine_tuned(tiny(), checkpoint=path, checkpoint_every=1)
    monkeypatch.undo()
    assert previous_of(path).read_bytes() == last
    whole, parts = tiny(), tiny()
    assert fine_tuned(parts, checkpoint=path).losses == fine_tuned(whole).losses
    assert same(whole, parts)


def test_fine_tuning_of_another_run_is_refused_and_the_difference_named(tmp_path):
    path = tmp_path / "c.safetensors"
    fine_tuned(tiny(), checkpoint=path, checkpoint_every=2)
    for changes, says in (
        ({"settings": FINE_TUNING.model_copy(update={"lr": 0.5})}, r"settings.lr was 0.05 and is 0.5 now"),
        ({"validation": data(7)}, r"data.validation was '\w+' and is '\w+' now"),
        (
            {"task": Task.token_classification("nl", data(5))},
            r"task was 'af' and is 'nl' now, initial values was '\w+' and is '\w+' now",
        ),
    ):
        with pytest.raises(OutputError, match=f"because the run has changed: {says}; put that back, or remove"):
            fine_tuned(tiny(), checkpoint=path, **changes)
    model = tiny()
    with torch.no_grad():
        model.backbone.embeddings.word_embeddings.weight[3] += 1
    with pytest.raises(OutputError, match="because the run has changed: initial values was"):
        fine_tuned(model, checkpoint=path)
    with pytest.raises(OutputError, match=r"because the run has changed: .*\(and \d+ more\); put that back"):
        primed(tiny(), checkpoint=path)  # it is no state of priming


def test_a_checkpoint_says_what_it_is_of(tmp_path):
    path = tmp_path / "c.safetensors"
    primed(tiny(), checkpoint=path, checkpoint_every=2)
    beside = read_tensors(path)[1]
    assert beside["identity"]["settings"]["outer_lr"] == 0.01
    assert beside["identity"]["seed"] == 3
    assert len(beside["about"]["losses"]) == 6
    assert len(read_tensors(previous_of(path))[1]["about"]["losses"]) == 4


# What is not finite


def not_finite_at(monkeypatch, *calls):
    """Let some losses, counted from 1, be not finite."""
    original, seen = PEModel.loss, []

    def loss(self, *arguments):
        seen.append(1)
        found = original(self, *arguments)
        return found * float("nan") if len(seen) in calls else found

    monkeypatch.setattr(PEModel, "loss", loss)


def test_a_priming_step_that_is_not_finite_is_left_out_where_that_is_wanted(tmp_path, monkeypatch):
    """Two tasks, five inner losses and an outer one for each: the second step is losses 13 to 24."""
    algorithm = MetaPriming(outer_steps=4, outer_lr=0.01, support_size=3, query_size=3)
    path = tmp_path / "c.safetensors"
    for broken in (13, 18, 24):  # within the inner loop, the first query loss, the last one
        model = tiny()
        not_finite_at(monkeypatch, broken)
        history = prime(model, TASKS, algorithm, progress=False, not_finite="skip", checkpoint=path, checkpoint_every=2)
        monkeypatch.undo()
        assert history.skipped == [2]
        assert len(history.losses) == 3
        assert all(torch.isfinite(p).all() for p in model.parameters())
        assert history.warnings() == ["1 of 4 outer steps skipped, because something was not finite"]
        assert read_tensors(path)[1]["about"]["skipped"] == [2]
        remove_checkpoint(path)
    not_finite_at(monkeypatch, 13)
    with pytest.raises(TrainingError, match="priming, step 2: the inner loss of step 1 is nan; lower inner_lr"):
        prime(tiny(), TASKS, algorithm, progress=False)


def test_a_step_that_is_left_out_leaves_everything_as_it_was(monkeypatch):
    """As if the step had not been: another run without it, whose sampler goes on with the next, is the same."""
    algorithm = MetaPriming(outer_steps=3, outer_lr=0.01, support_size=3, query_size=3)
    skipping, leaving_out = tiny(), tiny()
    not_finite_at(monkeypatch, 24)
    prime(skipping, TASKS, algorithm, progress=False, not_finite="skip")
    monkeypatch.undo()

    original = MetaPriming.accumulate
    calls = []

    def accumulate(self, model, episodes, step=None):
        calls.append(1)
        if len(calls) == 2:
            raise NotFiniteError("it is")
        return original(self, model, episodes, step)

    monkeypatch.setattr(MetaPriming, "accumulate", accumulate)
    prime(leaving_out, TASKS, algorithm, progress=False, not_finite="skip")
    assert same(skipping, leaving_out)


def test_fine_tuning_steps_that_are_not_finite_are_left_out_where_that_is_wanted(monkeypatch):
    not_finite_at(monkeypatch, 2, 9)
    model = tiny()
    history = fine_tuned(model, not_finite="skip")
    assert history.skipped == (2, 9)
    assert all(loss == loss and loss < 10 for loss in history.losses)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    monkeypatch.undo()
    not_finite_at(monkeypatch, 9)
    with pytest.raises(TrainingError, match="fine-tuning af, epoch 3: the loss is nan; lower lr"):
        fine_tuned(tiny())


@pytest.mark.parametrize("kind", ["priming", "fine-tuning"])
def test_too_many_steps_in_a_row_end_the_run(monkeypatch, kind):
    not_finite_at(monkeypatch, *range(1, 1000))
    longer = {"algorithm": PRIMING.model_copy(update={"outer_steps": 50})} if kind == "priming" else {}
    with pytest.raises(TrainingError, match=rf"step {MOST_SKIPPED}, like the {MOST_SKIPPED - 1} before it: the .*nan"):
        run_both(kind)(tiny(), not_finite="skip", **longer)


def test_an_inner_loop_that_explodes_is_told(monkeypatch):
    history = prime(tiny(), TASKS, MetaPriming(outer_steps=2, support_size=3, query_size=3), progress=False)
    assert (history.exploded, history.warnings()) == (0, [])
    exploding = MetaPriming(outer_steps=2, support_size=3, query_size=3, inner_lr=4.0)
    history = prime(tiny(), TASKS, exploding, progress=False)
    assert history.exploded == 2
    assert history.warnings() == [
        "in 2 of 2 outer steps the inner loop more than doubled the support loss; lower inner_lr"
    ]
