"""Callbacks of the training loop: what they see of priming and of fine-tuning, and what they can do."""

import io
import json
import math
import re
import signal
import sys
from functools import partial
from types import ModuleType, SimpleNamespace

import pytest
import torch
from interrupted_runs import interrupt_at, same
from tiny_models import TASKS, data, tiny
from tqdm.auto import tqdm

from pemeta import FineTunePriming, FineTuning, MetaPriming, Task, finetune, prime
from pemeta.errors import ConfigError, DataError, OutputError, TrainingError
from pemeta.methods import BitFit, Full, LoRA
from pemeta.model.pe_model import PEModel
from pemeta.priming.validation import PrimingValidation
from pemeta.training import finetuning
from pemeta.training.callbacks import TRACKERS, Callback, EarlyStopping, JsonLog, ProgressBar, Tracker, Validation
from pemeta.training.callbacks.progress import LAYOUT
from pemeta.training.callbacks.tracker import step_numbers
from pemeta.training.checkpoints import remove_checkpoint
from pemeta.training.evaluation import evaluate
from pemeta.utils import messages
from pemeta.utils.distributed import Processes

PRIMING = MetaPriming(outer_steps=5, outer_lr=0.01, support_size=3, query_size=3, inner_steps=2, warmup_steps=2)
TARGET = Task.token_classification("af", data(5))
VALIDATION = data(6)
FINE_TUNING = FineTuning(epochs=4, batch_size=5, lr=0.05)  # three steps an epoch
OTHERS = [(Task.token_classification("nl", data(8)), data(9)), (Task.token_classification("de", data(10)), data(11))]
VALIDATED = PRIMING.model_copy(
    update={"validate_every": 2, "validation_finetuning": FineTuning(epochs=2, batch_size=5, lr=0.05)}
)

primed = partial(prime, tasks=TASKS, algorithm=PRIMING, seed=3, progress=False)
fine_tuned = partial(finetune, task=TARGET, validation=VALIDATION, settings=FINE_TUNING, seed=3, progress=False)
validated = partial(primed, algorithm=VALIDATED, validation_tasks=OTHERS)


class Witness(Callback):
    """Takes down every event, and what its state was."""

    def __init__(self, **actions):
        self.events, self.reports, self.actions, self.state = [], [], actions, None

    def see(self, event, state):
        self.state = state
        self.events.append((event, state.step))
        self.actions.get(event, lambda _: None)(state)

    def on_start(self, state):
        self.see("start", state)

    def on_step(self, state):
        self.reports.append(state.last)
        self.see("step", state)

    def on_validation(self, state):
        self.see("validation", state)

    def on_checkpoint(self, state):
        self.see("checkpoint", state)

    def on_end(self, state):
        self.see(f"end: {state.outcome}", state)


# What they see


def test_the_events_of_priming(tmp_path):
    outcomes = set()
    watched = {event: lambda state: outcomes.add(state.outcome) for event in ("start", "step", "checkpoint")}
    witness = Witness(**watched)
    history = primed(tiny(), checkpoint=tmp_path / "c.safetensors", checkpoint_every=2, callbacks=[witness])
    assert witness.events == [
        ("start", 0),
        ("step", 1),
        ("step", 2),
        ("checkpoint", 2),
        ("step", 3),
        ("step", 4),
        ("checkpoint", 4),
        ("step", 5),
        ("end: finished", 5),
    ]
    assert [report.losses["outer"] for report in witness.reports] == [losses.outer for losses in history.losses]
    inner = [tuple(report.losses[f"inner/{k}"] for k in (1, 2)) for report in witness.reports]
    assert inner == [losses.inner for losses in history.losses]
    assert [report.learning_rate for report in witness.reports] == pytest.approx([0, 0.005, 0.01, 0.02 / 3, 0.01 / 3])
    assert outcomes == {"running"}
    assert (witness.state.kind, witness.state.name, witness.state.total) == ("priming", "priming", 5)
    assert witness.state.settings["priming"]["outer_steps"] == 5
    assert witness.state.settings["sources"] == ["en", "es"]
    json.dumps(witness.state.settings)


def test_the_events_of_fine_tuning(tmp_path):
    witness = Witness()
    history = fine_tuned(tiny(), callbacks=[witness])
    epoch = ["step", "step", "step", "validation"]
    assert [event for event, _ in witness.events] == ["start", *(epoch * 4), "end: finished"]
    assert tuple(one.score for one in witness.state.validations) == history.validation_scores
    assert witness.state.validations[0].values.keys() == {"f1", "precision", "recall"}
    losses = [report.losses["train"] for report in witness.reports]
    means = [sum(losses[i : i + 3]) / 3 for i in range(0, 12, 3)]
    assert means == pytest.approx(history.losses)
    assert witness.state.name == "fine-tuning af"
    assert witness.state.settings["finetuning"]["epochs"] == 4
    json.dumps(witness.state.settings)


def test_a_step_is_measured():
    witness = Witness()
    fine_tuned(tiny(), callbacks=[witness])
    lengths = sum(TARGET.train.length(i) for i in range(len(TARGET.train)))
    assert sum(report.tokens for report in witness.reports[:3]) == lengths  # an epoch has every example once
    assert sum(report.examples for report in witness.reports[:3]) == len(TARGET.train)
    assert [report.number for report in witness.reports] == list(range(1, 13))
    for report in witness.reports:
        assert report.seconds > 0
        assert report.tokens_per_second == report.tokens / report.seconds
        assert report.memory > 2**20
        assert report.skipped is None


def test_the_gradient_norm_is_that_before_clipping(monkeypatch):
    """Against the norm of the gradients themselves, which a smaller limit then changes."""
    norms, original = [], torch.nn.utils.clip_grad_norm_

    def clip(parameters, most, **options):
        norms.append(math.sqrt(sum(float((p.grad**2).sum()) for p in parameters if p.grad is not None)))
        return original(parameters, most, **options)

    monkeypatch.setattr("pemeta.training.optimizer.nn.utils.clip_grad_norm_", clip)
    witness = Witness()
    primed(tiny(), algorithm=PRIMING.model_copy(update={"max_grad_norm": 1e-3}), callbacks=[witness])
    assert [report.gradient_norm for report in witness.reports] == pytest.approx(norms)
    assert min(norms) > 1e-3


def test_phases_are_timed():
    witness = Witness()
    primed(tiny(), callbacks=[witness])
    for report in witness.reports:
        assert {"inner loop", "query pass"} <= report.phases.keys()
        assert 0 < report.phases["inner loop"] < report.seconds


def test_a_skipped_step_is_seen(monkeypatch):
    original, calls = PEModel.loss, []

    def loss(self, *arguments):
        calls.append(1)
        return original(self, *arguments) * (float("nan") if len(calls) == 2 else 1)

    monkeypatch.setattr(PEModel, "loss", loss)
    witness = Witness()
    history = fine_tuned(tiny(), not_finite="skip", callbacks=[witness])
    assert history.skipped == (2,)
    assert [report.skipped is not None for report in witness.reports] == [False, True, *[False] * 10]
    assert "the loss is nan" in witness.reports[1].skipped
    assert (witness.reports[1].losses, witness.reports[1].gradient_norm) == ({}, None)


def test_an_interrupt_saves_a_checkpoint_that_is_seen(tmp_path):
    witness = Witness(step=lambda state: state.step == 2 and signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        primed(tiny(), checkpoint=tmp_path / "c.safetensors", callbacks=[witness])
    assert witness.events[-2:] == [("checkpoint", 2), ("end: interrupted", 2)]


@pytest.mark.parametrize("run", [primed, fine_tuned])
def test_an_interrupt_counts_where_nothing_is_left_to_do(tmp_path, run):
    """The run is at its end when it starts: the interrupt is not lost, and nothing of the run is."""
    path, stop = tmp_path / "c.safetensors", Witness(start=lambda _: signal.raise_signal(signal.SIGINT))
    whole = run(tiny(), checkpoint=path, callbacks=[Witness(step=lambda state: state.request_checkpoint())])
    for _ in range(2):  # fine-tuning has its last validation left, the first time
        with pytest.raises(KeyboardInterrupt):
            run(tiny(), checkpoint=path, callbacks=[stop])
    again = run(tiny(), checkpoint=path)
    assert again.losses == whole.losses


def test_a_second_interrupt_is_immediate(tmp_path):
    def twice(_):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    witness = Witness(step=twice)
    with pytest.raises(KeyboardInterrupt):
        fine_tuned(tiny(), checkpoint=tmp_path / "c.safetensors", callbacks=[witness])
    assert witness.events[-1] == ("end: interrupted", 1)
    assert not list(tmp_path.iterdir())


class Equal(Witness):
    """Equal to every other one."""

    def __eq__(self, other):
        return isinstance(other, Equal)

    __hash__ = None


def test_every_callback_sees_the_end():
    """Equal ones too, and those beside one that fails there, whose error is not lost."""

    def fail(_):
        raise RuntimeError("out of paper")

    first, last = Equal(), Equal()
    with pytest.raises(RuntimeError, match="out of paper"):
        fine_tuned(tiny(), callbacks=(first, Witness(**{"end: finished": fail}), last))
    assert first.events[-1] == last.events[-1] == ("end: finished", 12)


def test_an_error_at_the_end_does_not_hide_why_the_run_ended(capsys):
    def fail(_):
        raise RuntimeError("out of paper")

    stop = Witness(step=lambda _: signal.raise_signal(signal.SIGINT), **{"end: interrupted": fail})
    with pytest.raises(KeyboardInterrupt, match="stopped after step 1"):
        fine_tuned(tiny(), callbacks=[stop])
    assert "pemeta: Witness failed at the end of fine-tuning af: out of paper\n" in capsys.readouterr().err


def test_a_callback_that_cannot_start_ends_with_those_before_it():
    def fail(_):
        raise RuntimeError("out of paper")

    first, bad, last = Witness(), Witness(start=fail), Witness()
    with pytest.raises(RuntimeError, match="out of paper"):
        primed(tiny(), callbacks=[first, bad, last])
    assert [one.events for one in (first, bad, last)] == [[("start", 0), ("end: failed", 0)]] * 2 + [[]]


def test_a_callback_for_two_runs():
    """Callbacks of one run serve the next one too, whatever kind of iterable they come in."""
    callbacks = [Witness(), ProgressBar(), Recorder(), EarlyStopping(9)]
    for _ in range(2):
        history = fine_tuned(tiny(), callbacks=iter(callbacks))
    assert callbacks[0].events[: len(callbacks[0].events) // 2] * 2 == callbacks[0].events
    assert [told[0] for told in callbacks[2].told if told[0] != "log"] == ["open", "close"] * 2
    assert len(history.validation_scores) == 4


@pytest.mark.parametrize(
    ("callbacks", "says"),
    [
        (EarlyStopping(1), "finetune: callbacks must be a list of Callback objects; found <.*EarlyStopping"),
        (
            [EarlyStopping],
            r"finetune: callbacks must be a list of Callback objects; found \[<class .*EarlyStopping",
        ),
    ],
)
def test_what_is_no_list_of_callbacks(callbacks, says):
    with pytest.raises(TypeError, match=says):
        fine_tuned(tiny(), callbacks=callbacks)


@pytest.mark.parametrize("run", [primed, fine_tuned])
def test_the_end_is_seen_however_it_comes(monkeypatch, run):
    witness = Witness(step=lambda state: state.step == 2 and signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        run(tiny(), callbacks=[witness])
    assert witness.events[-1] == ("end: interrupted", 2)

    original = PEModel.loss
    monkeypatch.setattr(PEModel, "loss", lambda self, *arguments: original(self, *arguments) * float("nan"))
    witness = Witness()
    with pytest.raises(TrainingError):
        run(tiny(), callbacks=[witness])
    assert witness.events == [("start", 0), ("end: failed", 0)]


def test_callbacks_change_nothing():
    for run in (primed, fine_tuned, validated):
        watched, alone = tiny(), tiny()
        run(watched, callbacks=[Witness()])
        run(alone)
        assert same(watched, alone)


def test_at_the_end_of_fine_tuning_the_model_has_its_best_values():
    kept = []

    class Keep(Callback):
        def on_end(self, state):
            kept.append([p.detach().clone() for p in model.parameters()])

    model = tiny()
    fine_tuned(model, callbacks=[Keep()])
    assert all(torch.equal(a, b) for a, b in zip(kept[0], model.parameters(), strict=True))


# What they can do


def test_a_callback_stops_fine_tuning():
    witness = Witness(validation=lambda state: state.step == 6 and state.request_stop("enough"))
    stopped, whole = fine_tuned(tiny(), callbacks=[witness]), fine_tuned(tiny())
    assert stopped.validation_scores == whole.validation_scores[:2]
    assert stopped.losses == whole.losses[:2]
    assert witness.events[-1] == ("end: stopped early", 6)
    assert witness.state.stop_reason == "enough"


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_callback_stops_fine_tuning_in_its_first_epoch(step):
    """The values so far are validated, or there would be none to keep and no score."""

    def stop(state):
        if state.step == step:
            state.request_stop("enough")

    model, witness = tiny(), Witness(start=stop, step=stop)
    history = fine_tuned(model, callbacks=[witness])
    assert witness.events[-2:] == [("validation", step), ("end: stopped early", step)]
    assert history.validation_scores == (evaluate(model, VALIDATION, "af").main,)
    losses = [report.losses["train"] for report in witness.reports]
    assert history.losses == (pytest.approx(sum(losses) / max(1, step)),)


def test_a_run_stopped_in_its_first_epoch_and_saved_goes_on(tmp_path):
    """Its early validation takes the place of none of the epochs'."""
    path = tmp_path / "c.safetensors"

    def stop(state):
        if state.step == 2:
            state.request_stop("enough")
            state.request_checkpoint()

    fine_tuned(tiny(), checkpoint=path, callbacks=[Witness(step=stop, validation=lambda s: s.request_checkpoint())])
    witness = Witness()
    fine_tuned(tiny(), checkpoint=path, callbacks=[witness])
    assert [one.step for one in witness.state.validations] == [2, 3, 6, 9, 12]


def test_a_callback_stops_priming():
    witness = Witness(step=lambda state: state.step == 2 and state.request_stop("enough"))
    stopped, whole = primed(tiny(), callbacks=[witness]), primed(tiny())
    assert stopped.losses == whole.losses[:2]
    assert witness.events[-1] == ("end: stopped early", 2)


def test_a_callback_has_a_checkpoint_saved(tmp_path):
    path, seen = tmp_path / "c.safetensors", []
    asks = Witness(step=lambda state: state.step == 3 and state.request_checkpoint())
    tells = Witness(checkpoint=lambda state: seen.append((state.step, state.saved)))
    primed(tiny(), checkpoint=path, checkpoint_every=1000, callbacks=[asks, tells])
    assert seen == [(3, path)]


def test_a_checkpoint_after_the_last_step(tmp_path):
    asks = Witness(step=lambda state: state.step == 5 and state.request_checkpoint())
    primed(tiny(), checkpoint=tmp_path / "c.safetensors", callbacks=[asks])
    assert ("checkpoint", 5) in asks.events


def test_an_error_of_a_callback_ends_the_run():
    def fail(state):
        raise RuntimeError("out of paper")

    model = tiny()
    with pytest.raises(RuntimeError, match="out of paper"):
        fine_tuned(model, callbacks=[Witness(step=fail)])
    assert all(p.grad is None for p in model.parameters())


def test_an_option_that_there_is_not():
    with pytest.raises(TypeError, match="prime: unknown argument 'chekpoint'; did you mean 'checkpoint'"):
        primed(tiny(), chekpoint="c.safetensors")


# Early stopping


def scored(monkeypatch, *scores):
    """Let validation find these scores."""
    left = list(scores)

    def evaluate(*_):
        score = left.pop(0)
        return SimpleNamespace(main=score, summary=f"F1 {score}", numbers=dict)

    monkeypatch.setattr(finetuning, "evaluate", evaluate)


@pytest.mark.parametrize(
    ("patience", "scores", "epochs"),
    [
        (1, [0.1, 0.2, 0.1, 0.3], 3),
        (2, [0.1, 0.2, 0.1, 0.3], 4),
        (2, [0.2, 0.1, 0.1, 0.3], 3),
        (1, [0.2, 0.2, 0.3, 0.4], 2),  # as good is no better
        (3, [0.2, 0.1, 0.1, 0.1], 4),
        (None, [0.4, 0.3, 0.2, 0.1], 4),
    ],
)
def test_early_stopping(monkeypatch, patience, scores, epochs):
    scored(monkeypatch, *scores)
    settings = FINE_TUNING.model_copy(update={"early_stopping": patience})
    history = fine_tuned(tiny(), settings=settings)
    assert history.validation_scores == tuple(scores[:epochs])
    assert history.best_epoch == 1 + scores.index(max(scores[:epochs]))


def test_early_stopping_leaves_the_epochs_before_as_they_are(monkeypatch):
    whole = fine_tuned(tiny(), settings=FINE_TUNING.model_copy(update={"epochs": 10}))
    settings = FINE_TUNING.model_copy(update={"epochs": 10, "early_stopping": 2})
    stopped = fine_tuned(tiny(), settings=settings)
    count = len(stopped.validation_scores)
    assert count < 10
    assert stopped.validation_scores == whole.validation_scores[:count]
    assert stopped.losses == whole.losses[:count]


def test_early_stopping_is_resumed(tmp_path, monkeypatch):
    """Interrupted in the validation after which it would have stopped: it stops, without another step."""
    path, settings = tmp_path / "c.safetensors", FINE_TUNING.model_copy(update={"early_stopping": 1})
    scored(monkeypatch, 0.2, 0.1)
    witness = Witness(validation=lambda state: state.step == 6 and signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        fine_tuned(tiny(), settings=settings, checkpoint=path, callbacks=[witness])
    again = Witness()
    history = fine_tuned(tiny(), settings=settings, checkpoint=path, callbacks=[again])
    assert again.events == [("start", 6), ("end: stopped early", 6)]
    assert history.validation_scores == (0.2, 0.1)


def test_early_stopping_of_priming():
    longer = VALIDATED.model_copy(update={"outer_steps": 40})
    history = validated(tiny(), algorithm=longer, callbacks=[EarlyStopping(1)])
    scores = [score for _, score in history.validation_scores]
    assert len(history.losses) < 40
    assert scores[-1] <= max(scores[:-1])


# Validation during priming


def test_validation_does_not_touch_priming():
    """Losses are equal with and without it, with dropout too; only what is kept differs."""
    changes = {"inner_dropout": True}
    watched = validated(tiny(dropout=0.1), algorithm=VALIDATED.model_copy(update=changes))
    alone = primed(tiny(dropout=0.1), algorithm=PRIMING.model_copy(update=changes))
    assert watched.losses == alone.losses
    assert [step for step, _ in watched.validation_scores] == [2, 4, 5]
    assert alone.validation_scores == []
    assert alone.best_step is None


def test_the_score_is_that_of_fine_tuning_the_state_of_that_step():
    states = {}
    model = tiny()
    history = validated(model, callbacks=[Witness(step=lambda state: states.update({state.step: model.state()}))])
    for step, score in history.validation_scores:
        found = []
        for task, examples in OTHERS:
            other = tiny()
            for name in ("en", "es"):
                other.add_head(name, TASKS[0].make_head)
            other.load_state(states[step])
            settings = VALIDATED.validation_finetuning
            found.append(max(finetune(other, task, examples, settings, seed=3, progress=False).validation_scores))
        assert score == sum(found) / 2
    assert model.tasks == ("en", "es")
    best = max(history.validation_scores, key=lambda pair: pair[1])[0]
    assert history.best_step == best
    assert all(torch.equal(value, states[best][name]) for name, value in model.state().items())


@pytest.mark.parametrize("step", range(1, 6))
def test_priming_with_validation_goes_on_from_any_step(tmp_path, step):
    path, whole, parts = tmp_path / "c.safetensors", tiny(), tiny()
    history = validated(whole)
    stop = Witness(step=lambda state: state.step == step and signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt, match=f"priming stopped after step {step} of 5"):
        validated(tiny(), checkpoint=path, callbacks=[stop])
    again = validated(parts, checkpoint=path)
    assert (again.losses, again.validation_scores, again.best_step) == (
        history.losses,
        history.validation_scores,
        history.best_step,
    )
    assert same(whole, parts)
    remove_checkpoint(path)


def test_an_interrupt_within_a_validation_is_one_of_priming(tmp_path, monkeypatch):
    path, whole, parts = tmp_path / "c.safetensors", tiny(), tiny()
    history = validated(whole)
    interrupt_at(monkeypatch, 2, finetuning, "evaluate")
    model = tiny()
    with pytest.raises(KeyboardInterrupt, match="priming stopped after step 2 of 5"):
        validated(model, checkpoint=path)
    assert model.tasks == ("en", "es")
    again = validated(parts, checkpoint=path)
    assert (again.losses, again.validation_scores) == (history.losses, history.validation_scores)
    assert same(whole, parts)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"validation_tasks": []}, "validation_tasks is missing; give both or none"),
        ({"algorithm": PRIMING}, "validate_every is missing; give both or none"),
        ({"validation_tasks": [(TASKS[0], data(1))]}, "validation task 'en' is a source task too"),
        ({"validation_tasks": [OTHERS[0], OTHERS[0]]}, "validation tasks need different names"),
        (
            {"validation_tasks": [(OTHERS[0][0], data(9, 0))]},
            "task 'nl' has no validation sentence; fine-tuning needs some",
        ),
    ],
)
def test_validation_tasks_that_do_not_fit(changes, says):
    witness = Witness()
    with pytest.raises((ConfigError, DataError), match=says):
        validated(tiny(), callbacks=[witness], **changes)
    assert witness.events == []


def test_a_head_that_validation_would_replace_is_refused():
    model = tiny()
    model.add_head("nl", TASKS[0].make_head)
    with pytest.raises(ConfigError, match="the model has a head for validation task 'nl'"):
        validated(model)
    model.drop_head("nl")
    validated(model)


def test_a_validation_that_diverges_says_so():
    diverging = VALIDATED.model_copy(update={"validation_finetuning": FineTuning(epochs=2, batch_size=5, lr=1e200)})
    with pytest.raises(TrainingError, match=r"validation of priming after step 2: fine-tuning nl, epoch 1: .* is"):
        validated(tiny(), algorithm=diverging)


@pytest.mark.parametrize("method", [Full(), BitFit(), LoRA(rank=2)])
def test_validation_leaves_the_model_as_it_was(method):
    """Every parameter, flag, mode and hook; the names of the heads too."""

    def facts(model):
        hooks = {name: len(part._forward_hooks) for name, part in model.named_modules()}
        modes = {name: part.training for name, part in model.named_modules()}
        return hooks, modes, {name: (p.requires_grad, p.clone()) for name, p in model.named_parameters()}

    model = tiny(method)
    before = facts(model)
    PrimingValidation(OTHERS, VALIDATED.validation_finetuning, 3, Processes()).score(model, 1)
    after = facts(model)
    assert after[:2] == before[:2]
    assert list(after[2]) == list(before[2])
    for name, (flag, value) in before[2].items():
        assert after[2][name][0] == flag
        assert torch.equal(after[2][name][1], value)


def test_fine_tuning_as_priming_is_validated_too():
    algorithm = FineTunePriming(outer_steps=4, support_size=3, query_size=3, validate_every=4)
    assert len(validated(tiny(), algorithm=algorithm).validation_scores) == 1


# The log


def test_a_log_of_json_lines(tmp_path):
    path = tmp_path / "logs" / "run.jsonl"
    primed(tiny(), callbacks=[JsonLog(path, run="first")], checkpoint=tmp_path / "c.safetensors", checkpoint_every=3)
    history = fine_tuned(tiny(), callbacks=[JsonLog(path)])
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert all({"time", "process", "run", "event"} <= line.keys() for line in lines)
    first = [line for line in lines if line["run"] == "first"]
    assert [line["event"] for line in first] == ["start", "step", "step", "step", "checkpoint", "step", "step", "end"]
    steps = [line for line in first if line["event"] == "step"]
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5]
    assert steps[0]["losses"].keys() == {"inner/1", "inner/2", "outer"}
    second = [line for line in lines if line["run"] == "fine-tuning af"]
    assert [line["score"] for line in second if line["event"] == "validation"] == list(history.validation_scores)
    assert second[-1]["outcome"] == "finished"


def test_a_log_that_cannot_be_written(tmp_path, capsys):
    with pytest.raises(OutputError, match="cannot write"):
        JsonLog(tmp_path)
    log = JsonLog(tmp_path / "log" / "run.jsonl")
    (tmp_path / "log" / "run.jsonl").unlink()
    (tmp_path / "log").rmdir()
    (tmp_path / "log").write_text("no folder any more")

    def restore(state):
        if state.step == 2:
            (tmp_path / "log").unlink()
            (tmp_path / "log").mkdir()

    fine_tuned(tiny(), callbacks=[log, Witness(step=restore)])
    assert capsys.readouterr().err.count("no more is logged there") == 1
    assert not (tmp_path / "log" / "run.jsonl").exists()


def test_a_log_has_only_numbers_that_json_has(tmp_path):
    log = JsonLog(tmp_path / "run.jsonl")
    log.write("a run", "validation", {"score": -800.0, "values": {"perplexity": math.inf, "losses": [math.nan, 1.0]}})
    (line,) = (tmp_path / "run.jsonl").read_text().splitlines()
    found = json.loads(line, parse_constant=lambda name: pytest.fail(name))
    assert found["values"] == {"perplexity": None, "losses": [None, 1.0]}
    assert found["score"] == -800.0


# Trackers


class Recorder(Tracker):
    """A tracker that keeps what it is told."""

    name = "recorder"
    fails_at = ""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.told = []

    def tell(self, *what):
        if what[0] == self.fails_at:
            raise OSError("the server is away\nand much more")
        self.told.append(what)

    def open(self, run, settings):
        self.tell("open", run, settings)

    def log(self, values, step):
        self.tell("log", dict(values), step)

    def close(self):
        self.tell("close")


@pytest.fixture(autouse=True)
def _nothing_said_before(monkeypatch):
    monkeypatch.setattr(messages, "_said", set())


def test_what_a_tracker_is_told():
    tracker = Recorder(run="a run")
    history = primed(tiny(), callbacks=[tracker])
    (opened, run, settings), *logged, (closed,) = tracker.told
    assert (opened, run, closed) == ("open", "a run", "close")
    assert settings["priming.outer_steps"] == 5
    assert [step for _, _, step in logged] == [1, 2, 3, 4, 5]
    values = logged[0][1]
    assert values["loss/outer"] == history.losses[0].outer
    assert {"loss/inner/1", "loss/inner/2", "learning_rate", "gradient_norm", "tokens_per_second"} <= values.keys()
    assert all(isinstance(value, int | float) for value in values.values())

    tracker = Recorder()
    history = fine_tuned(tiny(), callbacks=[tracker])
    validations = [told[1] for told in tracker.told if told[0] == "log" and "validation/score" in told[1]]
    assert [values["validation/f1"] for values in validations] == list(history.validation_scores)
    assert tracker.told[-2][1] == {"best/score": max(history.validation_scores), "best/step": 3 * history.best_epoch}


@pytest.mark.parametrize("moment", ["open", "log", "close"])
def test_a_tracker_that_fails_never_ends_a_run(monkeypatch, capsys, moment):
    monkeypatch.setattr(Recorder, "fails_at", moment)
    tracker = Recorder()
    history = fine_tuned(tiny(), callbacks=[tracker])
    if moment != "close":  # what was begun is ended, or it would be in the way of the next run
        assert tracker.told[-1] == ("close",)
    assert history == fine_tuned_without_seconds(history)
    said = capsys.readouterr().err.splitlines()
    assert said == ["pemeta: the tracker 'recorder' is not used any further: the server is away"]


def fine_tuned_without_seconds(history):
    return type(history)(**{**vars(fine_tuned(tiny())), "seconds": history.seconds})


def test_a_tracker_that_is_not_installed(monkeypatch, capsys):
    monkeypatch.setattr(Recorder, "packages", ("nowhere_to_be_had", "torch"))
    for _ in range(2):  # once a process is enough
        fine_tuned(tiny(), callbacks=[Recorder()])
    assert capsys.readouterr().err == (
        "pemeta: the tracker 'recorder' is not used: nowhere_to_be_had is not installed; run `pip install "
        "nowhere_to_be_had`\n"
    )


def test_a_process_that_does_not_write_tracks_nothing():
    tracker = Recorder()
    state = SimpleNamespace(writes=False, best=None, validations=[Validation(1, 0.5)], step=1, last=None)
    tracker.on_start(state)
    tracker.on_validation(state)
    tracker.on_end(state)
    assert tracker.told == []


def test_tensorboard(tmp_path):
    """The real one: its event files have every number at its step."""
    loading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard")
    witness = Witness()
    fine_tuned(tiny(), callbacks=[TRACKERS["tensorboard"](folder=tmp_path, run="af"), witness])
    events = loading.EventAccumulator(str(tmp_path / "tensorboard" / "af"))
    events.Reload()
    found = {scalar.step: scalar.value for scalar in events.Scalars("loss/train")}
    assert found == pytest.approx({report.number: report.losses["train"] for report in witness.reports}, rel=1e-6)
    assert len(events.Scalars("validation/f1")) == 4
    assert step_numbers(witness.reports[0]).keys() <= set(events.Tags()["scalars"])


class FakeRun:
    """A run of Weights & Biases or trackio."""

    def __init__(self, package, **arguments):
        self.package, self.arguments, self.logged = package, arguments, []

    def log(self, values, step):
        self.logged.append((values, step))

    def finish(self):
        self.package.finished += 1


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_by_accelerate(monkeypatch, tmp_path, name):
    """The package is a stand-in: what is told to it is what accelerate's tracker makes of what it is told."""
    package = ModuleType(name)
    package.finished, package.runs, package.config = 0, [], {}

    def init(**arguments):
        package.runs.append(FakeRun(package, **arguments))
        return package.runs[-1]

    class Config(dict):
        def update(self, values, allow_val_change=False):
            super().update(values)

    package.init, package.config = init, Config()
    package.__spec__ = SimpleNamespace(name=name)
    monkeypatch.setitem(sys.modules, name, package)
    monkeypatch.setattr(Tracker, "missing", classmethod(lambda cls: None))
    fine_tuned(tiny(), callbacks=[TRACKERS[name](folder=tmp_path, run="af", project="languages")])
    (run,) = package.runs
    assert (run.arguments["project"], run.arguments["name"]) == ("languages", "af")
    assert [step for values, step in run.logged if "loss/train" in values] == list(range(1, 13))
    assert sum("validation/f1" in values for values, _ in run.logged) == 4
    assert package.config["finetuning.lr"] == 0.05
    assert package.finished == 1


class Terminal(io.StringIO):
    """A terminal of 80 columns that keeps what is written."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("run", [primed, fine_tuned])
def test_the_progress_bar_fits_80_columns(monkeypatch, run):
    """With 10,000 steps that take hours, a long name, and numbers of the usual length, nothing is cut off."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "81")  # tqdm leaves one free
    run(tiny(), progress=True)
    lines = [line for line in re.split(r"[\r\n]", terminal.getvalue()) if line.strip()]
    assert lines
    assert max(map(len, lines)) <= 80
    long = {"total": 10_000, "n": 9_999, "elapsed": 3700.0, "bar_format": LAYOUT, "ncols": 80}
    for name, losses in (("priming", "inner 1.946→1.900, outer 1.946, 123/s"), ("f" * 20, "loss 0.123, F1 0.612")):
        shown = tqdm.format_meter(prefix=name, postfix=losses, unit="step", **long)
        assert len(shown) == 80
        assert shown.endswith(losses)
