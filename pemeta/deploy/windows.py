"""Texts longer than a model, as windows that overlap."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pemeta.data.words import WordTokens


@dataclass(frozen=True)
class Window:
    """A part of a text that fits the model.

    Attributes:
        ids: Token ids, between the special tokens that the whole text has around it.
        first_tokens: A mapping of the words that are labelled here to the positions of their first tokens.
    """

    ids: list[int]
    first_tokens: dict[int, int]


def windows(tokens: WordTokens, length: int, stride: int) -> list[Window]:
    """Windows of a text's tokens; each word is labelled in the one that has the most text on both sides of it.

    All windows but the first begin where a word does, so a few more tokens than ``stride`` may be shared.

    Args:
        tokens: The whole text's tokens.
        length: Most tokens in a window, special tokens included.
        stride: Number of tokens that a window shares with the one before.
    """
    words = {position: word for word, position in tokens.first_tokens().items()}
    if not words:
        return []
    start, stop = tokens.inner.start, tokens.inner.stop
    before, after = tokens.ids[:start], tokens.ids[stop:]
    room = max(1, length - len(before) - len(after))
    first = sorted(words)
    found = [
        (Window([*before, *tokens.ids[begin:end], *after], {}), begin, end)
        for begin, end in _spans(first, start, stop, room, min(stride, room - 1))
    ]
    best: dict[int, tuple[int, int]] = {}  # by the position of a word: its context, and minus the window's number
    for number, (_, begin, end) in enumerate(found):
        for position in first[bisect_left(first, begin) : bisect_left(first, end)]:
            left = position - begin if begin > start else stop  # a side with all of the text has enough
            right = end - 1 - position if end < stop else stop
            best[position] = max(best.get(position, (-1, 0)), (min(left, right), -number))
    for position, (_, number) in best.items():
        window, begin, _ = found[-number]
        window.first_tokens[words[position]] = len(before) + position - begin
    return [window for window, _, _ in found]


def _spans(first: Sequence[int], start: int, stop: int, room: int, stride: int) -> Iterator[tuple[int, int]]:
    """Beginnings and ends of windows, given the positions of words' first tokens."""
    begin = start
    while True:
        end = min(begin + room, stop)
        yield begin, end
        fitting = bisect_right(first, end - stride) - 1  # the last word that begins where the next window may
        following = bisect_right(first, begin)
        if end == stop or following == len(first):  # nothing is left, or only the rest of a word
            return
        begin = first[max(fitting, following)]
