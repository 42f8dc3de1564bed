"""The outer loop: one step against an explicit unroll, what each algorithm moves, resuming, refusing."""

import dataclasses
from functools import partial

import pytest
import torch
from interrupted_runs import interrupt_at
from tiny_models import TASKS, data, tiny, with_heads
from torch import nn
from torch.func import functional_call

from pemeta import (
    Adapter,
    EpisodeSampler,
    FineTunePriming,
    Full,
    HeadOnly,
    MetaPriming,
    PEModel,
    PrimingLearner,
    Task,
    TokenClassificationHead,
    prime,
)
from pemeta.errors import ConfigError, DataError, OutputError, TrainingError
from pemeta.priming.algorithms import PrimingAlgorithm
from pemeta.training.hidden_state_cache import with_hidden_states


def unroll(model, algorithm, episodes):
    """Gradients of the sum over tasks of the query losses at the adapted values, and those values of the heads."""
    partition = model.partition(algorithm.inner_method)
    start = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    total, heads = 0.0, {}

    def loss(values, episode, part):
        logits = functional_call(model, values, (part, episode.task.name))
        return nn.functional.cross_entropy(logits.flatten(0, 1), part["labels"].flatten(), ignore_index=-100)

    for episode in episodes:
        adapted = (*partition.theta_a, *model.head_names(episode.task.name))
        values = dict(start)
        for _ in range(algorithm.inner_steps):
            gradients = torch.autograd.grad(
                loss(values, episode, episode.support),
                [values[n] for n in adapted],
                create_graph=not algorithm.first_order,
            )
            values |= {n: values[n] - algorithm.inner_lr * g for n, g in zip(adapted, gradients, strict=True)}
        total = total + loss(values, episode, episode.query)
        heads |= {n: values[n].detach() for n in model.head_names(episode.task.name)}
    outer = partition.theta_p + partition.theta_a
    return dict(zip(outer, torch.autograd.grad(total, [start[n] for n in outer]), strict=True)), heads


@pytest.mark.parametrize("first_order", [True, False])
@pytest.mark.parametrize("inner", [None, Full(), HeadOnly()], ids=["adapter", "full", "head_only"])
def test_one_step_of_algorithm_1_equals_the_explicit_unroll(inner, first_order):
    algorithm = MetaPriming(
        inner_method=inner, inner_steps=3, inner_lr=0.1, first_order=first_order, outer_dropout=False
    )
    model = with_heads(tiny()).eval()
    algorithm.prepare(model, seed=0)
    episodes = EpisodeSampler(TASKS, 3, 4)[0]
    expected, heads = unroll(model, algorithm, episodes)
    losses = algorithm.accumulate(model, episodes)
    for name, gradient in expected.items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient, rtol=0, atol=1e-10, msg=name)
    for name, value in heads.items():  # line 11
        torch.testing.assert_close(model.get_parameter(name).detach(), value, rtol=0, atol=1e-10, msg=name)
    assert len(losses.inner) == 3
    assert losses.inner[2] < losses.inner[0]


@pytest.mark.parametrize(
    "algorithm",
    [
        MetaPriming(inner_steps=2, inner_dropout=True, source_heads="fresh"),
        MetaPriming(inner_steps=2, batch_tasks=True, source_heads="fresh", outer_dropout=False),
        FineTunePriming(),
    ],
    ids=["meta", "batch_tasks", "finetune"],
)
def test_a_task_s_gradient_does_not_depend_on_what_was_computed_before(algorithm):
    """So tasks can be computed in any order, or by several processes: dropout and new heads are the episode's own."""
    episodes = EpisodeSampler(TASKS, 3, 4, seed=5)[2]
    assert len({episode.seed for episode in episodes}) == len(episodes)

    def gradients(model, batches):
        for batch in batches:
            algorithm.accumulate(model, batch)
        return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}, model.state()

    one, other = (with_heads(tiny(dropout=0.5)) for _ in range(2))
    together, state = gradients(one, [episodes])
    torch.manual_seed(9)  # a global state that must not matter
    before = torch.get_rng_state()
    alone, others = gradients(other, [[episode] for episode in reversed(episodes)])
    assert torch.equal(torch.get_rng_state(), before)
    assert together.keys() == alone.keys()
    for name, gradient in together.items():
        torch.testing.assert_close(gradient, alone[name], rtol=0, atol=1e-12, msg=name)
    for name, value in state.items():
        torch.testing.assert_close(value, others[name], rtol=0, atol=1e-12, msg=name)


def test_episodes_of_one_s_own_take_the_generators_as_they_are():
    """Two steps on the same episode without a seed draw dropout twice."""
    model = with_heads(tiny(dropout=0.5))
    (drawn, *_) = EpisodeSampler(TASKS, 3, 4)[0]
    episode = dataclasses.replace(drawn, seed=None)
    losses = [FineTunePriming().accumulate(model, [episode]).outer for _ in range(2)]
    seeded = [FineTunePriming().accumulate(model, [drawn]).outer for _ in range(2)]
    assert losses[0] != losses[1]
    assert seeded[0] == seeded[1]


@pytest.mark.parametrize("heads", ["carried", "fresh", "zero"])
def test_the_heads_of_source_tasks_start_an_episode_as_configured(heads, monkeypatch):
    seen = {task.name: [] for task in TASKS}

    def adapt_to(self, support, task, **options):
        seen[task].append(self.module.state(self.module.head_names(task)))
        return original(self, support, task, **options)

    original = PrimingLearner.adapt_to
    monkeypatch.setattr(PrimingLearner, "adapt_to", adapt_to)
    model = tiny()
    algorithm = MetaPriming(
        source_heads=heads, outer_steps=3, inner_steps=2, inner_lr=0.1, support_size=3, query_size=3
    )
    prime(model, TASKS, algorithm, progress=False)
    for task in TASKS:
        first, second, third = seen[task.name]
        last = model.state(model.head_names(task.name))
        for name in first:
            assert bool((second[name] == 0).all()) == (heads == "zero" or ("bias" in name and heads == "fresh"))
            same = torch.equal(second[name], third[name])
            assert same == (heads == "zero" or ("bias" in name and heads == "fresh"))
            assert last[name].any()  # the last episode's, adapted
    again = tiny()
    prime(again, TASKS, algorithm, progress=False)
    assert all(torch.equal(again.state()[name], value) for name, value in model.state().items())


def test_sentences_in_the_outer_gradient():
    sizes = {"outer_steps": 10, "support_size": 4, "query_size": 6}
    assert MetaPriming(**sizes).gradient_sentences(sources=3) == 10 * 3 * 6
    assert MetaPriming(**sizes, tasks_per_batch=2, fresh_support=True).gradient_sentences(sources=3) == 10 * 2 * 6
    assert FineTunePriming(**sizes).gradient_sentences(sources=3) == 10 * 3 * 10
    assert FineTunePriming(**sizes, sentences="query").gradient_sentences(sources=3) == 10 * 3 * 6


@pytest.mark.parametrize("first_order", [True, False])
def test_reusing_the_trunk_changes_nothing(first_order, monkeypatch):
    """The fast path against the plain one."""
    algorithm = MetaPriming(inner_steps=3, inner_lr=0.1, first_order=first_order, outer_dropout=False)
    episodes = EpisodeSampler(TASKS, 3, 4)[0]
    fast, slow = with_heads(tiny()), with_heads(tiny())
    passes = []
    fast.backbone.register_forward_pre_hook(lambda *_: passes.append("fast"))
    slow.backbone.register_forward_pre_hook(lambda *_: passes.append("slow"))
    algorithm.accumulate(fast, episodes)
    monkeypatch.setattr(PEModel, "reusing", lambda self, batches, *_, **__: list(batches))
    algorithm.accumulate(slow, episodes)
    assert (passes.count("fast"), passes.count("slow")) == (4, 8)
    for (name, a), b in zip(fast.named_parameters(), slow.parameters(), strict=True):
        if not name.startswith("heads."):
            torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-10, msg=name)
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10, msg=name)


def test_inner_dropout_is_not_cached_away():
    model = with_heads(tiny(dropout=0.5))
    passes = []
    model.backbone.register_forward_pre_hook(lambda *_: passes.append(model.training))
    MetaPriming(inner_steps=3, inner_dropout=True).accumulate(model, EpisodeSampler(TASKS, 3, 4)[0])
    assert len(passes) == 8


@pytest.mark.parametrize(("inner", "outer"), [(False, False), (False, True), (True, False), (True, True)])
def test_the_dropout_policy_is_what_the_config_says(inner, outer):
    model = with_heads(tiny(Full()))
    modes = []
    original = PEModel.loss

    def loss(self, batch, task):
        modes.append(self.backbone.embeddings.dropout.training)
        return original(self, batch, task)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PEModel, "loss", loss)
        MetaPriming(inner_steps=2, inner_dropout=inner, outer_dropout=outer).accumulate(
            model, EpisodeSampler(TASKS, 3, 4)[0]
        )
    assert modes == [inner, inner, outer] * 2


def test_fine_tune_priming_takes_the_gradient_of_the_same_sentences():
    episodes = EpisodeSampler(TASKS, 3, 4)[0]
    for sentences, batches in (
        ("query", [e.query for e in episodes]),
        ("both", [e.task.train.batch(e.support_indices + e.query_indices) for e in episodes]),
    ):
        model, other = with_heads(tiny()), with_heads(tiny()).eval()
        algorithm = FineTunePriming(sentences=sentences, outer_dropout=False)
        algorithm.accumulate(model, episodes)
        sum(other.loss(b, e.task.name) for b, e in zip(batches, episodes, strict=True)).backward()
        assert set(algorithm.trained(model)) == {n for n, _ in model.named_parameters()}
        for (name, a), b in zip(model.named_parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-12, msg=name)


def test_adamw_and_the_linear_schedule_move_what_the_gradient_says():
    """Three outer steps against AdamW written out with PyTorch's own class and rates by hand."""
    algorithm = MetaPriming(outer_steps=3, outer_lr=0.01, outer_dropout=False, support_size=3, query_size=4)
    model, other = tiny(), with_heads(tiny())
    prime(model, TASKS, algorithm, progress=False)
    trained = [other.get_parameter(n) for n in algorithm.trained(other)]
    optimizer = torch.optim.AdamW(trained, weight_decay=0.01)
    for step in range(3):
        optimizer.zero_grad()
        algorithm.accumulate(other, EpisodeSampler(TASKS, 3, 4)[step])
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.param_groups[0]["lr"] = 0.01 * (3 - step) / 3
        optimizer.step()
    for (name, a), b in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12, msg=name)


@pytest.mark.parametrize("algorithm", [MetaPriming, FineTunePriming])
def test_priming_lowers_the_query_loss(algorithm):
    model = tiny(dropout=0.0)
    history = prime(
        model, TASKS, algorithm(outer_steps=60, outer_lr=0.01, support_size=6, query_size=6), progress=False
    )
    outer = [step.outer for step in history.losses]
    assert sum(outer[-5:]) < 0.8 * sum(outer[:5])
    assert history.sentences == 60 * 2 * 12


def test_an_inner_method_of_its_own_is_attached_and_stays():
    model = tiny(HeadOnly())
    prime(model, TASKS, MetaPriming(outer_steps=1, inner_method=Adapter(bottleneck=4), support_size=3, query_size=3))
    assert model.partition().theta_a == ()
    assert "backbone.pemeta_adapter.up.weight" in model.partition().theta_p


QUICK = partial(MetaPriming, outer_steps=6, outer_lr=0.01, support_size=3, query_size=3, inner_dropout=True)


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    """With dropout in both loops, so that the random generators count."""
    whole = tiny()
    history = prime(whole, TASKS, QUICK(), seed=3, progress=False)
    parts, path = tiny(), tmp_path / "checkpoint.safetensors"
    calls = interrupt_at(monkeypatch, 4, MetaPriming, "accumulate")
    with pytest.raises(KeyboardInterrupt, match="priming stopped after step 4 of 6"):
        prime(parts, TASKS, QUICK(), seed=3, progress=False, checkpoint=path)
    torch.rand(100)  # whatever else happens between the two
    parts = tiny()
    again = prime(parts, TASKS, QUICK(), seed=3, progress=False, checkpoint=path)
    assert len(calls) == 6
    assert again.losses == history.losses
    for (name, a), b in zip(whole.named_parameters(), parts.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_a_checkpoint_of_another_run_is_refused_and_the_difference_named(tmp_path):
    path = tmp_path / "c.safetensors"
    prime(tiny(), TASKS, QUICK(), progress=False, checkpoint=path, checkpoint_every=2)
    with pytest.raises(
        OutputError,
        match=r"cannot continue from .*c.safetensors, because the run has changed: initial values was '\w+' and is "
        r"'\w+' now, seed was 0 and is 1 now; put that back, or remove the file to start again",
    ):
        prime(tiny(), TASKS, QUICK(), seed=1, progress=False, checkpoint=path)
    with pytest.raises(OutputError, match=r"the run has changed: settings.outer_lr was 0.01 and is 0.02 now; put that"):
        prime(tiny(), TASKS, QUICK(outer_lr=0.02), progress=False, checkpoint=path)
    others = [TASKS[0], Task.token_classification("es", data(9))]  # of the same size
    with pytest.raises(OutputError, match=r"the run has changed: data.es was '\w+' and is '\w+' now; put that back"):
        prime(tiny(), others, QUICK(), progress=False, checkpoint=path)
    model = tiny()
    with torch.no_grad():
        model.backbone.embeddings.word_embeddings.weight[3] += 1
    before = model.state(model.partition().theta_p)
    with pytest.raises(OutputError, match=r"the run has changed: initial values was '\w+' and is '\w+' now; put that"):
        prime(model, TASKS, QUICK(), progress=False, checkpoint=path)
    assert all(torch.equal(model.get_parameter(name), value) for name, value in before.items())


def test_the_global_generator_and_the_model_are_left_as_they_were():
    model = tiny().eval()
    model.backbone.embeddings.word_embeddings.weight.requires_grad_(False)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    prime(model, TASKS, QUICK(primes=("theta_a",)), progress=False)
    assert torch.equal(torch.rand(1), expected)
    assert not model.training
    assert not model.backbone.embeddings.word_embeddings.weight.requires_grad
    assert all(p.grad is None for p in model.parameters())


def test_a_loss_that_is_not_finite_names_the_step():
    with pytest.raises(
        TrainingError, match=r"priming, step \d+: the inner loss of step \d is .*; lower inner_lr \(now 1e\+100\)"
    ):
        prime(tiny(), TASKS, QUICK(inner_lr=1e100), progress=False)
    model = tiny()
    with torch.no_grad():
        model.backbone.embeddings.word_embeddings.weight.fill_(torch.nan)
    with pytest.raises(TrainingError, match=r"priming, step 1: the outer loss is nan; lower outer_lr \(now 0.01\)"):
        prime(model, TASKS, FineTunePriming(outer_lr=0.01, support_size=3, query_size=3), progress=False)


def test_a_gradient_that_is_not_finite_moves_nothing(monkeypatch):
    model = tiny()
    before = model.state(model.partition().theta_p)
    original = MetaPriming.accumulate

    def broken(self, model, episodes, loss_scale=1.0):
        losses = original(self, model, episodes)
        model.backbone.embeddings.word_embeddings.weight.grad[0, 0] = torch.inf
        return losses

    monkeypatch.setattr(MetaPriming, "accumulate", broken)
    with pytest.raises(TrainingError, match=r"priming, step 1: the gradient's norm is inf; lower the learning rate"):
        prime(model, TASKS, QUICK(), progress=False)
    assert all(torch.equal(model.get_parameter(name), value) for name, value in before.items())


def test_episodes_are_disjoint_and_a_function_of_seed_and_step():
    sampler = EpisodeSampler(TASKS, 5, 7, seed=1)
    for step in range(20):
        for episode in sampler[step]:
            drawn = episode.support_indices + episode.query_indices
            assert len(set(drawn)) == 12
    assert sampler[3] == EpisodeSampler(TASKS, 5, 7, seed=1)[3]
    assert sampler[3] != sampler[4]
    assert sampler[3] != EpisodeSampler(TASKS, 5, 7, seed=2)[3]
    drawn = {i for step in range(30) for e in sampler[step] for i in e.query_indices}
    assert drawn == set(range(12))


def test_part_of_the_tasks_in_a_meta_batch():
    tasks = [Task.token_classification(str(i), data(i)) for i in range(5)]
    sampler = EpisodeSampler(tasks, 2, 2, tasks_per_batch=2)
    drawn = [[e.task.name for e in sampler[step]] for step in range(40)]
    assert all(len(set(names)) == 2 for names in drawn)
    assert {name for names in drawn for name in names} == set("01234")


def test_hidden_states_of_an_earlier_backbone_are_refused():
    stale = with_hidden_states(tiny(), TASKS[0].train)
    with pytest.raises(ConfigError, match="source 'en' holds precomputed hidden states, which priming would"):
        EpisodeSampler([dataclasses.replace(TASKS[0], train=stale)], 3, 3)


def test_sources_that_do_not_do():
    with pytest.raises(
        DataError, match=r"source 'en' has 12 sentences, but an episode needs 13 \(6 support \+ 7 query\)"
    ):
        EpisodeSampler(TASKS, 6, 7)
    with pytest.raises(ConfigError, match="different names; found \\['en', 'en'\\]"):
        EpisodeSampler([TASKS[0]] * 2)
    with pytest.raises(ConfigError, match="different names; found \\[\\]"):
        EpisodeSampler([])
    with pytest.raises(ConfigError, match="tasks_per_batch must be between 1 and the number of source tasks, 2; found"):
        EpisodeSampler(TASKS, 1, 1, tasks_per_batch=3)


def test_the_papers_settings_are_the_defaults():
    algorithm = PrimingAlgorithm.parse("meta")
    assert (algorithm.inner_steps, algorithm.inner_lr, algorithm.outer_lr) == (5, 0.03, 5e-5)
    assert algorithm.first_order
    assert algorithm.inner_method is None
    assert Adapter().bottleneck == 64


def test_a_head_that_is_there_is_kept():
    model = tiny()
    model.add_head("en", lambda width: TokenClassificationHead(width, 3), seed=9)
    before = model.head("en")
    prime(model, TASKS, QUICK(outer_steps=1), progress=False)
    assert model.head("en") is before


def test_second_order_says_which_attention_it_uses(capsys):
    algorithm = partial(QUICK, first_order=False, outer_steps=1)
    prime(tiny(Full(), attention="sdpa", dropout=0.0), TASKS, algorithm(), progress=True)
    assert "second order through attention: the inner loop uses PyTorch's own formula" in capsys.readouterr().err
    prime(tiny(attention="sdpa", dropout=0.0), TASKS, algorithm(), progress=True)
    prime(tiny(Full(), attention="sdpa", dropout=0.0), TASKS, algorithm(), progress=False)
    assert "second order" not in capsys.readouterr().err
