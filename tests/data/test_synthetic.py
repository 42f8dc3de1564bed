"""The synthetic world: its guarantees on seeds, splits and scripts, and what a name's type depends on."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator

import pytest

from pemeta.data.sentences import SPLITS, Sentence
from pemeta.data.synthetic import LABELS, SyntheticWorld
from pemeta.data.synthetic_language import FAMILY, JOINER, MEANING, Language, language, trade_language
from pemeta.errors import ConfigError

SMALL = SyntheticWorld(languages=tuple(FAMILY), train=40, validation=20, test=40, text_sentences=40)


@pytest.mark.parametrize("name", FAMILY)
def test_the_same_seed_gives_the_same_corpus_and_another_gives_another(name: str) -> None:
    other = SMALL.model_copy(update={"seed": 1})
    assert SMALL.corpus(name) == SyntheticWorld(**SMALL.model_dump()).corpus(name)
    assert SMALL.text(name) == SMALL.text(name)
    assert not {s.words for s in SMALL.corpus(name).train} & {s.words for s in other.corpus(name).train}


def test_a_language_does_not_depend_on_the_others_nor_on_the_sizes_of_other_splits() -> None:
    alone = SyntheticWorld(languages=("eki",), train=7, validation=20, test=40, text_sentences=40)
    assert alone.text("eki") == SMALL.text("eki")
    corpus, reference = alone.corpus("eki"), SMALL.corpus("eki")
    assert (corpus.test, corpus.validation) == (reference.test, reference.validation)
    assert corpus.train == reference.train[:7]


@pytest.mark.parametrize("name", FAMILY)
def test_sentences_are_valid_iob2_short_and_in_one_split_only(name: str) -> None:
    corpus = SMALL.corpus(name)
    assert [len(corpus.split(split)) for split in SPLITS] == [40, 20, 40]
    sentences = [sentence for split in SPLITS for sentence in corpus.split(split)]
    assert len({sentence.words for sentence in sentences}) == len(sentences)
    for sentence in sentences:
        assert 6 <= len(sentence.words) <= 16
        for previous, tag in zip(("O", *sentence.tags), sentence.tags, strict=False):
            assert LABELS.problem(previous, tag) is None


def test_names_are_productive() -> None:
    corpus = SyntheticWorld(train=300, test=300).corpus("aru")
    entities = [{" ".join(words) for words, _ in _entities(split)} for split in (corpus.train, corpus.test)]
    assert len(entities[1] - entities[0]) > 0.4 * len(entities[1])
    assert {len(entity.split()) for entity in entities[0]} == {1, 2, 3}


def test_the_family_is_written_in_four_scripts_and_some_languages_share_one() -> None:
    found = {name: _script(language(0, name)) for name in FAMILY}
    assert {name: script.lower() for name, script in found.items()} == {n: t.script for n, t in FAMILY.items()}
    assert len(set(found.values())) == 4


@pytest.mark.parametrize("name", FAMILY)
def test_no_word_means_two_things(name: str) -> None:
    meanings: dict[str, set[Hashable]] = defaultdict(set)
    for speech in (language(0, name), trade_language(0)):
        for kind, words in speech.words.items():
            for concept, word in enumerate(words):
                meanings[word].add((kind, concept))
    assert not {word: kinds for word, kinds in meanings.items() if len(kinds) > 1}


def test_an_unknown_language_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown language 'ekki'; did you mean 'eki'\? Known: .*bex"):
        SMALL.corpus("ekki")
    with pytest.raises(ConfigError, match="unknown language 'hin'"):
        SyntheticWorld().text("hin")
    with pytest.raises(ValueError, match="unknown language 'arru'; did you mean 'aru'"):
        SyntheticWorld(languages=("arru",))
    with pytest.raises(ValueError, match="one or more different languages"):
        SyntheticWorld(languages=("aru", "aru"))


@pytest.mark.parametrize("name", ["aru", "bex", "cim", "dov", "eki"])
def test_neither_form_nor_context_decides_but_both_together_do(name: str) -> None:
    """Lookup tables on the surface of sentences, each of which answers with the majority of its training cases."""
    corpus = SyntheticWorld(train=1500, test=300).corpus(name)
    reader = _Reader(language(0, name), trade_language(0))
    train, test = list(reader.names(corpus.train)), list(reader.names(corpus.test))
    gold = sum(tag.startswith("B-") for sentence in corpus.test for tag in sentence.tags)
    assert sum(kind is not None for *_, kind in test) == gold  # the reader overlooks no entity

    def f1(key: Callable[[tuple[str, ...], str, str], Hashable]) -> float:
        votes: dict[Hashable, Counter[str | None]] = defaultdict(Counter)
        for phrase, form, context, kind in train:
            votes[key(phrase, form, context)][kind] += 1
        pairs = [(votes[key(phrase, form, context)].most_common(1), kind) for phrase, form, context, kind in test]
        answers = [(vote[0][0] if vote else None, kind) for vote, kind in pairs]
        right = sum(answer == kind is not None for answer, kind in answers)
        return 2 * right / (sum(a is not None for a, _ in answers) + gold)

    assert f1(lambda phrase, form, context: form) < 0.75
    assert f1(lambda phrase, form, context: phrase[-1]) < 0.75
    assert f1(lambda phrase, form, context: context) < 0.75
    assert f1(lambda phrase, form, context: (form, context)) == 1.0
    assert all(MEANING[form, context] == kind for _, form, context, kind in test)


class _Reader:
    """A reader that finds names and their contexts, from the adjacent adposition or else the verb."""

    def __init__(self, *languages: Language) -> None:
        self.traits = languages[0].traits
        words = [(word, kind) for speech in languages for kind, of in speech.words.items() for word in of]
        self.kinds = dict(words)
        self.forms = {word: kind.split()[0] for word, kind in words if kind.endswith("affix")}
        self.nouns = {noun for speech in languages for nouns in speech.nouns.values() for noun in nouns}
        self.stems = {stem for speech in languages for stem in speech.stems}

    def names(self, sentences: Iterable[Sentence]) -> Iterator[tuple[tuple[str, ...], str, str, str | None]]:
        """Each name's words, form, context and entity type or None."""
        for sentence in sentences:
            for i, word in enumerate(sentence.words):
                affix, joiner, _ = word.partition(JOINER)
                if joiner and affix in self.forms and word not in self.nouns:
                    start, end = self._extent(sentence.words, i)
                    kind = sentence.tags[start][2:] or None
                    expected = [f"{'I' if j else 'B'}-{kind}" if kind else "O" for j in range(end - start)]
                    assert list(sentence.tags[start:end]) == expected
                    words = sentence.words[start:end]
                    yield words, self.forms[affix], self._context(sentence.words, start, end), kind

    def _extent(self, words: tuple[str, ...], head: int) -> tuple[int, int]:
        start = end = head
        if self.traits.adjective_first:
            while start and self._modifies(words[start - 1]):
                start -= 1
        else:
            while self._modifies(words[end + 1]):
                end += 1
        return start, end + 1

    def _modifies(self, word: str) -> bool:
        return word in self.stems or self.kinds.get(word, "").endswith("adjective")

    def _context(self, words: tuple[str, ...], start: int, end: int) -> str:
        at = start - 1 if self.traits.prepositions else end
        beside = self.kinds.get(words[at], "") if at >= 0 else ""
        if beside.endswith("adposition"):
            return beside.split()[0]
        (verb,) = [kind for kind in (self.kinds.get(word, "") for word in words) if kind.endswith(" verb")]
        return verb.split()[0]


def _entities(sentences: Iterable[Sentence]) -> Iterator[tuple[list[str], str]]:
    for sentence in sentences:
        found: list[tuple[list[str], str]] = []
        for word, tag in zip(sentence.words, sentence.tags, strict=True):
            if tag[0] == "B":
                found.append(([word], tag[2:]))
            elif tag[0] == "I":
                found[-1][0].append(word)
        yield from found


def _script(speech: Language) -> str:
    """The script of the stems, which are never borrowed."""
    letters = {letter for stem in speech.stems for letter in stem}
    scripts = {unicodedata.name(letter).split()[0] for letter in letters}
    (script,) = scripts
    return script
