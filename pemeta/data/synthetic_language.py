"""The languages of the synthetic world: one family, each with its own sounds, letters, affixes and word order.

A *proto-lexicon* gives every concept one root. A language turns the root into a word of its own, by
regular sound changes, sometimes a new root, its own affixes and its own script. The numbers here were
chosen to make transfer between the languages possible but not trivial.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Literal

import numpy as np

from pemeta.utils.seeding import numpy_generator

CONSONANTS = "ptkbdgmnslrvzfh"
VOWELS = "aeiou"
SCRIPTS: Mapping[str, str] = MappingProxyType(
    {
        "latin": CONSONANTS + VOWELS,
        "greek": "πτκβδγμνσλρφζθχαειοω",
        "cyrillic": "пткбдгмнслрвзфхаеиоу",
        "georgian": "პტკბდგმნსლრვზფჰაეიოუ",
    }
)
"""Each script's letters, in the order of ``CONSONANTS + VOWELS``."""

CONTEXTS = ("agent", "place")
"""Contexts of a name: an agent acts or accompanies; at a place, something is or happens."""
FORMS = ("patronym", "toponym", "demonym", "byname")
"""The four kinds of name affix. Neither a form nor a context decides what a name is; see ``MEANING``."""
MEANING: Mapping[tuple[str, str], str | None] = MappingProxyType(
    {
        ("patronym", "agent"): "PER",  # Petrov said
        ("patronym", "place"): "ORG",  # at Petrov's, the shop
        ("toponym", "agent"): "ORG",  # Paris refuses, the government
        ("toponym", "place"): "LOC",  # in Paris
        ("demonym", "agent"): None,  # the Londoner said: a common noun
        ("demonym", "place"): "LOC",  # by the Londoner, a hill
        ("byname", "agent"): "PER",  # the Baker said
        ("byname", "place"): None,  # at the baker: a common noun
    }
)
"""The entity type of a name by its form and its context, or None if it is not an entity."""

SUITED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"agent": ("patronym", "byname"), "place": ("toponym", "demonym")}
)
"""The forms that are a little more frequent in each context."""

# Number of concepts of each kind. Nouns, verbs, adverbs and adpositions belong to a context and adjectives to a form,
# so that a language model can infer these classes from co-occurrence in unlabelled text.
PER_CONTEXT: Mapping[str, int] = MappingProxyType({"noun": 8, "verb": 4, "adverb": 2, "adposition": 2})
PER_FORM: Mapping[str, int] = MappingProxyType({"adjective": 2, "affix": 2})
STEMS = 40

JOINER = "’"
"""Character between an affix and the word that follows, as in *d’Arc*; tokenizers split there."""


@dataclass(frozen=True)
class Traits:
    """Traits that distinguish a language from its relatives.

    Attributes:
        script: A key of :data:`SCRIPTS`.
        order: Order of subject, object and verb in a clause.
        adjective_first: Whether modifiers come before their noun.
        prepositions: Whether adpositions come before their phrase.
        shifts: Regular sound changes; each string is a cycle, so ``"pf"`` turns p into f and f into p, and no
            two sounds ever merge.
        innovation: Share of the other roots and affixes that are not inherited.
        loans: Share of the words and affixes of each kind that are loans from the trade language, in its script.
    """

    script: str
    order: Literal["SVO", "SOV", "VSO"]
    adjective_first: bool
    prepositions: bool
    shifts: tuple[str, ...]
    innovation: float = 0.2
    loans: float = 0.5


FAMILY: Mapping[str, Traits] = MappingProxyType(
    {
        "aru": Traits("latin", "SVO", True, True, ("pf", "ou")),
        "bex": Traits("greek", "SOV", False, False, ("tdz",)),
        "cim": Traits("latin", "SVO", False, True, ("kg", "ei")),
        "dov": Traits("greek", "VSO", True, True, ("bv", "aeo")),
        "eki": Traits("georgian", "SOV", True, False, ("kh", "sz")),
        "fal": Traits("cyrillic", "SVO", True, True, ("td", "ie")),
        "gor": Traits("georgian", "VSO", False, True, ("pb", "uo")),
        "hin": Traits("cyrillic", "SOV", False, False, ("lr", "ao")),
    }
)
"""The languages of the family, by name."""

TRADE = Traits("latin", "SVO", True, True, (), innovation=0.0, loans=0.0)
"""The family's common written language: the proto-language itself, from which every language borrows."""


class Language:
    """A language's words, in its own script.

    Everything is a function of ``seed``, ``name`` and the traits.

    Args:
        seed: The world's seed.
        name: The language's name, for its own random numbers.
        traits: Its grammar, sounds and letters.
    """

    def __init__(self, seed: int, name: str, traits: Traits) -> None:
        self.seed, self.name, self.traits = seed, name, traits
        table = {sound: sound for sound in CONSONANTS + VOWELS}
        for cycle in traits.shifts:
            table |= dict(zip(cycle, cycle[1:] + cycle[:1], strict=True))
        letters = dict(zip(CONSONANTS + VOWELS, SCRIPTS[traits.script], strict=True))
        self._spelling = str.maketrans({sound: letters[table[sound]] for sound in table})

    def spell(self, sounds: str) -> str:
        """The proto-sounds after this language's sound changes, in its script."""
        return sounds.translate(self._spelling)

    @cached_property
    def words(self) -> dict[str, tuple[str, ...]]:
        """The words of each kind, such as ``"agent verb"`` or ``"toponym affix"``, in the proto-lexicon's order.

        No word has two meanings, neither within the language nor across it and the trade language.
        """
        roots = _roots(self.seed)
        taken = {root for kind in roots.values() for root in kind}
        rng = numpy_generator(self.seed, "words", self.name)
        return {kind: self._derive(kind, roots[kind], taken, rng) for kind in roots}

    def _derive(self, kind: str, roots: tuple[str, ...], taken: set[str], rng: np.random.Generator) -> tuple[str, ...]:
        """The words of one kind: a fixed share are loans, and some of the others are new roots."""
        loans = rng.permutation(len(roots))[: round(self.traits.loans * len(roots))].tolist()
        words: list[str] = []
        for i, root in enumerate(roots):
            innovate = rng.random() < self.traits.innovation
            word = root if i in loans else self.spell(_root(rng, kind) if innovate else root)
            while word != root and word in taken:
                word = self.spell(_root(rng, kind))
            taken.add(word)
            words.append(word)
        return tuple(words)

    @cached_property
    def nouns(self) -> dict[str, tuple[str, ...]]:
        """The common nouns of each context; for each name affix there is one noun with that affix, as in *l’eau*."""
        affixes = [affix for form in FORMS for affix in self.words[f"{form} affix"]]
        nouns = {}
        for start, context in enumerate(CONTEXTS):
            plain = self.words[f"{context} noun"]
            own = affixes[start :: len(CONTEXTS)]
            derived = [affix + JOINER + noun for affix, noun in zip(own, plain, strict=False)]
            nouns[context] = (*derived, *plain[len(derived) :])
        return nouns

    @cached_property
    def relational(self) -> str:
        """The affix that turns a name's stem into an ordinary adjective."""
        return self.spell("ska")

    @cached_property
    def stems(self) -> tuple[str, ...]:
        """The stems of names, inherited by all languages: one closed syllable each."""
        rng = numpy_generator(self.seed, "stems")
        found: dict[str, None] = {}
        while len(found) < STEMS:
            found[_syllables(rng, 1) + str(rng.choice(list("nrlst")))] = None
        return tuple(map(self.spell, found))

    def stems_of(self, form: str) -> tuple[str, ...]:
        """The stems that most names of ``form`` have."""
        return self.stems[FORMS.index(form) :: len(FORMS)]

    def __repr__(self) -> str:
        return f"Language({self.name!r}, seed={self.seed}, {self.traits})"


def _syllables(rng: np.random.Generator, count: int) -> str:
    return "".join(str(rng.choice(list(CONSONANTS))) + str(rng.choice(list(VOWELS))) for _ in range(count))


def _root(rng: np.random.Generator, kind: str) -> str:
    """A new root: one open syllable for affixes and adpositions, two syllables for the rest."""
    if kind.endswith(("affix", "adposition")):
        return _syllables(rng, 1)
    return _syllables(rng, 2) + str(rng.choice(list(CONSONANTS)))


def _roots(seed: int) -> dict[str, tuple[str, ...]]:
    """The proto-lexicon: a distinct root for every concept of every kind."""
    kinds = {f"{context} {kind}": count for kind, count in PER_CONTEXT.items() for context in CONTEXTS}
    kinds |= {f"{form} {kind}": count for kind, count in PER_FORM.items() for form in FORMS}
    rng = numpy_generator(seed, "roots")
    roots: dict[str, str] = {}
    for kind, count in kinds.items():
        for _ in range(count):
            root = _root(rng, kind)
            while root in roots:
                root = _root(rng, kind)
            roots[root] = kind
    return {kind: tuple(root for root, of in roots.items() if of == kind) for kind in kinds}


def language(seed: int, name: str) -> Language:
    """The language ``name`` of :data:`FAMILY` in the world of ``seed``.

    >>> language(0, "eki").words["agent verb"] == language(1, "eki").words["agent verb"]
    False
    """
    return Language(seed, name, FAMILY[name])


def trade_language(seed: int) -> Language:
    """The trade language of the world of ``seed``: the proto-language, from which all others borrow."""
    return Language(seed, "trade", TRADE)
