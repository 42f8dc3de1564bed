"""Episodes: each of their sets has a label, and wrong sizes and indices are refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tiny_models import LABELS, TASKS, data, tiny

from pemeta import Encoded, Episode, EpisodeSampler, PrimingLearner, Sentence, Task, finetune, prime
from pemeta.errors import ConfigError, DataError
from pemeta.priming import MetaPriming
from pemeta.training.finetuning import FineTuning
from pemeta.typing import IGNORE_INDEX


def partly_labelled(size: int, labelled: set[int]) -> Task:
    """Sentences of one word, of which only some have a token in the vocabulary."""
    ids = tuple(torch.tensor([1, 5, 2]) for _ in range(size))
    label_ids = tuple(
        torch.tensor([IGNORE_INDEX, 0 if i in labelled else IGNORE_INDEX, IGNORE_INDEX]) for i in range(size)
    )
    first = tuple({0: 1} if i in labelled else {} for i in range(size))
    sentences = [Sentence(("w",), ("O",))] * size
    return Task.token_classification("some", Encoded(sentences, LABELS, ids, label_ids, first, 0, 0, 0))


@pytest.mark.parametrize(("support", "query", "parts"), [(1, 1, 1), (2, 3, 1), (1, 1, 3), (2, 0, 2), (4, 4, 1)])
def test_each_set_of_an_episode_has_a_label(support, query, parts):
    task = partly_labelled(16, {0, 3, 5, 6, 10, 13})
    sampler = EpisodeSampler([task], support, query, support_batches=parts)
    drawn = set()
    for step in range(60):
        (episode,) = sampler[step]
        sets = [episode.support_indices[i * support : (i + 1) * support] for i in range(parts)]
        for one in (*sets, *([episode.query_indices] if query else ())):
            assert any(map(task.train.has_label, one))
        assert sampler[step] == EpisodeSampler([task], support, query, support_batches=parts)[step]
        drawn.update(episode.support_indices)
    assert support == 1 or not drawn <= {0, 3, 5, 6, 10, 13}  # others are drawn, too, where they are not alone


def test_draws_where_all_have_labels_are_what_they_were():
    """Drawn by hand, as before there was a second draw."""
    from pemeta.utils.seeding import numpy_generator

    for step in range(5):
        rng = numpy_generator(3, "meta-batch", step)
        by_hand = [rng.choice(12, 7, replace=False).tolist() for _ in TASKS]
        drawn = EpisodeSampler(TASKS, 3, 4, seed=3)[step]
        assert [list(one.support_indices + one.query_indices) for one in drawn] == by_hand


def test_too_few_labels_are_refused():
    with pytest.raises(
        DataError, match=r"source 'some' has 1 sentence with a label, but the 2 sets of an episode need"
    ):
        EpisodeSampler([partly_labelled(8, {3})], 2, 2)
    with pytest.raises(DataError, match=r"source 'some' has 0 sentences with a label, but the 1 sets"):
        EpisodeSampler([partly_labelled(8, set())], 2, 0)
    with pytest.raises(DataError, match=r"1000 draws for step 1 gave a support or query set without any label; remove"):
        EpisodeSampler([partly_labelled(4000, {3, 4})], 1, 1)[0]
    with pytest.raises(DataError, match="source 'some' has 0 sentences with a label"):
        prime(tiny(), [partly_labelled(40, set())], MetaPriming(outer_steps=1), progress=False)


def test_fine_tuning_where_nothing_has_a_label_is_refused_and_where_a_batch_has_none_it_learns_from_the_others():
    settings = FineTuning(epochs=1, batch_size=1, lr=0.01)
    with pytest.raises(
        DataError, match="no training sentence of task 'some' has a label: none of its words has a token"
    ):
        finetune(tiny(), partly_labelled(4, set()), data(7), settings, progress=False)
    history = finetune(tiny(), partly_labelled(4, {2}), data(7), settings, progress=False)
    assert history.losses[0] > 0


@pytest.mark.parametrize(("change", "says"), [
    ({"support_size": 0}, "support_size must be a whole number of at least 1; found 0"),
    ({"support_size": -3}, "support_size must be a whole number of at least 1; found -3"),
    ({"support_size": 2.0}, "support_size must be a whole number of at least 1; found 2.0"),
    ({"support_size": True}, "support_size must be a whole number of at least 1; found True"),
    ({"query_size": -1}, "query_size must be a whole number of at least 0; found -1"),
    ({"query_size": "3"}, "query_size must be a whole number of at least 0; found '3'"),
    ({"support_batches": 0}, "support_batches must be a whole number of at least 1; found 0"),
    ({"tasks_per_batch": 0}, "tasks_per_batch must be between 1 and the number of source tasks, 2; found 0"),
    ({"tasks_per_batch": "1"}, "tasks_per_batch must be between 1 and the number of source tasks, 2; found '1'"),
    ({"tasks": TASKS[0]}, "source tasks must be a list; found a Task: Task(name='en'"),
    ({"tasks": None}, "source tasks must be a list; found a NoneType: None; give a list"),
    ({"tasks": ["en"]}, "priming needs a list of source tasks; found 'en'"),
    ({"tasks": "en"}, "source tasks must be a list; found the single value 'en'"),
    ({"tasks": {"en": TASKS[0]}}, "source tasks must be a list; found a dict"),
    ({"seed": "0"}, "seed must be a whole number; found '0'"),
])  # fmt: skip
def test_wrong_arguments_of_a_sampler(change, says):
    with pytest.raises(ConfigError) as caught:
        EpisodeSampler(**{"tasks": TASKS, "support_size": 2, "query_size": 2, **change})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tasks_and_sizes_of_other_kinds_are_taken():
    expected = EpisodeSampler(TASKS, 2, 3)[4]
    assert EpisodeSampler((task for task in TASKS), np.int64(2), np.int32(3))[np.int64(4)] == expected
    for step in (-1, 1.5, "0", None):
        with pytest.raises(ConfigError, match="an outer step must be a whole number of at least 0; found"):
            EpisodeSampler(TASKS, 2, 3)[step]


@pytest.mark.parametrize("make", [list, tuple, np.array, torch.tensor, iter])
def test_indices_come_in_any_sequence(make):
    """Arrays, added, would be a batch of other examples."""
    expected = Episode(TASKS[0], (0, 3), (5, 1))
    episode = Episode(TASKS[0], make([0, 3]), make([5, 1]))
    assert episode == expected
    assert len(episode) == 4
    assert torch.equal(episode.both["input_ids"], expected.both["input_ids"])
    assert torch.equal(episode.both["input_ids"], TASKS[0].train.batch([0, 3, 5, 1])["input_ids"])


def test_indices_that_a_task_does_not_have():
    for support, query in (((0, 12), (1,)), ((-1,), (1,)), ((0,), (99,))):
        with pytest.raises(DataError, match="takes indices of its task's 12 sentences, from 0 to 11; found"):
            Episode(TASKS[0], support, query)
    with pytest.raises(DataError, match="a batch needs one sentence or more; found none"):
        _ = Episode(TASKS[0], (), (1,)).support


def test_an_inner_loop_on_a_support_set_without_a_label_is_refused():
    model = tiny()
    model.add_head("en", TASKS[0].make_head)
    batch = TASKS[0].train.batch([0, 1])
    batch["labels"] = torch.full_like(batch["labels"], IGNORE_INDEX)
    clone = PrimingLearner(model).clone("en")
    with pytest.raises(DataError, match="no position or example of the batch has a label"):
        clone.adapt(clone.module.loss(batch, "en"))
    with pytest.raises(DataError, match="no position or example of the batch has a label"):
        clone.adapt_to([batch], "en")


def test_so_it_is_where_asking_each_step_would_be_slow(monkeypatch):
    """As on a GPU, where the loss does not look; the loss that is read anyway does."""
    monkeypatch.setattr("pemeta.heads.base._none_labelled", lambda labels: False)
    model = tiny()
    model.add_head("en", TASKS[0].make_head)
    batch = TASKS[0].train.batch([0, 1])
    batch["labels"] = torch.full_like(batch["labels"], IGNORE_INDEX)
    with pytest.raises(DataError, match="the support set has no label: all are -100"):
        PrimingLearner(model).clone("en").adapt_to([batch], "en")


def test_a_batch_of_a_data_class_that_users_write_has_labels_or_not():
    """The default of ``Examples`` looks at the tensors."""
    encoded = partly_labelled(3, {1}).train
    default = [super(Encoded.__mro__[1], encoded).has_label(i) for i in range(3)]
    assert default == [False, True, False]
    assert [dataclasses.replace(encoded).has_label(i) for i in range(3)] == default
