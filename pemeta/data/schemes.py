"""Schemes of tags: how data sets write entities as one tag per word. Each is converted to IOB2, the library's own.

- ``IOB2``: ``B-TYPE`` begins every entity, ``I-TYPE`` goes on with it.
- ``IOB1``: ``I-TYPE`` begins an entity too; ``B-TYPE`` only where one of the same type stands right before.
- ``IOBES`` (BIOES): ``B``, ``I`` ..., ``E``; ``S`` for an entity of one word.
- ``BILOU``: ``B``, ``I`` ..., ``L``; ``U`` for an entity of one word.
- ``BMES`` (BMEWO): ``B``, ``M`` ..., ``E``; ``S`` or ``W`` for an entity of one word.
- ``types``: the type alone; neighbours of one type are one entity.
- ``conlleval``: ``B`` and ``I`` as the script of that name reads them: an ``I-TYPE`` that goes on with nothing begins
  an entity.

A tag that its scheme does not allow where it stands is refused, so that a wrong scheme is noticed: only ``conlleval``
takes every order of ``B`` and ``I``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, TypeAlias, get_args

from pemeta.errors import DataError, counted, excerpt, shortened

Scheme: TypeAlias = Literal["IOB2", "IOB1", "IOBES", "BILOU", "BMES", "types", "conlleval"]
"""Names of the schemes."""
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
DETECTED: tuple[Scheme, ...] = tuple(scheme for scheme in SCHEMES if scheme != "conlleval")
"""The schemes that detection chooses from: those that not every file fits."""

PREFIXED = re.compile(r"([BIESLUMW])-(.+)", re.DOTALL)
"""A tag of a scheme with letters: its letter and its type."""
_LETTER = re.compile("[BIESLUMW]-?")
"""A letter without a type."""
_ODD = re.compile(r"[BIESLUMW][\W_].+|.+[\W_][BIESLUMW]", re.IGNORECASE)
"""What may be a letter and a type that are written in another way: ``b-per``, ``B_PER``, ``PER-B``."""
_CHUNKS: dict[Scheme, tuple[str, str, str]] = {
    "IOBES": ("I", "E", "S"),
    "BILOU": ("I", "L", "U"),
    "BMES": ("M", "E", "SW"),
}
"""The letters, after B, that go on with an entity, that end one, and that are one of a single word."""


class SchemeError(DataError):
    """A tag that its scheme does not allow where it stands."""


class _MisfitError(Exception):
    """Why a tag cannot stand where it does: a clause, or the whole reason."""

    def __init__(self, text: str, whole: bool = False) -> None:
        super().__init__(text)
        self.text, self.whole = text, whole


def split_tag(tag: str) -> tuple[str, str]:
    """The letter and the type of a tag; no letter for a type alone, and neither for ``O``.

    >>> split_tag("B-PER"), split_tag("PER"), split_tag("O")
    (('B', 'PER'), ('', 'PER'), ('', ''))
    """
    if tag == "O":
        return "", ""
    found = PREFIXED.fullmatch(tag)
    return (found[1], found[2]) if found else ("", tag)


def _prefixed(tag: str, letters: str, scheme: Scheme) -> tuple[str, str]:
    """The letter and the type of a tag that must have one of some letters, or be ``O``."""
    letter, kind = split_tag(tag)
    if tag != "O" and letter not in (*letters,):
        forms = ", ".join(f"{one}-TYPE" for one in letters)
        raise _MisfitError(f"{_named(tag)} is no tag of {scheme}, which has O, {forms}", whole=True)
    return letter, kind


def _named(tag: str) -> str:
    return f"tag {excerpt(tag)}"


def _iob(previous: str, tag: str, scheme: Scheme) -> str:
    letter, kind = _prefixed(tag, "BI", scheme)
    continues = previous != "O" and split_tag(previous)[1] == kind
    if not letter:
        return "O"
    if letter == "I" and scheme == "IOB2" and not continues:
        raise _MisfitError(f"in IOB2 an entity starts with {f'B-{kind}'!r}")
    if letter == "B" and scheme == "IOB1" and not continues:
        raise _MisfitError(f"in IOB1 {tag!r} stands only right after an entity of the same type")
    return f"{'I' if letter == 'I' and continues else 'B'}-{kind}"


def _chunks(previous: str, tag: str, scheme: Scheme) -> str:
    inside, end, single = _CHUNKS[scheme]
    letter, kind = _prefixed(tag, f"B{inside}{end}{single}", scheme)
    before, open_kind = split_tag(previous)
    is_open = before in ("B", inside)
    if letter and letter in inside + end:
        if not is_open or open_kind != kind:
            raise _MisfitError(f"in {scheme} an entity starts with {f'B-{kind}'!r} or is {f'{single[0]}-{kind}'!r}")
        return f"I-{kind}"
    if is_open:
        raise _MisfitError(f"in {scheme} an entity of several words ends with {f'{end}-{open_kind}'!r}")
    return f"B-{kind}" if letter else "O"


def _types(previous: str, tag: str, scheme: Scheme) -> str:
    if not tag.strip():
        raise _MisfitError(f"{_named(tag)} is empty", whole=True)
    if PREFIXED.fullmatch(tag) or _LETTER.fullmatch(tag):
        raise _MisfitError(f"{_named(tag)} has the form of another scheme's, not of a type alone", whole=True)
    return "O" if tag == "O" else f"{'I' if previous == tag else 'B'}-{tag}"


_RULES: dict[Scheme, Callable[[str, str, Scheme], str]] = {
    "IOB2": _iob,
    "IOB1": _iob,
    "conlleval": _iob,
    "IOBES": _chunks,
    "BILOU": _chunks,
    "BMES": _chunks,
    "types": _types,
}


@lru_cache(maxsize=10_000)
def _step(scheme: Scheme, previous: str, tag: str | None) -> tuple[str, str, bool]:
    """A tag in IOB2 and no problem, or the problem, and whether it is the tag's form; None ends a sentence."""
    try:
        return _RULES[scheme](previous, "O" if tag is None else tag, scheme), "", False
    except _MisfitError as misfit:
        if misfit.whole:
            return "", misfit.text, True
        what = f"the sentence ends after {previous!r}" if tag is None else f"{_named(tag)} follows {previous!r}"
        return "", f"{what}, but {misfit.text}", False


def converted(tags: Sequence[str], scheme: Scheme) -> tuple[list[str], tuple[int, str] | None]:
    """The tags of a sentence in IOB2, and None; or those before the first that does not fit, its index, and why."""
    made: list[str] = []
    previous = "O"
    for index, tag in enumerate([*tags, None]):
        new, problem, _ = _step(scheme, previous, tag)
        if problem:
            return made, (min(index, len(tags) - 1), problem)
        if tag is not None:
            made.append(new)
            previous = tag
    return made, None


def to_iob2(tags: Sequence[str], scheme: Scheme) -> list[str]:
    """The tags of one sentence in IOB2.

    Raises:
        SchemeError: A tag does not fit the scheme where it stands.

    >>> to_iob2(["I-PER", "B-PER", "O"], "IOB1"), to_iob2(["B-LOC", "E-LOC", "S-PER"], "IOBES")
    (['B-PER', 'B-PER', 'O'], ['B-LOC', 'I-LOC', 'B-PER'])
    """
    made, misfit = converted(tags, scheme)
    if misfit:
        raise SchemeError(f"tag {misfit[0] + 1} of {len(tags)}: {misfit[1]}")
    return made


@dataclass(frozen=True)
class Detected:
    """The scheme of some data, as its tags show it.

    Attributes:
        scheme: The scheme.
        entities: Number of entities.
        types: Their types, in the order of their first words.
    """

    scheme: Scheme
    entities: int
    types: tuple[str, ...]

    def __str__(self) -> str:
        """One line: the scheme and how much there is of it."""
        types = f" of the types {shortened(', '.join(self.types), 150)}" if self.types else ""
        return f"its tags are {self.scheme}: {counted(self.entities, 'entity', 'entities')}{types}"


@dataclass
class SchemeFinder:
    """Finds the scheme of tags, of which it keeps no more than the different pairs of neighbours.

    Attributes:
        pairs: How often a tag follows another, in a sentence that begins after O and ends with None.
        places: Where each pair is first.
    """

    pairs: dict[tuple[str, str | None], int] = field(default_factory=dict)
    places: dict[tuple[str, str | None], str] = field(default_factory=dict)

    def add(self, tags: Sequence[str], place: Callable[[int], str]) -> None:
        """Look at the tags of one more sentence, of which ``place`` says where each is."""
        for index, pair in enumerate(zip(("O", *tags), (*tags, None), strict=True) if tags else ()):
            if pair not in self.pairs:
                self.pairs[pair] = 0
                self.places[pair] = place(min(index, len(tags) - 1))
            self.pairs[pair] += 1

    def found(self, among: Sequence[Scheme] = DETECTED) -> Detected:
        """The first of some schemes that all tags fit.

        Raises:
            SchemeError: None does, or the tags may be letters or types.
        """
        self._check_meaning()
        # Schemes that the same tags fit read them alike: B and I in every entity, or no entity at all.
        fitting = [scheme for scheme in among if not self._misfits(scheme)]
        if not fitting:
            raise SchemeError(self._no_scheme())
        begun = [
            (new[2:], number)
            for pair, number in self.pairs.items()
            if pair[1] is not None and (new := _step(fitting[0], *pair)[0]).startswith("B-")
        ]
        return Detected(fitting[0], sum(number for _, number in begun), tuple(dict.fromkeys(kind for kind, _ in begun)))

    def _check_meaning(self) -> None:
        """Refuse tags that may be types alone, or letters without types or beside them in another form."""
        tags = list(dict.fromkeys(tag for _, tag in self.pairs if tag not in (None, "", "O")))
        what = "is a letter without a type, and may be a type too"
        found = [tag for tag in tags if _LETTER.fullmatch(tag)]
        if not found and all(_ODD.fullmatch(tag) and not PREFIXED.fullmatch(tag) for tag in tags):
            found, what = tags, "may be a letter and a type in another form, or a type, as scheme: types takes it"
        if found:
            where = next(place for pair, place in self.places.items() if pair[1] == found[0])
            raise SchemeError(f"{where}: {_named(found[0])} {what}; write B-TYPE, I-TYPE and O")

    def _misfits(self, scheme: Scheme) -> list[tuple[str, str | None]]:
        return [pair for pair in self.pairs if _step(scheme, *pair)[1]]

    def _no_scheme(self) -> str:
        """Why no scheme fits: the first misfit for each of the two that come closest."""
        misfits = {scheme: self._misfits(scheme) for scheme in DETECTED}

        def distance(scheme: Scheme) -> tuple[int, int]:
            """How many tags have not the scheme's form, and how many do not fit."""
            foreign = (self.pairs[pair] for pair in misfits[scheme] if _step(scheme, *pair)[2])
            return sum(foreign), sum(self.pairs[pair] for pair in misfits[scheme])

        close = sorted(DETECTED, key=distance)[:2]
        reasons, places = [], []
        for scheme in close:
            first, number = misfits[scheme][0], sum(self.pairs[pair] for pair in misfits[scheme])
            more = f" (and {number - 1} more)" if number > 1 else ""
            reasons.append(f"{_step(scheme, *first)[1]}{more}")
            places.append(self.places[first])
        remedy = "mend the tags"
        if not self._misfits("conlleval"):
            remedy += ", or say scheme: conlleval, for which an I- that goes on with nothing begins an entity"
        return (
            f"{places[0]}: no scheme fits all tags; {close[0]} is closest, but {reasons[0]}; {close[1]} is next, but "
            f"{reasons[1]} ({places[1]}); {remedy}"
        )


def detect(tags: Iterable[Sequence[str]]) -> Detected:
    """The scheme of the tags of sentences, all of which are looked at.

    Raises:
        SchemeError: No scheme fits all of them, or they are letters without types, which may mean two things.

    >>> str(detect([["I-PER", "I-PER", "B-PER"], ["O"]]))
    'its tags are IOB1: 2 entities of the types PER'
    """
    finder = SchemeFinder()
    for number, one in enumerate(tags, 1):
        finder.add(one, lambda index, number=number: f"sentence {number}, tag {index + 1}")  # type: ignore[misc]
    return finder.found()
