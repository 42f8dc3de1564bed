"""Tokens of prompts with completions: where what is learned begins and ends in them, and what is cut off."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from transformers import PreTrainedTokenizerBase

from pemeta.data.chat import Script, Scripts
from pemeta.typing import IGNORE_INDEX


@dataclass(frozen=True)
class Tokens:
    """The tokens of one prompt with its completion.

    Attributes:
        ids: The tokens.
        learned: Where among them something learned begins and ends, in order; the last is the completion.
        apart: Whether prompt and completion are tokenised apart, because together they would share a token.
        cut: Number of tokens that were cut off.
    """

    ids: tuple[int, ...]
    learned: tuple[tuple[int, int], ...]
    apart: bool = False
    cut: int = 0

    @property
    def opening(self) -> int:
        """Where the completion begins."""
        return self.learned[-1][0]

    def labels(self) -> list[int]:
        """A label for each token: itself where it is learned, else -100."""
        labels = [IGNORE_INDEX] * len(self.ids)
        for start, end in self.learned:
            labels[start:end] = self.ids[start:end]
        labels[0] = IGNORE_INDEX  # which nothing predicts
        return labels

    def cut_to(self, most: int, kept: int) -> Tokens:
        """The last tokens, at most ``most``, of which the first ``kept`` stay the first."""
        excess = len(self.ids) - most
        if excess <= 0:
            return self
        learned = [(max(start - excess, kept), end - excess) for start, end in self.learned]
        return replace(
            self,
            ids=self.ids[:kept] + self.ids[kept + excess :],
            learned=tuple(one for one in learned if one[1] > one[0]),
            cut=self.cut + excess,
        )

    def ended_at(self, most: int) -> Tokens:
        """The tokens without the end of a completion that is too long: at most ``most`` of them."""
        excess = len(self.ids) - most
        if excess <= 0:
            return self
        *others, (start, _) = self.learned
        return replace(self, ids=self.ids[:most], learned=(*others, (start, most)), cut=self.cut + excess)


class Ends:
    """The tokens around what a tokenizer is given: the beginning of a sequence, its end, and that of a turn.

    Attributes:
        begin: What the tokenizer puts before a text by itself, the BOS token or nothing.
        end: The token that ends a completion where no other does: EOS; None if the tokenizer has none.
        special: All special tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        bos: int | None = tokenizer.bos_token_id
        alone = tokenizer("", verbose=False)["input_ids"]
        self.begin: tuple[int, ...] = (bos,) if bos is not None and alone[:1] == [bos] else ()
        self.end: int | None = tokenizer.eos_token_id
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self.special = {*tokenizer.all_special_ids, *(index for index, token in added.items() if token.special)}
        self._bos = bos

    def begun(self, ids: Sequence[int], plain: bool) -> tuple[int, ...]:
        """Tokens with BOS exactly once, where the tokenizer or the text itself puts it.

        Args:
            ids: Tokens of a text.
            plain: Whether the text is no template's, which says by itself whether there is a BOS.
        """
        found = tuple(ids)
        while self._bos is not None and found[:2] == (self._bos, self._bos):
            found = found[1:]
        return found if not plain or found[:1] == self.begin else (*self.begin, *found)

    def after(self, ids: Sequence[int], place: int) -> int:
        """The place after the special token that follows, perhaps after blanks, at a place; the place if none does."""
        at = place
        while at < len(ids) and ids[at] not in self.special and not str(self._tokenizer.decode([ids[at]])).strip():
            at += 1
        return at + 1 if at < len(ids) and ids[at] in self.special else place


def tokens_of(scripts: Sequence[Script], plain: Sequence[bool], makes: Scripts, where: Sequence[str]) -> list[Tokens]:
    """The tokens of prompts with completions.

    The tokens of a prompt are those that it has alone, as a model gets it to go on with. Where the whole text's
    tokens do not begin with them, since a token would be of both, its parts are tokenised apart.

    Args:
        scripts: The texts.
        plain: Whether each is no template's.
        makes: What made them.
        where: What messages call each.

    Raises:
        DataError: A template fails.
    """
    ends = Ends(makes.tokenizer)
    texts = dict.fromkeys(part for script in scripts for part in (script.text, *_beginnings(script)))
    ids = dict(zip(texts, ids_of(texts, makes.tokenizer), strict=True))
    found = []
    for script, bare, place in zip(scripts, plain, where, strict=True):
        if script.turns is not None:
            found.append(_marked(*makes.masked(script.turns, place), ends))
        else:
            found.append(_ended(_placed(script, ids, bare, ends, makes.tokenizer), ends, bare))
    return found


def ids_of(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The tokens of texts, without those that the tokenizer adds."""
    given = list(texts)
    return list(tokenizer(given, add_special_tokens=False, verbose=False)["input_ids"]) if given else []


def _beginnings(script: Script) -> list[str]:
    """The text up to each place where something learned begins or ends."""
    return [script.text[:place] for place in _places(script)]


def _places(script: Script) -> list[int]:
    return sorted({place for span in script.learned for place in span})


def _placed(
    script: Script, ids: Mapping[str, Sequence[int]], plain: bool, ends: Ends, tokenizer: PreTrainedTokenizerBase
) -> Tokens:
    """The tokens of a text, and the places among them of what is learned."""
    whole, places = ids[script.text], _places(script)
    before = {place: ids[script.text[:place]] for place in places}
    apart = any(list(whole[: len(part)]) != list(part) for part in before.values())
    if apart:
        edges = sorted({0, *places, len(script.text)})
        parts = ids_of((script.text[start:end] for start, end in pairwise(edges)), tokenizer)
        whole, at = [], {0: 0}
        for edge, part in zip(edges[1:], parts, strict=True):
            whole = [*whole, *part]
            at[edge] = len(whole)
    else:
        at = {place: len(part) for place, part in before.items()}
    begun = ends.begun(whole, plain)
    shift = len(begun) - len(whole)
    learned = tuple((max(0, at[start] + shift), at[end] + shift) for start, end in script.learned)
    return Tokens(begun, learned, apart)


def _ended(tokens: Tokens, ends: Ends, plain: bool) -> Tokens:
    """The tokens up to the end of the completion, with EOS once, or the token with which a template ends a turn.

    What follows is left out: nothing is learned from it. So is nothing of what stands between two turns.
    """
    ids = tokens.ids
    learned = [(start, end if plain else ends.after(ids, end)) for start, end in tokens.learned]
    start, end = learned[-1]
    closed = end > start and ids[end - 1] in ends.special
    kept = ids[:end]
    if not closed and ends.end is not None:
        kept, end = (*kept, ends.end), end + 1
    return replace(tokens, ids=kept, learned=(*learned[:-1], (start, end)))


def _marked(ids: Sequence[int], mask: Sequence[int], ends: Ends) -> Tokens:
    """Tokens of which a template's marks say which are learned, up to the last of these."""
    begun = ends.begun(ids, plain=False)
    edges = [place for place, (a, b) in enumerate(pairwise([0, *mask, 0])) if a != b]
    places = [place - (len(ids) - len(begun)) for place in edges]
    learned = tuple(zip(places[::2], places[1::2], strict=True))
    return Tokens(begun[: places[-1]] if places else begun, learned)
