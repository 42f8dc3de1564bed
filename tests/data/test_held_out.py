"""Parts that are held out: who is where depends on the seed and the words alone, and nothing is in two parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pemeta.data.sentences import Sentence
from pemeta.data.tables.held_out import held_out
from pemeta.errors import DataError


def sentences(words: list[str]) -> list[Sentence]:
    return [Sentence((word,), ("O",)) for word in words]


@given(
    st.lists(st.sampled_from("abcdefghijklmnopqrstuvwxyz"), min_size=10, max_size=60), st.integers(0, 5), st.randoms()
)
def test_parts_are_whole_and_disjoint_whatever_the_order(words, seed, random):
    if len(set(words)) < 4:
        return
    shares = {"validation": 0.1, "test": 0.2}
    try:
        parts, notes = held_out(sentences(words), shares, seed, "x")
    except DataError:  # one word makes up nearly all
        return
    assert sorted(one.words[0] for part in parts.values() for one in part) == sorted(words)
    texts = [{one.words for one in part} for part in parts.values()]
    assert all(texts)
    assert sum(map(len, texts)) == len(set(words))
    assert len(notes) == 2
    for part in parts.values():  # in the order of train
        found = iter(words)
        assert all(one.words[0] in found for one in part)
    shuffled = random.sample(words, len(words))
    again, _ = held_out(sentences(shuffled), shares, seed, "x")
    assert {name: {one.words for one in part} for name, part in again.items()} == dict(zip(parts, texts, strict=True))


def test_parts_have_the_size_that_was_asked_for_and_another_seed_has_others():
    data = sentences([str(number) for number in range(1000)])
    found = [held_out(data, {"validation": 0.1, "test": 0.05}, seed, "x")[0] for seed in (0, 0, 1)]
    assert [len(part) for part in found[0].values()] == [850, 100, 50]
    assert found[0] == found[1]
    both = set(found[0]["validation"]) & set(found[2]["validation"])
    assert len(both) < 30  # 10 by chance


def test_which_sentences_they_are_never_changes():
    """Records are of these sentences: another choice would make them those of other data."""
    parts, notes = held_out(sentences(list("abcdefghij")), {"validation": 0.2}, 0, "news")
    assert "".join(one.words[0] for one in parts["validation"]) == "dh"
    assert notes == ["news has no validation: 2 of 10 training sentences are held out for it, chosen by split_seed 0"]


@pytest.mark.parametrize("words", ["a", "ab", "aaab"])
def test_too_few_are_refused(words):
    with pytest.raises(DataError, match=r"x has no validation and test, and .* too few to hold some out"):
        held_out(sentences(list(words)), {"validation": 0.1, "test": 0.1}, 0, "x")
