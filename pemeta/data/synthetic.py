"""The synthetic world: sentences with named entities in a family of made-up languages."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pydantic import Field, field_validator

from pemeta.data.corpus import Corpus
from pemeta.data.sentences import SPLITS, LabelSet, Sentence, Split
from pemeta.data.synthetic_language import (
    CONTEXTS,
    FAMILY,
    FORMS,
    JOINER,
    MEANING,
    SUITED,
    Language,
    language,
    trade_language,
)
from pemeta.errors import unknown_name
from pemeta.utils.registry import Frozen
from pemeta.utils.seeding import numpy_generator
from pemeta.utils.values import known

LABELS = LabelSet(("PER", "ORG", "LOC"))

# Probabilities of the grammar's options. The third line holds how often a name's form, a word and a name's stem suit
# their context: the closer the first is to one half, the less form or context alone reveals about a name.
NAME_SUBJECT, NAME_PHRASE = 0.55, 0.6
ADVERB, SECOND_PHRASE, NUMERAL, ADJECTIVE = 0.4, 0.2, 0.1, 0.35
SUITED_NAME, SUITED_WORD, SUITED_STEM = 0.6, 0.95, 0.7
MODIFIED_NAME, GIVEN_NAME, RELATIONAL = 0.25, 0.2, 0.1


class Speaker:
    """A generator of sentences in one language, with some words borrowed from the trade language.

    Args:
        own: Language of the sentences.
        trade: Language that words are borrowed from.
        borrowing: Probability that a word is borrowed from ``trade``.
        rng: Generator of all random choices.
    """

    def __init__(self, own: Language, trade: Language, borrowing: float, rng: np.random.Generator) -> None:
        self.own, self.trade, self.borrowing, self.rng = own, trade, borrowing, rng

    def sentence(self) -> Sentence:
        """One clause: subject, verb, object and phrases around them, in the language's order."""
        context = self._pick(CONTEXTS)
        subject = self._name(context) if self._chance(NAME_SUBJECT) else self._common(context)
        parts = {"S": subject, "V": [self._word(f"{context} verb")], "O": self._common(context)}
        clause = [token for part in self.own.traits.order for token in parts[part]]
        phrases = self._phrase(NAME_PHRASE) + (self._phrase(0.0) if self._chance(SECOND_PHRASE) else [])
        # Phrases come before a clause with a final verb, and after any other.
        clause = phrases + clause if self.own.traits.order == "SOV" else clause + phrases
        if self._chance(ADVERB):
            clause.insert(0, self._word(f"{self._suited(context)} adverb"))
        clause.append((self._pick((".", ".", ".", "!", "?")), "O"))
        words, tags = zip(*clause, strict=True)
        return Sentence(words, tags)

    def _phrase(self, name: float) -> list[tuple[str, str]]:
        """An adposition with its noun phrase, a name with probability ``name``."""
        context = self._pick(CONTEXTS)
        inner = self._name(context) if self._chance(name) else self._common(context)
        adposition = [self._word(f"{context} adposition")]
        return adposition + inner if self.own.traits.prepositions else inner + adposition

    def _common(self, context: str) -> list[tuple[str, str]]:
        """A common noun that mostly suits ``context``, with its modifiers."""
        context = self._suited(context)
        modifiers = []
        if self._chance(NUMERAL):
            modifiers.append((str(self.rng.integers(2, 20)), "O"))
        if self._chance(ADJECTIVE):
            modifiers.append(self._word(f"{self._pick(SUITED[context])} adjective"))
        if self._chance(RELATIONAL):
            speech = self._language()
            modifiers.append((speech.relational + JOINER + self._pick(speech.stems), "O"))
        return self._ordered(modifiers, (self._pick(self._language().nouns[context]), "O"))

    def _name(self, context: str) -> list[tuple[str, str]]:
        """A name of one to three words; its form and ``context`` together decide whether it is an entity."""
        form = self._pick(SUITED[context if self._chance(SUITED_NAME) else self._other(context)])
        speech = self._language()
        stems = speech.stems_of(form) if self._chance(SUITED_STEM) else speech.stems
        head = self._pick(speech.words[f"{form} affix"]) + JOINER + self._pick(stems)
        modifiers = []
        if self._chance(MODIFIED_NAME):
            modifiers.append(self._word(f"{form if self._chance(SUITED_WORD) else self._pick(FORMS)} adjective")[0])
        if self._chance(GIVEN_NAME):
            modifiers.append(self._pick(speech.stems))
        words = [word for word, _ in self._ordered([(word, "O") for word in modifiers], (head, "O"))]
        kind = MEANING[form, context]
        return [(word, f"{'I' if i else 'B'}-{kind}" if kind else "O") for i, word in enumerate(words)]

    def _suited(self, context: str) -> str:
        return context if self._chance(SUITED_WORD) else self._other(context)

    def _other(self, context: str) -> str:
        return CONTEXTS[1 - CONTEXTS.index(context)]

    def _ordered(self, modifiers: list[tuple[str, str]], head: tuple[str, str]) -> list[tuple[str, str]]:
        return [*modifiers, head] if self.own.traits.adjective_first else [head, *modifiers[::-1]]

    def _word(self, kind: str) -> tuple[str, str]:
        return self._pick(self._language().words[kind]), "O"

    def _language(self) -> Language:
        return self.trade if self._chance(self.borrowing) else self.own

    def _chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def _pick(self, options: tuple[str, ...]) -> str:
        return options[int(self.rng.integers(len(options)))]


class SyntheticWorld(Frozen):
    """A family of made-up languages with named entities, for demonstrations and tests without downloads.

    A name is an affix and a stem, as in *d’Arc*, with up to two more words. Both the affix and the context of a name
    are ambiguous; only together do they distinguish a person from an organisation, a place or a common noun
    (:data:`pemeta.data.synthetic_language.MEANING`). Combinations have the same meaning in all languages, and all
    languages share some loanwords, so that a model can transfer what it has learnt in one to another.

    Everything is a function of (``seed``, language, split): requesting one never changes another.

    Attributes:
        seed: Seed of the world's lexicon, affixes and sentences.
        languages: Names from ``aru bex cim dov eki fal gor hin``.
        train: Labelled training sentences per language.
        validation: Labelled validation sentences per language.
        test: Labelled test sentences per language.
        text_sentences: Unlabelled sentences per language, for pretraining.
        borrowing: Share of the words in labelled sentences that are borrowed from the trade language.
        text_borrowing: The same share in the unlabelled text.

    >>> world = SyntheticWorld(train=2, validation=1, test=1)
    >>> world.corpus("aru") == world.corpus("aru")
    True
    """

    seed: int = 0
    languages: tuple[str, ...] = ("aru", "bex", "cim", "dov", "eki")
    train: int = Field(default=600, ge=1)
    validation: int = Field(default=100, ge=1)
    test: int = Field(default=300, ge=1)
    text_sentences: int = Field(default=2000, ge=1)
    borrowing: float = Field(default=0.03, ge=0, le=1)
    text_borrowing: float = Field(default=0.15, ge=0, le=1)

    @field_validator("languages")
    @classmethod
    def _known(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        for name in languages:
            if name not in FAMILY:
                raise ValueError(unknown_name("language", name, FAMILY))
        if not languages or len(set(languages)) != len(languages):
            raise ValueError(f"expected one or more different languages; found {list(languages)}")
        return languages

    def corpus(self, language: str) -> Corpus:
        """The labelled sentences of ``language``; no sentence occurs twice, within a split or across splits.

        Raises:
            ConfigError: the world has no such language.
        """
        taken: set[tuple[str, ...]] = set()
        # Test first, train last: duplicates are skipped, and so the test sentences do not depend on the number of
        # training sentences.
        found = {split: self._unseen(language, split, taken) for split in reversed(SPLITS)}
        return Corpus(language, LABELS, *(found[split] for split in SPLITS))

    def text(self, language: str) -> list[list[str]]:
        """The unlabelled sentences of ``language``, as words.

        Raises:
            ConfigError: the world has no such language.
        """
        sentences = self._say(language, "text", self.text_borrowing)
        return [list(next(sentences).words) for _ in range(self.text_sentences)]

    def _unseen(self, language: str, split: Split, taken: set[tuple[str, ...]]) -> tuple[Sentence, ...]:
        found: list[Sentence] = []
        sentences = self._say(language, split, self.borrowing)
        size: int = {"train": self.train, "validation": self.validation, "test": self.test}[split]
        while len(found) < size:
            sentence = next(sentences)
            if sentence.words not in taken:
                taken.add(sentence.words)
                found.append(sentence)
        return tuple(found)

    def _say(self, name: str, purpose: str, borrowing: float) -> Iterator[Sentence]:
        known(name, "language", self.languages)
        rng = numpy_generator(self.seed, "sentences", name, purpose)
        speaker = Speaker(language(self.seed, name), trade_language(self.seed), borrowing, rng)
        while True:
            yield speaker.sentence()
