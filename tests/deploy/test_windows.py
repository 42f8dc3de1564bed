"""Long texts in windows: every word is labelled once, at its own token, where it has most text around it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pemeta.data.words import WordTokens
from pemeta.deploy.windows import windows

START, END = 1000, 1001


def tokens_of(lengths: list[int], special: bool = True) -> WordTokens:
    """Words of some numbers of tokens, 0 for a space of its own; ids are numbered through."""
    owners: list[int | None] = []
    for word, length in enumerate(lengths):
        owners += [word] * length or [None]
    ids = list(range(len(owners)))
    if not special:
        return WordTokens(ids, owners, range(len(ids)), False)
    return WordTokens([START, *ids, END], [None, *owners, None], range(1, len(ids) + 1), False)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.one_of(st.integers(0, 4), st.integers(0, 30)), max_size=40),
    st.integers(3, 16),
    st.integers(0, 15),
    st.booleans(),
)
def test_each_word_is_labelled_once_where_it_has_most_text_around_it(lengths, length, stride, special):
    tokens = tokens_of(lengths, special)
    first, size = tokens.first_tokens(), len(tokens.inner)
    found = windows(tokens, length, stride)

    ends = 1 if special else 0
    spans = []
    for window in found:
        assert len(window.ids) <= length
        inner = window.ids[1:-1] if special else window.ids
        assert not special or (window.ids[0], window.ids[-1]) == (START, END)
        assert inner == list(range(inner[0], inner[0] + len(inner)))  # a part of the text
        spans.append((inner[0], inner[-1] + 1))
    assert sorted(word for window in found for word in window.first_tokens) == sorted(first)

    def context(position: int, span: tuple[int, int]) -> int:
        left = size if span[0] == 0 else position - span[0]
        right = size if span[1] == size else span[1] - 1 - position
        return min(left, right)

    for window, span in zip(found, spans, strict=True):
        for word, place in window.first_tokens.items():
            position = first[word] - ends
            assert window.ids[place] == position
            known = [context(position, other) for other in spans if other[0] <= position < other[1]]
            assert context(position, span) == max(known)


def test_a_text_that_fits_is_one_window():
    tokens = tokens_of([1, 2, 0, 3])
    (window,) = windows(tokens, 9, 2)
    assert window.ids == tokens.ids
    assert window.first_tokens == tokens.first_tokens()
    assert windows(tokens_of([]), 9, 2) == []
    assert windows(tokens_of([0, 0]), 9, 2) == []


@pytest.mark.parametrize(
    ("stride", "starts"), [(0, [0, 8, 16]), (2, [0, 6, 12]), (7, [*range(13)]), (100, [*range(13)])]
)
def test_windows_share_as_many_tokens_as_the_stride_says(stride, starts):
    found = windows(tokens_of([1] * 20), 10, stride)
    assert [window.ids[1] for window in found] == starts


def test_a_window_begins_with_a_word():
    found = windows(tokens_of([3] * 7), 10, 2)
    assert [window.ids[1:-1] for window in found] == [[*range(8)], [*range(6, 14)], [*range(12, 20)], [*range(18, 21)]]


def test_a_word_longer_than_a_window_is_labelled_at_its_beginning():
    found = windows(tokens_of([1, 30, 1]), 10, 4)
    assert [window.ids[1] for window in found] == [0, 1, 31]
    assert sorted(word for window in found for word in window.first_tokens) == [0, 1, 2]


def test_a_long_text_takes_no_longer_than_its_length():
    found = windows(tokens_of([2] * 50_000), 128, 64)
    assert sum(len(window.first_tokens) for window in found) == 50_000
