"""What must hold whatever the values: episodes, partitions, descriptions, YAML and digests.

Word-piece alignment has its own in ``test_encoding``, whole configurations theirs in ``test_config``.
"""

from __future__ import annotations

import json
import string
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import LABELS, METHODS
from torch import nn

from pemeta import Adapter, Encoded, Episode, EpisodeSampler, Partition, Sentence, Task
from pemeta.errors import ConfigError, DataError, ModelError
from pemeta.methods import PEMethod
from pemeta.priming.algorithms import PrimingAlgorithm
from pemeta.training.finetuning import FineTuning
from pemeta.utils.digests import slug
from pemeta.utils.modules import count, only_trainable
from pemeta.utils.strict_yaml import read_yaml

few = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

# Episodes


def task(name: str, size: int) -> Task:
    """A task of so many sentences of one word."""
    ids = tuple(torch.tensor([i % 30]) for i in range(size))
    sentences = [Sentence(("w",), ("O",))] * size
    data = Encoded(sentences, LABELS, ids, tuple(torch.tensor([0]) for _ in ids), ({0: 0},) * size, 0, 0, 0)
    return Task.token_classification(name, data)


@few
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=4),
    st.integers(1, 8),
    st.integers(1, 8),
    st.integers(1, 3),
    st.integers(0, 2**63),
    st.integers(0, 10**6),
    st.data(),
)
def test_episodes(sizes: list[int], support: int, query: int, parts: int, seed: int, step: int, data: Any) -> None:
    tasks = [task(str(number), size) for number, size in enumerate(sizes)]
    at_once = data.draw(st.none() | st.integers(1, len(tasks)))
    need = support * parts + query
    if min(sizes) < need:
        with pytest.raises(DataError, match=f"an episode needs {need} "):
            EpisodeSampler(tasks, support, query, at_once, seed, parts)
        return
    sampler = EpisodeSampler(tasks, support, query, at_once, seed, parts)
    batch = sampler[step]
    assert len({episode.task.name for episode in batch}) == len(batch) == (at_once or len(tasks))
    if at_once is None:
        assert [episode.task.name for episode in batch] == [one.name for one in tasks]
    for episode in batch:
        drawn = episode.support_indices + episode.query_indices
        assert len(episode.support_indices) == support * parts
        assert len(episode.query_indices) == query
        assert len(set(drawn)) == len(drawn) == len(episode)
        assert set(drawn) <= set(range(len(episode.task.train)))
        assert [len(part["labels"]) for part in episode.supports(parts)] == [support] * parts
    # A function of seed and step alone, whatever was drawn before; and of both.
    again = EpisodeSampler(tasks, support, query, at_once, seed, parts)
    again[data.draw(st.integers(0, 10**6))]
    assert again[step] == batch
    other = EpisodeSampler(tasks, support, query, at_once, seed + 1, parts)
    assert len({drawn_in(sampler[step + i]) for i in range(4)} | {drawn_in(other[step])}) == 5


def drawn_in(batch: list[Episode]) -> tuple[object, ...]:
    """All that a meta-batch is; the episodes' own seeds differ even where their examples happen to be the same."""
    return tuple((one.task.name, one.support_indices, one.query_indices, one.seed) for one in batch)


# Partitions


class Tied(nn.Module):
    """Modules of which some share their parameter with an earlier one."""

    def __init__(self, shared: list[int]) -> None:
        super().__init__()
        self.parts = nn.ModuleList()
        for number, with_which in enumerate(shared):
            part = nn.Linear(1, 1)
            if with_which < number:
                part.weight = self.parts[with_which].weight
            self.parts.append(part)


@few
@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.data())
def test_partitions(shared: list[int], data: Any) -> None:
    module = Tied(shared)
    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    a = data.draw(st.lists(st.sampled_from(names), unique=True))
    h = data.draw(st.lists(st.sampled_from(names), unique=True))
    parameter = dict(module.named_parameters(remove_duplicate=False))
    both = {id(parameter[name]) for name in a} & {id(parameter[name]) for name in h}
    if both:
        with pytest.raises(ModelError, match="in both θ_a and θ_h"):
            Partition.of(module, a, h)
        return
    parts = Partition.of(module, a, h)
    order = [name for name, _ in module.named_parameters()]
    sets = [parts.theta_p, parts.theta_a, parts.theta_h]
    assert sorted(name for one in sets for name in one) == sorted(order)  # disjoint, and all of them
    assert all(list(one) == [name for name in order if name in one] for one in sets)
    assert {id(parameter[name]) for name in parts.theta_a} == {id(parameter[name]) for name in a}
    assert {id(parameter[name]) for name in parts.theta_h} == {id(parameter[name]) for name in h}
    assert sum(count(module, one) for one in sets) == sum(p.numel() for p in module.parameters())
    with only_trainable(module, parts.theta_a):
        assert {name for name, p in module.named_parameters() if p.requires_grad} == set(parts.theta_a)
    assert all(p.requires_grad for p in module.parameters())


# Descriptions: what is written is read back as the same

positive = st.floats(1e-8, 1e8)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "bottleneck": st.integers(1, 2**40),
    "rank": st.integers(1, 2**40),
    "length": st.integers(1, 2**40),
    "alpha": positive,
    "scale": positive,
    "init_std": st.floats(0, 1e8),
    "dropout": st.floats(0, 1, exclude_max=True),
    "rslora": st.booleans(),
    "top_layers": st.none() | st.integers(1, 100),
    "reparametrize": st.none() | st.integers(1, 2**40),
}


def member(kind: type[Any]) -> st.SearchStrategy[Any]:
    """A description with some of its fields drawn."""
    drawn = {name: FIELDS[name] for name in kind.model_fields if name in FIELDS}
    if kind is Adapter:  # the default, at the output, has no layers
        drawn["placement"] = st.just("houlsby")
        return st.fixed_dictionaries(drawn).map(lambda fields: kind(**fields))
    return st.fixed_dictionaries({}, optional=drawn).map(lambda fields: kind(**fields))


simple = [kind for kind in PEMethod.members().values() if kind.name not in {"compose", "peft"}]
methods = st.one_of(*map(member, simple), st.sampled_from([method for method, _ in METHODS.values()]))


@few
@given(methods)
def test_a_method_is_what_its_configuration_says(method: PEMethod) -> None:
    for written in (
        method.to_config(),
        json.loads(json.dumps(method.to_config())),
        read_yaml(yaml.safe_dump(method.to_config())),
    ):
        assert PEMethod.parse(written) == method
        assert PEMethod.parse(written).to_config() == method.to_config()  # of which digests are made


@few
@given(st.sampled_from(list(PrimingAlgorithm.members().values())), methods, st.data())
def test_so_is_a_priming_algorithm(kind: type[PrimingAlgorithm], method: PEMethod, data: Any) -> None:
    drawn: dict[str, st.SearchStrategy[Any]] = {
        "outer_steps": st.integers(1, 10**9),
        "outer_lr": positive,
        "max_grad_norm": st.none() | positive,
        "tasks_per_batch": st.none() | st.integers(1, 100),
        "outer_dropout": st.booleans(),
        "inner_method": st.none() | st.just(method),
        "inner_steps": st.integers(1, 100),
        "source_heads": st.sampled_from(["carried", "fresh", "zero"]),
    }
    given_ = data.draw(st.fixed_dictionaries({}, optional={k: v for k, v in drawn.items() if k in kind.model_fields}))
    algorithm = kind(**given_)
    assert PrimingAlgorithm.parse(read_yaml(yaml.safe_dump(algorithm.to_config()))) == algorithm


@few
@given(st.booleans() | st.integers(2**63) | st.integers(max_value=-(2**63)), st.sampled_from(["epochs", "batch_size"]))
def test_no_flag_and_nothing_beyond_64_bits_is_a_number(value: int, key: str) -> None:
    with pytest.raises(ValueError, match=f"{key}\n"):
        FineTuning.model_validate({key: value})


# YAML

text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
plain: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text,
    lambda below: st.lists(below, max_size=4) | st.dictionaries(text, below, max_size=4),
    max_leaves=12,
)


@few
@given(plain)
def test_what_is_dumped_is_read_back(value: Any) -> None:
    assert read_yaml(yaml.safe_dump(value, allow_unicode=True)) == value


@few
@given(st.text(max_size=60) | st.text("[]{}:,-&*!|>'\"%@ \n\tab01~", max_size=40))
def test_any_text_is_yaml_or_one_line_says_why_not(text: str) -> None:
    try:
        read_yaml(text)
    except ConfigError as error:
        why = str(error)
    else:
        why = "read"
    assert why
    assert "\n" not in why


# File names


@few
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200), unique=True, max_size=5))
def test_file_names_are_safe_and_differ(names: list[str]) -> None:
    slugs = [slug(name) for name in names]
    assert len(set(slugs)) == len(slugs)
    assert all(set(one) <= set(string.ascii_letters + string.digits + "._-") and len(one) < 130 for one in slugs)
