"""Splits: which part of the data is which, and parts that are held out where the data has none."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from pemeta.data.sentences import SPLITS, Sentence, Split
from pemeta.errors import DataError, counted, excerpt, shortened, unknown_name

USUAL: Mapping[Split, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "dev", "valid", "val"),
    "test": ("test",),
}
"""Usual names of each split, which need not be given."""


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
    train: Sequence[Sentence], shares: Mapping[Split, float], seed: int, where: str
) -> tuple[dict[Split, tuple[Sentence, ...]], list[str]]:
    """Sentences that are held out of train for the splits that the data lacks, and what is left to train on.

    Which they are depends on the seed and on their words alone, so sentences of the same words are never in two
    splits, whatever their order; each split keeps the order of train.

    Args:
        train: All sentences.
        shares: How large a part of them each split gets; at least one sentence.
        seed: Seed of the choice.
        where: What messages call the data.

    Returns:
        The splits, and a line about each that was held out.

    Raises:
        DataError: Nothing would be left to train on.
    """
    ranks = [_rank(sentence, seed) for sentence in train]
    numbers = Counter(ranks)
    waiting = sorted(numbers, reverse=True)
    of: dict[int, Split] = {}
    for split, share in shares.items():
        taken, goal = 0, max(1, round(share * len(train)))
        while waiting and taken < goal:
            rank = waiting.pop()
            of[rank] = split
            taken += numbers[rank]
    if not waiting:
        what = " and ".join(shares)
        raise DataError(
            f"{where} has no {what}, and {counted(len(train), 'sentence')} to train on with {len(numbers)} different "
            "texts, which are too few to hold some out; say where the missing part is, with splits"
        )
    parts: dict[Split, list[Sentence]] = {split: [] for split in ("train", *shares)}
    for sentence, rank in zip(train, ranks, strict=True):
        parts[of.get(rank, "train")].append(sentence)
    notes = [
        f"{where} has no {split}: {len(parts[split])} of {len(train)} training sentences are held out for it, chosen "
        f"by split_seed {seed}"
        for split in shares
    ]
    return {split: tuple(part) for split, part in parts.items()}, notes


def _rank(sentence: Sentence, seed: int) -> int:
    """A number that looks random, of a sentence's words."""
    text = "\t".join(sentence.words)
    return int.from_bytes(hashlib.blake2b(f"{seed}\n{text}".encode(), digest_size=8).digest(), "big")
