"""What users give to the functions that make examples: any sequence of the right things is taken, anything else is
refused in a sentence that names what was found and what to do."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset

from pemeta import Corpus, LabelSet, Sentence, SyntheticWorld, Task, encode, encode_language_model, encode_texts
from pemeta.errors import ConfigError, DataError, PemetaError

CLASSES = ["bad", "good"]
TEXTS = ["met Otto", "Anna met Otto near Rome"]
LABELS = LabelSet(("PER",))
SENTENCES = [Sentence(("Anna", "met"), ("B-PER", "O")), Sentence(("met",), ("O",))]


def refusal(kind: type[PemetaError], call: Callable[..., Any], *given: Any, **named: Any) -> str:
    with pytest.raises(kind) as caught:
        call(*given, **named)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


# Every kind of sequence


class Lazy:
    """A data set of PyTorch: a length and items, and no more of a sequence than that."""

    def __init__(self, values):
        self.values = list(values)

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return self.values[index] if index < len(self.values) else self.values[0]  # some never raise IndexError


SEQUENCES = {
    "data set of PyTorch": Lazy,
    "list": list,
    "tuple": tuple,
    "generator": lambda values: (value for value in values),
    "iterator": iter,
    "deque": deque,
    "keys": lambda values: dict.fromkeys(values).keys() if len(set(map(str, values))) == len(values) else list(values),
    "array": np.array,
    "array of objects": lambda values: np.array(values, dtype=object),
    "series": pd.Series,
    "column of a data set": lambda values: Dataset.from_dict({"x": list(values)})["x"],
}


@pytest.mark.parametrize("kind", SEQUENCES)
def test_texts_and_labels_come_in_any_sequence(tokenizer, kind):
    make = SEQUENCES[kind]
    expected = encode_texts(TEXTS, ["good", "bad"], CLASSES, tokenizer, pairs=TEXTS[::-1])
    made = encode_texts(make(TEXTS), make(["good", "bad"]), make(CLASSES), tokenizer, pairs=make(TEXTS[::-1]))
    assert made.digest() == expected.digest()
    assert made.outputs == ("bad", "good")
    assert all(type(label) is str for label in made.labels + made.classes)
    blocks = encode_language_model(make(TEXTS), tokenizer, 4)
    assert blocks.digest() == encode_language_model(TEXTS, tokenizer, 4).digest()


@pytest.mark.parametrize("make", [list, tuple, iter, deque, Lazy, lambda values: (value for value in values)])
def test_so_do_sentences_words_tags_and_types(tokenizer, make):
    labels = LabelSet(make(["PER"]))
    assert labels == LABELS
    assert hash(labels) == hash(LABELS)
    sentences = [Sentence(make(one.words), make(one.tags)) for one in SENTENCES]
    assert sentences == SENTENCES
    assert {one.words for one in sentences} == {one.words for one in SENTENCES}  # as the search for duplicates does
    assert encode(make(sentences), labels, tokenizer).digest() == encode(SENTENCES, LABELS, tokenizer).digest()


def test_a_later_change_of_the_callers_list_changes_nothing(tokenizer):
    given = list(SENTENCES)
    encoded = encode(given, LABELS, tokenizer)
    given.clear()
    assert len(encoded.sentences) == 2


@pytest.mark.parametrize("empty", [[], (), iter([]), np.array([]), pd.Series([], dtype=object)])
def test_nothing_gives_no_examples(tokenizer, empty):
    assert len(encode(empty, LABELS, tokenizer)) == 0
    assert len(encode_texts(empty, empty, CLASSES, tokenizer, pairs=empty)) == 0
    assert len(encode_language_model(empty, tokenizer)) == 0
    with pytest.raises(DataError, match="a batch needs one sentence or more; found none"):
        encode(empty, LABELS, tokenizer).batch([])


def test_indices_may_be_an_iterator(tokenizer):
    encoded = encode(SENTENCES, LABELS, tokenizer)
    for made in (iter([1, 0]), np.array([1, 0]), torch.tensor([1, 0])):
        assert torch.equal(encoded.batch(made)["input_ids"], encoded.batch([1, 0])["input_ids"])


# Texts

NO_TEXTS = {
    "a string": ("met Otto", "texts must be a list; found the single value 'met Otto'; put it in a list"),
    "bytes": (b"met", "texts must be a list; found the single value b'met'"),
    "None": (None, "texts must be a list; found a NoneType: None"),
    "a number": (3, "texts must be a list; found an int: 3"),
    "a mapping": ({"text": TEXTS}, "texts must be a list; found a dict"),
    "a set": ({"met"}, "found a set: {'met'}; it has no order; give a list"),
    "a table": (pd.DataFrame({"text": TEXTS}), "texts must be a list; found a DataFrame: text 0 met Otto 1"),
    "an array of two dimensions": (np.array([TEXTS]), "texts must be a list; found a ndarray"),
    "a list of dicts": ([{"text": "a"}], "take the texts out of the rows first: [row['text'] for row in rows]"),
    "a data set": (Dataset.from_dict({"text": TEXTS}), "[row['text'] for row in rows]"),
    "None among them": (["met", None], "text 2 of 2 is missing (None); remove it"),
    "NaN among them": (["met", float("nan")], "text 2 of 2 is missing (nan); remove it"),
    "pandas' NA among them": (["met", pd.NA], "text 2 of 2 is missing (<NA>); remove it"),
    "numpy's NaN among them": (["met", np.float32("nan")], "text 2 of 2 is missing (nan); remove it"),
    "a column with a gap": (pd.Series(["met", None]), "text 2 of 2 is missing"),
    "words": ([["met", "Otto"]], "text 1 of 1 must be a string; found ['met', 'Otto']; join its words"),
    "numbers": ([1.5], "text 1 of 1 must be a string; found 1.5; convert it with str()"),
    "bytes among them": ([b"met"], "text 1 of 1 must be a string; found b'met'; decode it"),
    "blanks": (["met", " \u3000\n"], "text 2 of 2 is empty; remove it"),
    "half a surrogate pair": (["a\ud83d"], "text 1 of 1 holds '\\ud83d', half of a surrogate pair"),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_TEXTS)
def test_what_is_no_text_is_refused(tokenizer, name):
    given, says = NO_TEXTS[name]
    labels = ["good"] * (len(given) if isinstance(given, list | pd.Series) else 1)
    assert says in refusal(DataError, encode_texts, given, labels, CLASSES, tokenizer)
    assert says in refusal(DataError, encode_language_model, given, tokenizer)
    second = (
        says.replace("text 1", "second text 1")
        .replace("text 2", "second text 2")
        .replace("texts must", "second texts must")
    )
    if given is not None:
        assert second in refusal(
            DataError, encode_texts, ["met"] * len(labels), labels, CLASSES, tokenizer, pairs=given
        )


# Labels

INTEGERS = {
    "integers": [1, 0],
    "an array": np.array([1, 0]),
    "a tensor": torch.tensor([1, 0]),
    "an array of bytes": np.array([1, 0], dtype=np.uint8),
    "a series": pd.Series([1, 0]),
    "a generator": lambda: (i for i in [1, 0]),
    "truth values": [True, False],
    "names": ["good", "bad"],
    "both": [1, "bad"],
}


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_are_indices_of_named_classes(tokenizer, name):
    given = INTEGERS[name]
    encoded = encode_texts(TEXTS, given() if callable(given) else given, CLASSES, tokenizer)
    assert encoded.labels == ("good", "bad")
    assert encoded.batch([0, 1])["labels"].tolist() == [1, 0]


@pytest.mark.parametrize(("classes", "labels", "names"), [
    ([0, 1], [1, 0], ("0", "1")),
    ([0, 1], ["1", "0"], ("0", "1")),
    (range(2), np.array([1, 0]), ("0", "1")),
    (np.array([0, 1]), torch.tensor([1, 0]), ("0", "1")),
    ([5, 3], [3, 5], ("5", "3")),  # stars, in the order that was given
    ([-1, 1], [1, -1], ("-1", "1")),
    ([False, True], [True, False], ("False", "True")),
    (["0", "1"], [1, 0], ("0", "1")),
])  # fmt: skip
def test_classes_that_are_integers_have_them_as_names(tokenizer, classes, labels, names):
    """The case of GLUE-like sets, up to the task."""
    encoded = encode_texts(TEXTS, labels, classes, tokenizer)
    assert encoded.outputs == names
    assert encoded.batch([0, 1])["labels"].tolist() == [1, 0]
    assert Task.sequence_classification("g", encoded).make_head.labels == names


@pytest.mark.parametrize(("classes", "label", "says"), [
    (CLASSES, 2, "a label must be an index from 0 to 1; found 2; the classes are ('bad', 'good')"),
    (CLASSES, -1, "found -1; the classes are ('bad', 'good'); -1 marks texts without a label, as in GLUE's test sets"),
    (CLASSES, 1.0, "a label must be the name or the index of a class; found 1.0"),
    (CLASSES, None, "text 1 of 1 has no label (None)"),
    (CLASSES, float("nan"), "text 1 of 1 has no label (nan)"),
    (CLASSES, "goood", "unknown class 'goood'; did you mean 'good'? Known: bad, good"),
    (CLASSES, ["good"], "a label must be the name or the index of a class; found ['good']"),
    (CLASSES, {"label": 1}, "found {'label': 1}"),
    (["1", "0"], 0, "the label 0 is the index of the class '1' and also a class's name"),
    ([1, 2], 0, "unknown class '0'"),
    ([0, 1], -1, "unknown class '-1'; did you mean '1'? Known: 0, 1; -1 marks texts without a label"),
    (["True", "False"], True, "the label True is the index of the class 'False' and also a class's name"),
])  # fmt: skip
def test_labels_that_mean_no_class_or_two_are_refused(tokenizer, classes, label, says):
    message = refusal(DataError, encode_texts, ["met"], [label], classes, tokenizer)
    assert says in message


@pytest.mark.parametrize("classes", [
    None, 2, "good", {"bad", "good"}, {"bad": 0, "good": 1}, [], ["good"], ["good", "good"], ["good", None],
    ["good", ""], ["good", 1], [0, 0], [0, "0"], [0.0, 1.0], [["a"], ["b"]], pd.DataFrame({"a": [1]}),
])  # fmt: skip
def test_wrong_classes_are_refused(tokenizer, classes):
    message = refusal(ConfigError, encode_texts, ["met"], ["good"], classes, tokenizer)
    assert message.startswith("classes must be two or more different names; found ")


# Sentences

NO_SENTENCES = {
    "None": (None, "sentences must be a list; found a NoneType"),
    "a sentence": (SENTENCES[0], "sentences must be a list; found a Sentence"),
    "a corpus": (Corpus("x", LABELS, SENTENCES, SENTENCES, SENTENCES), "sentences must be a list; found a Corpus"),
    "a list of dicts": ([{"tokens": ["a"], "ner_tags": [0]}], "must be a pemeta.Sentence; found {'tokens'"),
    "pairs": ([(["a"], ["O"])], "make one of its words and tags: Sentence(words, tags)"),
    "None among them": ([*SENTENCES, None], "sentence 3 of 3 must be a pemeta.Sentence; found None"),
    "a new tag": ([SENTENCES[0], Sentence(("Mona",), ("B-ART",))], "list the entity types of all tags in data.types"),
    "a lone I": ([Sentence(("Anna",), ("I-PER",))], "tag 'I-PER' follows 'O', but in IOB2 an entity starts with"),
    "an I after O": ([Sentence(("a", "b"), ("O", "I-PER"))], "tag 'I-PER' follows 'O'"),
    "an entity over two sentences": ([SENTENCES[0], Sentence(("a",), ("I-PER",))], "2 of 2: tag 'I-PER' follows"),
    "IOBES": ([Sentence(("a",), ("S-PER",))], "unknown tag 'S-PER'"),
    "lower case": ([Sentence(("a",), ("b-per",))], "unknown tag 'b-per'"),
    "no prefix": ([Sentence(("a",), ("PER",))], "unknown tag 'PER'"),
    "an empty tag": ([Sentence(("a",), ("",))], "unknown tag ''"),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_SENTENCES)
def test_what_is_no_sentence_of_the_label_set_is_refused(tokenizer, name):
    given, says = NO_SENTENCES[name]
    assert says in refusal(DataError, encode, given, LABELS, tokenizer)


@pytest.mark.parametrize("wrong", ["B-ART", "I-PER"])
@pytest.mark.parametrize("where", ["cut", "without a token"])
def test_so_is_a_wrong_tag_of_a_word_that_was_cut_or_has_no_token(tokenizer, wrong, where):
    words = ("met",) * 40 + ("Rome",) if where == "cut" else ("met", "\u200b")
    sentence = Sentence(words, ("O",) * (len(words) - 1) + (wrong,))
    right = encode([Sentence(words, ("O",) * len(words))], LABELS, tokenizer)
    assert len(words) - 1 not in right.first_tokens[0]
    assert f"tag '{wrong}'" in refusal(DataError, encode, [sentence], LABELS, tokenizer)


@pytest.mark.parametrize(("words", "tags", "says"), [
    ((), (), "found 0 words and 0 tags"),
    (("a",), (), "found 1 word and 0 tags"),
    (("a", "b"), ("O",), "found 2 words and 1 tag: 'a b'"),
    ("Ada", ("O",) * 3, "words must be a list; found the single value 'Ada'"),
    (("Ada",), "O", "tags must be a list; found the single value 'O'"),
    (None, ("O",), "words must be a list; found a NoneType"),
    (("a",), None, "tags must be a list; found a NoneType"),
    ({"a", "b"}, ("O", "O"), "words must be a list; found a set"),
    (("a", None), ("O", "O"), "word 2 of 2 is missing (None); remove it and its tag; the words are ('a', None)"),
    (("a", float("nan")), ("O", "O"), "word 2 of 2 is missing (nan)"),
    (("a", ""), ("O", "O"), "word 2 of 2 is empty; remove it and its tag"),
    (("a", 3), ("O", "O"), "word 2 of 2 must be a string; found 3"),
    (("a", "\udc00"), ("O", "O"), "word 2 of 2 holds '\\udc00', half of a surrogate pair"),
    (("a",), (None,), "tag 1 of 1 is missing (None); give the word a tag, or O"),
    (("a",), (3,), "must be a string such as 'O'; found 3; if tags are indices into names"),
    (("a",), (["O"],), "tag 1 of 1 must be a string"),
])  # fmt: skip
def test_what_is_no_sentence(words, tags, says):
    assert says in refusal(DataError, Sentence, words, tags)


@pytest.mark.parametrize(
    "word", ["a b", "a\tb", "a\nb", "a\u2028b", "a\u0085b", "a\xa0b", "\u200b", " ", "\ufeff", "[SEP]"]
)
def test_unusual_words_are_words(tokenizer, word):
    encoded = encode([Sentence((word, "met"), ("B-PER", "O"))], LABELS, tokenizer)
    assert encoded.sentences[0].words == (word, "met")
    assert encoded.decode([1] * len(encoded.input_ids[0]), 0)[1] == "B-PER"


# Label sets and corpora


@pytest.mark.parametrize(("types", "says"), [
    ("PER", "entity types must be a list; found the single value 'PER'; put it in a list: LabelSet(['PER'])"),
    (b"PER", "entity types must be a list"),
    (None, "entity types must be a list; found a NoneType"),
    (3, "entity types must be a list"),
    ({"PER", "LOC"}, "it has no order; give a list"),
    ({"PER": 1}, "entity types must be a list; found a dict"),
    ((), "a label set needs one or more different entity types; found []"),
    (("PER", "PER"), "a label set needs one or more different entity types; found ['PER', 'PER']"),
    (("PER", ""), "a label set needs one or more different entity types"),
    (("PER", None), "a label set needs one or more different entity types"),
    (("PER", 3), "an entity type must be a name without blanks around it; found 3"),
    (("PER", ["LOC"]), "an entity type must be a name without blanks around it; found ['LOC']"),
    ((" PER",), "an entity type must be a name without blanks around it; found ' PER'"),
    (("P\tER",), "an entity type must be a name without blanks around it"),
    (("O", "PER"), "a label set needs entity types, not tags; found 'O'"),
    (LABELS.tags, "a label set needs entity types, not tags; found 'O'; give the types without prefixes"),
    (("B-PER", "I-PER"), "not tags; found 'B-PER'; give the types without prefixes, such as LabelSet(['PER'])"),
])  # fmt: skip
def test_what_is_no_label_set(types, says):
    assert says in refusal(ConfigError, LabelSet, types)


def test_unusual_types_are_types():
    assert LabelSet(("Ö", "per", "L-OC", "work of art")).tags[-1] == "I-work of art"


@pytest.mark.parametrize("labels", [None, ["O", "B-PER"], LABELS.tags, "PER"])
def test_labels_that_are_no_label_set(tokenizer, labels):
    assert "expected a label set; found" in refusal(ConfigError, encode, SENTENCES, labels, tokenizer)


def test_splits_of_a_corpus_that_are_none():
    corpus = SyntheticWorld(train=3, validation=1, test=2).corpus("aru")
    assert len(corpus.limited(train=2, test=None).train) == 2
    assert "unknown split 'dev'; Known: test, train, validation" in refusal(ConfigError, corpus.split, "dev")
    assert "did you mean 'train'?" in refusal(ConfigError, corpus.limited, trian=2)
    assert "train must be a whole number of at least 0; found -1" in refusal(
        ConfigError, lambda: corpus.limited(train=-1)
    )
    assert "found 1.5" in refusal(ConfigError, corpus.limited, train=1.5)
    assert "unknown language '3'" in refusal(ConfigError, lambda: SyntheticWorld().corpus(3))


# Lengths, tokenizers, tasks


@pytest.mark.parametrize("length", [0, 2, 33, -1, 3.5, "8", True, [8]])
def test_lengths_that_are_none(tokenizer, length):
    for call in (
        lambda: encode(SENTENCES, LABELS, tokenizer, length),
        lambda: encode_texts(["met"], ["good"], CLASSES, tokenizer, length),
    ):
        assert refusal(ConfigError, call) == f"max_length must be from 3 to the model's 32; found {length!r}"
    if length != 2:
        message = refusal(ConfigError, encode_language_model, ["met"], tokenizer, length)
        assert message == f"block_length must be from 2 to the model's 32; found {length!r}"


def test_a_length_of_another_library_is_a_length(tokenizer):
    assert len(encode_texts(["met " * 30], ["good"], CLASSES, tokenizer, np.int64(8)).input_ids[0]) == 8


@pytest.mark.parametrize("tokenizer", [None, "bert-base-cased", object()])
def test_tokenizers_that_are_none(tokenizer):
    refusal(PemetaError, encode, SENTENCES, LABELS, tokenizer)
    for call in (
        lambda: encode_texts(["met"], ["good"], CLASSES, tokenizer),
        lambda: encode_language_model(["met"], tokenizer),
    ):
        assert "expected the backbone's tokenizer; found" in refusal(ConfigError, call)


def test_tasks_of_what_is_not_encoded(tokenizer):
    makers = (Task.token_classification, Task.sequence_classification, Task.causal_lm)
    for train in (None, [], SENTENCES, "met", {"train": SENTENCES}, pd.DataFrame({"a": [1, 2]})):
        for make in makers:
            assert "task 'en' needs encoded examples; found a " in refusal(DataError, make, "en", train)
        assert "encode it first with encode" in refusal(DataError, Task, "en", train, lambda width: None)
    encoded = encode(SENTENCES, LABELS, tokenizer)
    for name in (None, 3, ["en"]):
        for make in (makers[0], lambda name, train: Task(name, train, lambda width: None)):
            assert "a task needs a name; found" in refusal(ConfigError, make, name, encoded)
    assert "make_head of task 'en' must be a HeadSpec" in refusal(ConfigError, Task, "en", encoded, 5)
    assert "use Task.token_classification" in refusal(DataError, lambda: makers[1]("en", encoded))
