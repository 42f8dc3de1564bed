"""Tasks of different kinds in one priming run: meta-gradients by an explicit unroll, heads, resuming; fine-tuning."""

import dataclasses
from functools import partial

import pytest
import torch
from interrupted_runs import interrupt_at
from tiny_models import ADAPTER, shaken, tiny
from tiny_tasks import EACH_KIND, LAST, MIXED, NER, OWN, TEXT, TOPIC, blocks, texts, tiny_gpt2
from torch import nn
from torch.func import functional_call

from pemeta import (
    BitFit,
    EpisodeSampler,
    FineTunePriming,
    FineTuning,
    Full,
    MetaPriming,
    PEModel,
    Task,
    evaluate,
    finetune,
    predict,
    prime,
)
from pemeta.errors import DataError, OutputError
from pemeta.heads import labelled
from pemeta.training.hidden_state_cache import with_hidden_states

each_example = pytest.mark.parametrize(
    ("task", "validation"), EACH_KIND, ids=["token_classification", "sequence_classification", "causal_lm"]
)


def written_out(model, values, batch, task):
    """Each kind's loss from the parameters' values: backbone, adapter, pooling, head, cross-entropy."""
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    inside = {name.removeprefix("backbone."): v for name, v in values.items() if name.startswith("backbone.")}
    hidden = functional_call(model.backbone, inside, kwargs=inputs).last_hidden_state
    if model.method == ADAPTER:
        down, up = (
            (inside[f"pemeta_adapter.{part}.weight"], inside[f"pemeta_adapter.{part}.bias"]) for part in ("down", "up")
        )
        hidden = hidden + nn.functional.gelu(hidden @ down[0].T + down[1]) @ up[0].T + up[1]
    head = {n.rpartition(f"heads.task_{task.name}.")[2]: v for n, v in values.items() if f".task_{task.name}." in n}
    labels, mask = batch["labels"], batch["attention_mask"]
    if task in (TEXT, OWN):
        matrix = inside["wte.weight"] if task is TEXT else head["weight"]
        logits, labels = (hidden @ matrix.T + head["bias"])[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    else:
        if task is TOPIC:
            hidden = (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
        elif task is LAST:
            hidden = torch.stack([row[n - 1] for row, n in zip(hidden, mask.sum(1).tolist(), strict=True)])
        logits = hidden @ head["classifier.weight"].T + head["classifier.bias"]
        logits, labels = logits.reshape(-1, logits.shape[-1]), labels.flatten()
    kept = labels != -100
    return nn.functional.cross_entropy(logits[kept], labels[kept])


def unroll(model, algorithm, episodes):
    """Gradients of the summed query losses at the adapted values, and the heads' adapted values."""
    partition = model.partition()
    start = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    total, heads = 0.0, {}
    for episode in episodes:
        names = model.head_names(episode.task.name)
        adapted = (*partition.theta_a, *names)
        values = dict(start)
        for _ in range(algorithm.inner_steps):
            gradients = torch.autograd.grad(
                written_out(model, values, episode.support, episode.task),
                [values[n] for n in adapted],
                create_graph=not algorithm.first_order,
                allow_unused=True,  # positions that no example is long enough for
            )
            values |= {
                n: values[n] if g is None else values[n] - algorithm.inner_lr * g
                for n, g in zip(adapted, gradients, strict=True)
            }
        total = total + written_out(model, values, episode.query, episode.task)
        heads |= {n: values[n].detach() for n in names}
    outer = partition.theta_p + partition.theta_a
    return dict(zip(outer, torch.autograd.grad(total, [start[n] for n in outer]), strict=True)), heads


def with_all_heads(model: PEModel, tasks) -> PEModel:
    for task in tasks:
        model.add_head(task.name, task.make_head)
    return shaken(model)


@pytest.mark.parametrize("first_order", [True, False])
@pytest.mark.parametrize("method", [ADAPTER, BitFit(), Full()], ids=lambda method: method.name)
@pytest.mark.parametrize(("make", "tasks"), [(tiny, [NER, TOPIC, LAST]), (tiny_gpt2, MIXED)], ids=["bert", "gpt2"])
def test_meta_gradients_of_a_mixed_meta_batch_equal_the_explicit_unroll(make, tasks, method, first_order):
    algorithm = MetaPriming(inner_steps=3, inner_lr=0.1, first_order=first_order, outer_dropout=False)
    model = with_all_heads(make(method), tasks).eval()
    episodes = EpisodeSampler(tasks, 3, 4)[0]
    expected, heads = unroll(model, algorithm, episodes)
    algorithm.accumulate(model, episodes)
    for name, gradient in expected.items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient, rtol=0, atol=1e-10, msg=name)
    for name, value in heads.items():
        torch.testing.assert_close(model.get_parameter(name).detach(), value, rtol=0, atol=1e-10, msg=name)
    assert sum(gradient.abs().sum() for gradient in expected.values()) > 0


@pytest.mark.parametrize("first_order", [True, False])
@pytest.mark.parametrize("method", [ADAPTER, Full()], ids=lambda method: method.name)
def test_so_they_do_with_logits_in_chunks(monkeypatch, method, first_order):
    monkeypatch.setattr(labelled, "CHUNK", 3 * 30)
    test_meta_gradients_of_a_mixed_meta_batch_equal_the_explicit_unroll(tiny_gpt2, [TEXT, OWN], method, first_order)


@pytest.mark.parametrize("first_order", [True, False])
def test_the_tied_embedding_gets_a_gradient_from_both_of_its_places(first_order):
    """The gradient of the output matrix alone reaches rows of pieces that no episode contains."""
    model = with_all_heads(tiny_gpt2(), [TEXT]).eval()
    episodes = EpisodeSampler([TEXT], 3, 4)[0]
    MetaPriming(first_order=first_order, outer_dropout=False).accumulate(model, episodes)
    seen = set(torch.cat([TEXT.train.input_ids[i] for i in episodes[0].query_indices]).tolist())
    unseen = [i for i in range(30) if i not in seen]
    assert unseen
    assert model.backbone.wte.weight.grad[unseen].abs().sum(1).gt(0).all()


@pytest.mark.parametrize("algorithm", [MetaPriming, FineTunePriming])
def test_each_task_keeps_a_head_of_its_own(algorithm):
    model = tiny_gpt2()
    settings = algorithm(outer_steps=5, outer_lr=0.01, support_size=3, query_size=3)
    history = prime(model, MIXED, settings, progress=False)
    assert len(history.losses) == 5
    assert model.tasks == tuple(task.name for task in MIXED)
    for task in MIXED:
        fresh = task.make_head(8)
        found = dict(model.head(task.name).named_parameters())
        assert {n: p.shape for n, p in found.items()} == {n: p.shape for n, p in fresh.named_parameters()}
        assert model.head_spec(task.name) == task.make_head
    topic, last = (model.head(name).get_parameter("classifier.bias") for name in ("topic", "last"))
    assert not torch.equal(topic, last)
    assert not torch.equal(model.head("text").bias, model.head("own").bias)
    assert all(model.get_parameter(n).isfinite().all() for n, _ in model.named_parameters())


QUICK = partial(MetaPriming, outer_steps=6, outer_lr=0.01, support_size=3, query_size=3, tasks_per_batch=3)


def test_an_interrupted_mixed_run_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    whole, path = tiny_gpt2(), tmp_path / "checkpoint.safetensors"
    history = prime(whole, MIXED, QUICK(inner_dropout=True), seed=3, progress=False)
    calls = interrupt_at(monkeypatch, 3, MetaPriming, "accumulate")
    with pytest.raises(KeyboardInterrupt, match="priming stopped after step 3 of 6"):
        prime(tiny_gpt2(), MIXED, QUICK(inner_dropout=True), seed=3, progress=False, checkpoint=path)
    parts = tiny_gpt2()
    again = prime(parts, MIXED, QUICK(inner_dropout=True), seed=3, progress=False, checkpoint=path)
    assert len({episode.task.train.kind for _, _, episodes, _ in calls for episode in episodes}) == 3
    assert again.losses == history.losses
    for (name, a), b in zip(whole.named_parameters(), parts.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_a_checkpoint_with_another_head_of_the_same_shape_is_refused(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    run = partial(prime, progress=False, checkpoint=path, checkpoint_every=1)
    run(tiny_gpt2(), [TOPIC], QUICK(tasks_per_batch=1))
    other = Task.sequence_classification("topic", TOPIC.train, pooling="last")
    with pytest.raises(OutputError, match=r"heads.topic.pooling was .mean. and is .last. now"):
        run(tiny_gpt2(), [other], QUICK(tasks_per_batch=1))


@each_example
def test_fine_tuning_keeps_the_best_epoch_of_every_kind(task, validation, monkeypatch):
    settings = FineTuning(epochs=4, batch_size=5, lr=0.02)
    model = tiny_gpt2()
    history = finetune(model, task, validation, settings, progress=False)
    assert len(history.validation_scores) == 4
    assert history.best_epoch == 1 + history.validation_scores.index(max(history.validation_scores))
    assert history.losses[-1] < history.losses[0]
    scores = evaluate(model, validation, task.name)
    assert scores.main == pytest.approx(max(history.validation_scores), rel=0, abs=1e-12)
    assert scores.summary.split()[0] in {"F1", "accuracy", "perplexity"}
    # The cached trunk against the plain path.
    slow = tiny_gpt2()
    monkeypatch.setattr(PEModel, "reuses_hidden_states", lambda *_: False)
    finetune(slow, task, validation, settings, progress=False)
    for (name, a), b in zip(model.named_parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10, msg=name)


@each_example
def test_predictions_are_in_the_order_of_the_data_and_the_same_with_the_trunk(task, validation):
    model = tiny_gpt2()
    model.add_head(task.name, task.make_head)
    one_by_one = predict(model, validation, task.name, batch_size=1)
    with_states = with_hidden_states(model, validation)
    assert with_states.trunk is not None
    for found in (predict(model, validation, task.name, 5), predict(model, with_states, task.name)):
        assert len(found) == len(validation)
        for a, b in zip(found, one_by_one, strict=True):
            assert a == (pytest.approx(b, rel=0, abs=1e-12) if task is TEXT else b)
    if task is TEXT:
        assert [len(row) for row in one_by_one] == [len(ids) - 1 for ids in validation.input_ids]


def test_the_perplexity_is_the_exponential_of_the_loss():
    model = tiny_gpt2().eval()
    model.add_head("text", TEXT.make_head)
    data = blocks(9)
    scores = evaluate(model, data, "text", batch_size=5)
    with torch.no_grad():
        loss = model.loss(data.batch(range(len(data))), "text").item()
    assert scores.loss == pytest.approx(loss, abs=1e-12)
    assert scores.perplexity == pytest.approx(torch.tensor(loss).double().exp().item())


def test_the_progress_bar_names_the_metric(monkeypatch):
    shown = []
    monkeypatch.setattr(
        "pemeta.training.callbacks.progress.tqdm.set_postfix_str", lambda self, text, **_: shown.append(text)
    )
    for task, validation in EACH_KIND:
        finetune(tiny_gpt2(), task, validation, FineTuning(epochs=1))
    assert [text.split(", ")[1].split()[0] for text in shown] == ["F1", "accuracy", "perplexity"]


def test_data_of_another_kind_is_refused():
    with pytest.raises(DataError, match="is trained on sequence_classification and validated on causal_lm"):
        finetune(tiny_gpt2(), TOPIC, blocks(7), FineTuning(), progress=False)
    model = with_all_heads(tiny_gpt2(), MIXED)
    with pytest.raises(
        DataError, match="the head of task 'topic' makes one prediction per example, but causal_lm needs"
    ):
        evaluate(model, blocks(7), "topic")
    with pytest.raises(DataError, match="the head of task 'ner' makes one prediction per position"):
        evaluate(model, texts(7), "ner")
    with pytest.raises(
        DataError, match=r"the head of task 'ner' has 3 labels, but the data has 30 \(0, 1, .* 19 \.\.\.\)"
    ):
        evaluate(model, blocks(7), "ner")
    other = dataclasses.replace(texts(7), classes=("bad", "good", "fair"))
    with pytest.raises(DataError, match="on the labels bad, fair, good and validated on bad, good, fair"):
        finetune(tiny_gpt2(), TOPIC, other, FineTuning(), progress=False)
    with pytest.raises(DataError, match=r"for sequence_classification, not causal_lm; use Task.sequence_class"):
        Task.causal_lm("topic", texts(1))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="has 12 blocks, but an episode needs 32"):
        EpisodeSampler([TEXT])
