"""Corpora of data sets that are objects: of datasets and pandas, and mappings of their splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets import Sequence as ListOf

from pemeta import Corpus
from pemeta.errors import ConfigError, DataError, PemetaError

TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
ROWS = [(["Ada", "Lovelace", str(n)], ["B-PER", "I-PER", "O"]) for n in range(20)]
WORDS, OF_ROWS = map(list, zip(*ROWS, strict=True))
COLUMNS = {"tokens": WORDS, "ner_tags": OF_ROWS}
INDICES = {"tokens": WORDS, "ner_tags": [[TAGS.index(tag) for tag in tags] for tags in OF_ROWS]}
FEATURES = Features({"tokens": ListOf(Value("string")), "ner_tags": ListOf(ClassLabel(names=TAGS))})
LABELLED = Dataset.from_dict(INDICES, features=FEATURES)


def stream(rows: dict[str, Any]) -> datasets.IterableDataset:
    return datasets.IterableDataset.from_generator(
        lambda: (dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True))
    )


KINDS = {
    "a Dataset": (Dataset.from_dict(COLUMNS), {}),
    "a Dataset with a ClassLabel": (LABELLED, {}),
    "a Dataset of integers": (Dataset.from_dict(INDICES), {"names": TAGS}),
    "a Dataset of tensors": (LABELLED.with_format("torch"), {}),
    "a Dataset of arrays": (LABELLED.with_format("numpy"), {}),
    "a Dataset of one column": (LABELLED.with_format(columns=["tokens"]), {}),
    "a Dataset that was sorted": (LABELLED.select(range(19, -1, -1)).select(range(19, -1, -1)), {}),
    "a Dataset with a transform": (
        Dataset.from_dict({"text": [" ".join(words) for words in WORDS], "tags": OF_ROWS}).with_transform(
            lambda rows: {"tokens": [text.split() for text in rows["text"]], "tags": rows["tags"]}
        ),
        {"columns": {"tokens": "tokens"}},
    ),
    "a Dataset with images": (
        Dataset.from_dict(
            {**COLUMNS, "image": [{"bytes": b"no image", "path": None}] * 20},
            features=Features(
                {"tokens": ListOf(Value("string")), "ner_tags": ListOf(Value("string")), "image": datasets.Image()}
            ),
        ),
        {},
    ),
    "an IterableDataset": (stream(COLUMNS), {}),
    "an IterableDataset with a ClassLabel": (LABELLED.to_iterable_dataset(), {}),
    "a DataFrame": (pd.DataFrame(COLUMNS), {}),
    "a DataFrame of arrays": (
        pd.DataFrame({name: list(map(np.array, rows)) for name, rows in INDICES.items()}),
        {"names": TAGS},
    ),
    "a DataFrame of texts": (
        pd.DataFrame({name: [" ".join(row) for row in rows] for name, rows in COLUMNS.items()}, index=range(5, 25)),
        {},
    ),
    "a DataFrame of words": (
        pd.DataFrame(
            [(None if i else n, *pair) for n, row in enumerate(ROWS) for i, pair in enumerate(zip(*row, strict=True))],
            columns=["sentence", "word", "tag"],
        ),
        {"columns": {"tokens": "word", "tags": "tag", "sentence": "sentence"}},
    ),
    "a DataFrame of words and integers": (
        pd.DataFrame(
            [(n, word, TAGS.index(tag)) for n, row in enumerate(ROWS) for word, tag in zip(*row, strict=True)],
            columns=["sentence", "word", "tag"],
        ).astype({"word": "category"}),
        {"columns": {"tokens": "word", "tags": "tag", "sentence": "sentence"}, "names": TAGS},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("as_splits", [True, False])
def test_every_kind_gives_the_same_sentences(name, as_splits, capfd):
    data, options = KINDS[name]
    given = {"train": data, "dev": data, "test": data} if as_splits else data
    corpus = Corpus.from_dataset(given, "news", types=["PER", "LOC"], **options)
    assert corpus.name == "news"
    assert corpus.labels.types == ("PER", "LOC")
    splits = [corpus.train, corpus.validation, corpus.test]
    said = capfd.readouterr()
    if as_splits:
        assert all([(list(one.words), list(one.tags)) for one in split] == ROWS for split in splits)
        assert (corpus.notes, said.err) == ((), "")
    else:
        assert sorted((list(one.words), list(one.tags)) for split in splits for one in split) == sorted(ROWS)
        assert list(map(len, splits)) == [16, 2, 2]
        assert [f"pemeta: {note}" for note in corpus.notes] == said.err.splitlines()
        assert said.err.startswith("pemeta: news has no validation: 2 of 20 training sentences are held out for it")
    assert said.out == ""


def test_a_dataset_dict_and_the_names_of_splits():
    data = DatasetDict({"train": LABELLED, "held": LABELLED.select(range(3)), "eval": LABELLED.select(range(4))})
    corpus = Corpus.from_dataset(data, "x", splits={"train": "train", "validation": "held", "test": "eval"})
    assert [len(one) for one in (corpus.train, corpus.validation, corpus.test)] == [20, 3, 4]
    assert corpus.labels.tags == tuple(TAGS)  # the ClassLabel's
    message = refusal(data, "x")
    assert (
        "x has no validation, but held, eval; say which is which: splits: {train: train, validation: held}" in message
    )
    assert "or, to hold it out of train: splits: {train: train}" in message
    assert len(Corpus.from_dataset(data, "x", splits={"train": "train"}).train) == 16
    assert "splits: expected one for train too; found {'test': 'eval'}" in refusal(data, splits={"test": "eval"})
    assert "splits: unknown split 'evil'; did you mean 'eval'?" in refusal(data, splits={"train": "evil"})


def test_a_column_of_names_and_a_seed():
    data = Dataset.from_dict({**COLUMNS, "domain": ["law", "news"] * 10})
    first, again, other = (
        Corpus.from_dataset(data, "law", task_column="domain", split_seed=seed, validation=0.3) for seed in (0, 0, 1)
    )
    assert {one.words[2] for split in ("train", "validation", "test") for one in first.split(split)} == {
        str(n) for n in range(0, 20, 2)
    }
    assert first == again
    assert set(first.validation) != set(other.validation)
    assert "unknown domain 'lwa'; did you mean 'law'" in refusal(data, "lwa", task_column="domain")


def test_types_and_schemes():
    data = pd.DataFrame({"tokens": WORDS, "tags": [["PERS", "PERS", "DATE"]] * 20})
    corpus = Corpus.from_dataset(data, "x", types={"PERS": "PER", "DATE": None}, scheme="detect")
    assert corpus.train[0].tags == ("B-PER", "I-PER", "O")
    assert corpus.notes[0].startswith("x: its tags are types: 40 entities of the types PERS, DATE")


def refusal(data: Any, name: Any = "x", kind: type[PemetaError] = DataError, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        Corpus.from_dataset(data, name, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    return message


@pytest.mark.parametrize(("data", "says"), [
    (None, "expected a datasets.Dataset, a pandas.DataFrame, or a mapping of splits to them; found a NoneType"),
    ("conll2003", "found a str: 'conll2003'"),
    ([{"tokens": ["a"], "tags": ["O"]}], "found a list: .*make one: datasets.Dataset.from_list"),
    (COLUMNS, "found {'tokens': .*make a data set of columns: datasets.Dataset.from_dict"),
    ({}, "unknown split 'train'; Known: none"),
    ({0: LABELLED}, "expected the name of a split; found 0"),
    (Path("train.csv"), "found a PosixPath.*load it: datasets.load_dataset(...)"),
    ({"train": [{"tokens": ["a"], "tags": ["O"]}]}, "or of rows: datasets.Dataset.from_list(rows)"),
    ({"train": LABELLED, "test": None}, "x, test: expected a datasets.Dataset, .* found a NoneType"),
    ({"test": LABELLED}, "unknown split 'train'; Known: test"),
    (pd.DataFrame({"tokens": []}), "x holds no row"),
    (Dataset.from_dict({"tokens": [], "tags": []}), "x holds no row"),
    (pd.DataFrame([[["a"], ["O"], ["O"]]], columns=["tokens", "tags", "tags"]), "two columns are named 'tags'"),
    (pd.DataFrame({"text": ["a b"], "tags": ["O O"]}), "expected a column of tokens (tokens or words); it has 'text'"),
    (pd.DataFrame({"tokens": ["a b", None], "tags": ["O O", "O"]}), "x, row 1: 0 words but 1 tag"),
    (pd.DataFrame({"tokens": ["a b", "c d"], "tags": ["O O", float("nan")]}), "x, row 1: 2 words but 0 tags"),
    (pd.DataFrame({"tokens": ["a", "b"], "tags": ["O", "O"]}), "each row seems to hold one word"),
    (Dataset.from_dict({"tokens": [["a"]], "tags": [[3]]}), "x, row 0: tag 1 is the integer 3; give the tags that"),
    (Dataset.from_dict({"tokens": [["a"]], "tags": [[0.0]]}), "x, row 0: tag 1 must be a string such as 'O'"),
    (LABELLED.with_transform(lambda rows: {"tokens": rows["tokens"]}), "expected a column of tags.*it has 'tokens'"),
])  # fmt: skip
def test_what_is_no_data_set_is_refused(data, says):
    message = refusal(data)
    assert all(part in message for part in says.split(".*"))


def test_a_word_that_pandas_took_for_missing_is_named():
    data = pd.DataFrame({"s": [1, 1], "w": ["the", float("nan")], "t": ["O", "O"]})
    columns = {"tokens": "w", "tags": "t", "sentence": "s"}
    message = refusal(data, columns=columns)
    assert "x, row 1: expected a word in 'w'; found None" in message
    assert "read the table with keep_default_na=False" in message


@pytest.mark.parametrize(("options", "says"), [
    ({"columns": {"word": "w"}}, "columns.word: unknown key 'word'"),
    ({"columns": "tokens"}, "columns"),
    ({"validation": 2}, "validation"),
    ({"test": 0.0}, "test"),
    ({"scheme": "IOB"}, "scheme"),
    ({"types": "PER"}, "types"),
    ({"types": ["B-PER"]}, "types"),
    ({"names": "O"}, "names must be a list of strings or None"),
    ({"splits": {"training": "train"}}, "splits"),
    ({"split_seed": "one"}, "split_seed must be a whole number"),
    ({"task_column": 3}, "task_column must be a string or None"),
])  # fmt: skip
def test_wrong_arguments_are_named(options, says):
    assert says in refusal(LABELLED, kind=ConfigError, **options)
    assert "name must be a string; found 3" in refusal(LABELLED, 3, kind=ConfigError)
