"""The languages of the synthetic world: one family, each with its own sounds, letters, affixes and order.

A *proto-lexicon* gives every concept one root. A language turns the root into a word of its own:
regular sound changes, sometimes a new root instead, its own affixes, its own script. All numbers here are
choices of this library; they make transfer between the languages possible and not trivial.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Literal

import numpy as np

from pemeta.seeding import derive_seed, numpy_generator

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
"""What surrounds a name: it acts or accompanies, or something is or stands there."""
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
"""The entity type of a name by its form and its context, None where it is no entity."""

SUITED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"agent": ("patronym", "byname"), "place": ("toponym", "demonym")}
)
"""The forms that a context is a little more often said with; see ``synthetic.SUITED_NAME``."""

# How many concepts of each kind the family has words for. Nouns, verbs, adverbs and adpositions belong to a context
# and adjectives to a form: what goes together in ordinary sentences lets a language model find the classes.
CONCEPTS: Mapping[str, int] = MappingProxyType(
    {f"{context} {kind}": n for kind, n in (("noun", 8), ("verb", 4), ("adverb", 2), ("adposition", 2)) for context in CONTEXTS}
    | {f"{form} adjective": 2 for form in FORMS}
)
AFFIXES_PER_FORM = 2
JOINER = "’"
STEMS = 40


@dataclass(frozen=True)
class Traits:
    """What makes a language differ from its relatives.

    Attributes:
        script: A key of :data:`SCRIPTS`.
        order: Subject, object and verb in a clause.
        adjective_first: Modifiers come before their noun.
        prepositions: Adpositions come before their phrase.
        shifts: Regular sound changes; each string is a cycle, so ``"pf"`` turns p into f and f into p, and no
            two sounds ever merge.
        innovation: Share of the other roots and affixes that are not inherited.
        loans: Share of the words and affixes of each kind taken over from the trade language, letters and all.
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
        "bex": Traits("greek", "SOV", True, False, ("tdz",)),
        "cim": Traits("latin", "SVO", False, True, ("kg", "ei")),
        "dov": Traits("greek", "VSO", True, True, ("bv", "aeo")),
        "eki": Traits("georgian", "SOV", True, False, ("kh", "sz")),
        "fal": Traits("cyrillic", "SVO", True, True, ("td", "ie")),
        "gor": Traits("georgian", "VSO", False, True, ("pb", "uo")),
        "hin": Traits("cyrillic", "SOV", False, False, ("lr", "ao")),
    }
)
"""The languages that exist, by name."""

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
        """Proto-sounds after this language's sound changes, in its letters."""
        return sounds.translate(self._spelling)

    @cached_property
    def affixes(self) -> dict[str, tuple[str, ...]]:
        """The name affixes of each form; no affix ends like another."""
        inherited = _affixes(numpy_generator(self.seed, "affixes"), set())
        innovated = _affixes(numpy_generator(self.seed, "affixes", self.name), set(sum(inherited.values(), ())))
        words = self._derive(inherited, innovated)
        return {form: tuple(affix + JOINER for affix in affixes) for form, affixes in words.items()}

    @cached_property
    def relational(self) -> str:
        """The affix that turns a name's stem into an ordinary adjective."""
        return self.spell("ska") + JOINER

    @cached_property
    def words(self) -> dict[str, tuple[str, ...]]:
        """The words of each kind of concept, in the order of the proto-lexicon."""
        inherited = _roots(numpy_generator(self.seed, "roots"))
        words = self._derive(inherited, _roots(numpy_generator(self.seed, "roots", self.name)))
        prefixes = [affix for form in FORMS for affix in self.affixes[form]]
        for start, context in enumerate(CONTEXTS):
            nouns = words[f"{context} noun"]
            own = prefixes[start :: len(CONTEXTS)]  # of the common nouns, one looks like a name with each prefix
            derived = [prefix + noun for prefix, noun in zip(own, nouns, strict=False)]
            words[f"{context} noun"] = (*derived, *nouns[len(derived) :])
        return words

    def _derive(
        self, inherited: Mapping[str, tuple[str, ...]], innovated: Mapping[str, tuple[str, ...]]
    ) -> dict[str, tuple[str, ...]]:
        """This language's words: a fixed share of each kind are loans, and of the others some are new."""
        rng = numpy_generator(self.seed, "derive", self.name, *inherited)
        derived: dict[str, tuple[str, ...]] = {}
        for kind, roots in inherited.items():
            loans = set(rng.permutation(len(roots))[: round(self.traits.loans * len(roots))].tolist())
            new = rng.random(len(roots)) < self.traits.innovation
            derived[kind] = tuple(
                root if i in loans else self.spell(innovated[kind][i] if new[i] else root)
                for i, root in enumerate(roots)
            )
        return derived

    @cached_property
    def stems(self) -> tuple[str, ...]:
        """What names are made of, inherited by all languages: one closed syllable each."""
        rng = numpy_generator(self.seed, "stems")
        found: dict[str, None] = {}
        while len(found) < STEMS:
            found[_syllables(rng, 1) + str(rng.choice(list("nrlst")))] = None
        return tuple(map(self.spell, found))

    def stems_of(self, form: str) -> tuple[str, ...]:
        """The stems that names of ``form`` are mostly made of."""
        return self.stems[FORMS.index(form) :: len(FORMS)]

    def __repr__(self) -> str:
        return f"Language({self.name!r}, seed={self.seed}, {self.traits})"


def _syllables(rng: np.random.Generator, count: int) -> str:
    return "".join(str(rng.choice(list(CONSONANTS))) + str(rng.choice(list(VOWELS))) for _ in range(count))


def _affixes(rng: np.random.Generator, taken: set[str]) -> dict[str, tuple[str, ...]]:
    """New affixes, consonant + vowel, none of them in ``taken``."""
    found: list[str] = []
    while len(found) < AFFIXES_PER_FORM * len(FORMS):
        affix = _syllables(rng, 1)
        if affix not in found and affix not in taken:
            found.append(affix)
    return {form: tuple(found[i :: len(FORMS)]) for i, form in enumerate(FORMS)}


def _roots(rng: np.random.Generator) -> dict[str, tuple[str, ...]]:
    """A root for every concept: short for the small words of the grammar, longer for the others."""
    taken: set[str] = set()
    roots: dict[str, tuple[str, ...]] = {}
    for kind, count in CONCEPTS.items():
        of_kind: list[str] = []
        while len(of_kind) < count:
            small = "adposition" in kind
            root = _syllables(rng, 1 if small else 2) + ("" if small else str(rng.choice(list(CONSONANTS))))
            if root not in taken:
                taken.add(root)
                of_kind.append(root)
        roots[kind] = tuple(of_kind)
    return roots


def language(seed: int, name: str) -> Language:
    """The language ``name`` of :data:`FAMILY` in the world of ``seed``."""
    return Language(derive_seed(seed, "world"), name, FAMILY[name])


def trade_language(seed: int) -> Language:
    """The proto-language as it is still written, from which all borrow."""
    return Language(derive_seed(seed, "world"), "trade", TRADE)
