"""Splits: which part of the data is which, and parts that are held out where the data has none."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Generic, Literal, TypeAlias, TypeVar

import numpy as np
from pydantic import BeforeValidator

from pemeta.data.sentences import SPLITS, Sentence, Split
from pemeta.errors import DataError, counted, excerpt, shortened, unknown_name
from pemeta.utils.in_schema import InSchema

USUAL: Mapping[Split, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "dev", "valid", "val"),
    "test": ("test",),
}
"""Usual names of each split, which need not be given."""


Example = TypeVar("Example")


class TooFewError(DataError):
    """There are too few sentences to hold some out."""


def _checked_share(share: Any) -> Any:
    number = isinstance(share, int | float) and not isinstance(share, bool)
    if share != "train" and not (number and 0 < share < 1):
        raise ValueError(
            "expected a part of the training sentences to hold out, between 0 and 1, or train, for which they stand in "
            f"themselves; found {excerpt(share)}"
        )
    return share


_SHARE = {"anyOf": [{"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, {"const": "train"}]}
Share: TypeAlias = Annotated[float | Literal["train"], BeforeValidator(_checked_share), InSchema(lambda: _SHARE)]
"""What becomes of a split that the data lacks: a part of train that is held out, or the sentences of train again."""


def parts_of(available: Collection[str], given: Mapping[Split, str] | None, where: str) -> dict[Split, str]:
    """Which of the parts that the data has is which split; a split that has none is to be held out of train.

    Args:
        available: The parts that the data has.
        given: Which they are, if that is said: all of them then.
        where: What messages call the data.

    Raises:
        DataError: A part is not there, there is none to train on, or it is not clear which is which.

    >>> parts_of(["train", "dev", "test"], None, "conll2003")
    {'train': 'train', 'validation': 'dev', 'test': 'test'}
    """
    if given is not None:
        if "train" not in given:
            raise DataError(f"{where}: splits: expected one for train too; found {excerpt(dict(given))}")
        return dict(given)
    found: dict[Split, str] = {}
    for split in SPLITS:
        names = [name for name in USUAL[split] if name in available]
        if len(names) > 1:
            raise DataError(f"{where} has {' and '.join(names)}; say which is which: {_remedy(found, split, names[0])}")
        if names:
            found[split] = names[0]
    if "train" not in found:
        raise DataError(
            f"{where}: {shortened(unknown_name('split', 'train', available), 300)}; say which is which: "
            f"splits: {{train: ...}}"
        )
    missing = [split for split in SPLITS if split not in found]
    others = [name for name in available if name not in found.values()]
    if missing and others:
        raise DataError(
            f"{where} has no {missing[0]}, but {shortened(', '.join(others), 200)}; say which is which: "
            f"{_remedy(found, missing[0], others[0])}; or, to hold it out of train: {_remedy(found)}"
        )
    return found


def _remedy(found: Mapping[Split, str], split: Split | None = None, name: str = "") -> str:
    entries = {**found, **({} if split is None else {split: name})}
    return f"splits: {{{', '.join(f'{one}: {entries[one]}' for one in SPLITS if one in entries)}}}"


def held_out(
    train: Sequence[Sentence], shares: Mapping[Split, Share], seed: int, where: str
) -> tuple[dict[Split, tuple[Sentence, ...]], list[str]]:
    """Sentences that are held out of train for the splits that the data lacks, and what is left to train on.

    Which they are depends on the seed and on their words alone, so sentences of the same words are never in two
    splits, whatever their order; each split keeps the order of train.

    Args:
        train: All sentences.
        shares: How large a part of them each split gets; at least one sentence. Or ``train``: it gets those that are
            trained on.
        seed: Seed of the choice.
        where: What messages call the data.

    Returns:
        The splits, and a line about each that was held out.

    Raises:
        DataError: Nothing would be left to train on.
    """
    parts, notes = read_held_out(lambda: train, shares, seed, where, words_of)
    return {split: tuple(part()) for split, part in parts.items()}, notes


@dataclass(frozen=True)
class Part(Generic[Example]):
    """Some of the sentences, or other examples, to train on.

    Attributes:
        whole: Begins to read all of them.
        seed: Seed of the choice.
        ranks: Ranks of those that belong to the part.
        number: How many these are.
        text: The text of one, on which its rank depends.
    """

    whole: Callable[[], Iterable[Example]]
    seed: int
    ranks: range
    number: int
    text: Callable[[Example], str]

    def __call__(self) -> Iterator[Example]:
        """Begin to read them."""
        return (one for one in self.whole() if _rank(self.text(one), self.seed) in self.ranks)


def words_of(sentence: Sentence) -> str:
    """The text of a sentence on which depends whether it is held out."""
    return "\t".join(sentence.words)


def read_held_out(
    read: Callable[[], Iterable[Example]],
    shares: Mapping[Split, Share],
    seed: int,
    where: str,
    text: Callable[[Example], str],
    unit: str = "sentence",
) -> tuple[dict[Split, Part[Example]], list[str]]:
    """What :func:`held_out` returns, for examples that are read one by one, and again for each part.

    Args:
        read: Begins to read all of them.
        shares: How large a part of them each split gets.
        seed: Seed of the choice.
        where: What messages call the data.
        text: The text of an example on which the choice depends.
        unit: What messages call an example.

    Raises:
        DataError: Nothing would be left to train on.
    """
    ranks = np.fromiter((_rank(text(one), seed) for one in read()), np.uint64)
    different, numbers = np.unique(ranks, return_counts=True)
    before = np.concatenate([[0], np.cumsum(numbers)])  # each rank, the number of sentences of lower ones
    held: dict[Split, float] = {split: share for split, share in shares.items() if share != "train"}
    ends = [0]
    for share in held.values():
        goal = before[ends[-1]] + max(1, round(share * len(ranks)))
        ends.append(min(int(np.searchsorted(before, goal)), len(different)))
    if ends[-1] == len(different):
        what, again = " and ".join(shares), ", ".join(f"{split}: train" for split in shares)
        texts = f"{counted(len(ranks), unit)} to train on with {counted(len(different), 'different text')}"
        raise TooFewError(
            f"{where} has no {what}, and {texts}, which are too few to hold some out; say where the missing part is, "
            f"with splits; or, to try things out on the same {unit}s, say {again}"
        )
    edges = pairwise([0, *(int(different[end]) for end in ends[1:]), 2**64])
    sizes = np.diff(before[[*ends, -1]]).tolist()
    found = {
        split: Part(read, seed, range(*edge), size, text)
        for split, edge, size in zip((*held, "train"), edges, sizes, strict=True)
    }
    parts: dict[Split, Part[Example]] = {split: found.get(split, found["train"]) for split in ("train", *shares)}
    notes = []
    for split in shares:
        what = (
            f"{parts[split].number} of {len(ranks)} training {unit}s are held out for it, chosen by split_seed {seed}"
            if split in held
            else f"the training {unit}s stand in for it, so its scores tell nothing about other {unit}s"
        )
        notes.append(f"{where} has no {split}: {what}")
    return parts, notes


def _rank(text: str, seed: int) -> int:
    """A number that looks random, of an example's text."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\n{text}".encode(), digest_size=8).digest(), "big")
