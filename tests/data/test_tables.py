"""Tables in files: every format gives the same sentences, and a malformed one is named with its row and content."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Sequence as ListOf
from hypothesis import given, settings
from hypothesis import strategies as st

from pemeta.data import TableData
from pemeta.data.tables.cells import is_list, words_in
from pemeta.data.tables.files import read_table
from pemeta.errors import ConfigError, DataError, PemetaError

TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
# What a guess would spoil: words that look missing, numbers, dates, marks of CSV and JSON, and blanks that are none.
ROWS = [
    (["Ada", "Lovelace", "slept"], ["B-PER", "I-PER", "O"]),
    (["NA", "null", "None", "nan"], ["O", "B-LOC", "I-LOC", "O"]),
    (["007", "1e5", "2020-01-01", "true"], ["B-PER", "O", "O", "O"]),
    (["\u041a\u0435\u0439\u043f\u0442\u0430\u0443\u043d"], ["B-LOC"]),
    (['"', "said,", "''", "it's", "[", "]"], ["O"] * 6),
    (["New\u00a0York", "a\u2028b", "\u0085"], ["B-LOC", "O", "O"]),
    (["<b>", "&amp;", "\\n", "{}", ";", "|"], ["O"] * 6),
]
WORDS = [words for words, _ in ROWS]
OF_ROWS = [tags for _, tags in ROWS]
INDICES = [[TAGS.index(tag) for tag in tags] for tags in OF_ROWS]


def frame(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame(columns or {"tokens": WORDS, "ner_tags": OF_ROWS})


def lines(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def as_jsonl(path: Path) -> None:
    lines(path, [{"tokens": words, "ner_tags": tags, "id": 3} for words, tags in ROWS])


def as_saved(path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "PROGRESS_BAR_DISABLED", True, raising=False)
        datasets.disable_progress_bars()
        Dataset.from_dict({"tokens": WORDS, "ner_tags": OF_ROWS}).save_to_disk(str(path))
        datasets.enable_progress_bars()


def class_label() -> Dataset:
    features = Features({"tokens": ListOf(Value("string")), "ner_tags": ListOf(ClassLabel(names=TAGS))})
    return Dataset.from_dict({"tokens": WORDS, "ner_tags": INDICES}, features=features)


def as_stream(path: Path) -> None:
    table = class_label().data.table
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def texts(path: Path, **options: Any) -> None:
    """Words and tags with blanks between them."""
    rows = {"tokens": [" ".join(words) for words in WORDS], "tags": [" ".join(tags) for tags in OF_ROWS]}
    pd.DataFrame(rows).to_csv(path, index=False, **options)


def one_word(path: Path, empty: bool = False, **options: Any) -> None:
    """A word in each row, as in Kaggle's file."""
    rows = [
        (f"Sentence: {number}" if index == 0 or not empty else "", word, tag)
        for number, (words, tags) in enumerate(ROWS)
        for index, (word, tag) in enumerate(zip(words, tags, strict=True))
    ]
    pd.DataFrame(rows, columns=["Sentence #", "Word", "Tag"]).to_csv(path, index=False, **options)


KAGGLE = {"columns": {"tokens": "Word", "tags": "Tag", "sentence": "Sentence #"}}
FORMATS: dict[str, tuple[str, Callable[[Path], Any], dict[str, Any]]] = {
    "JSON lines": ("train.jsonl", as_jsonl, {}),
    "a list in JSON": (
        "train.json",
        lambda path: path.write_text(json.dumps([{"tokens": w, "ner_tags": t} for w, t in ROWS], indent=1)),
        {},
    ),
    "a mark of UTF-8": (
        "train.jsonl",
        lambda path: (as_jsonl(path), path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())),
        {},
    ),
    "gzip": (
        "train.jsonl.gz",
        lambda path: (as_jsonl(path), path.write_bytes(gzip.compress(path.read_bytes()))),
        {},
    ),
    "bzip2": ("train.jsonl.bz2", lambda path: (as_jsonl(path), path.write_bytes(bz2.compress(path.read_bytes()))), {}),
    "xz": ("train.jsonl.xz", lambda path: (as_jsonl(path), path.write_bytes(lzma.compress(path.read_bytes()))), {}),
    "another ending": ("train.txt", as_jsonl, {"format": "jsonl", "splits": {"train": "train.txt"}}),
    "integers": (
        "train.jsonl",
        lambda path: lines(path, [{"tokens": w, "ner_tags": t} for w, t in zip(WORDS, INDICES, strict=True)]),
        {"names": TAGS},
    ),
    "Parquet": ("train.parquet", lambda path: frame().to_parquet(path), {}),
    "Parquet with a ClassLabel": ("train.parquet", lambda path: class_label().to_parquet(path), {}),
    "Parquet of integers": (
        "train.parquet",
        lambda path: frame(words=WORDS, ner=INDICES).to_parquet(path),
        {"names": TAGS},
    ),
    "Arrow": ("train.arrow", lambda path: frame().to_feather(path), {}),
    "Arrow's other form": ("train.arrow", as_stream, {}),
    "Feather": ("train.feather", lambda path: frame().to_feather(path), {}),
    "save_to_disk": ("train", as_saved, {}),
    "CSV of Python's lists": ("train.csv", lambda path: frame().to_csv(path), {}),
    "CSV of JSON's lists": (
        "train.csv",
        lambda path: frame(tokens=[*map(json.dumps, WORDS)], ner_tags=[*map(json.dumps, OF_ROWS)]).to_csv(path),
        {},
    ),
    "CSV of datasets": (
        "train.csv",
        lambda path: Dataset.from_dict({"tokens": WORDS, "tags": OF_ROWS}).to_csv(path),
        {},
    ),
    "CSV of datasets with integers": ("train.csv", lambda path: class_label().to_csv(path), {"names": TAGS}),
    "CSV of lists of integers": (
        "train.csv",
        lambda path: frame(tokens=WORDS, ner_tags=INDICES).to_csv(path),
        {"names": TAGS},
    ),
    "CSV of texts": ("train.csv", texts, {}),
    "CSV of texts and lists": (
        "train.csv",
        lambda path: frame(Sentence=[" ".join(words) for words in WORDS], Tag=OF_ROWS).to_csv(path),
        {"columns": {"tokens": "Sentence", "tags": "Tag"}},
    ),
    "CSV of texts and integers": (
        "train.csv",
        lambda path: frame(words=[" ".join(w) for w in WORDS], tags=[" ".join(map(str, t)) for t in INDICES]).to_csv(
            path
        ),
        {"names": TAGS},
    ),
    "CSV without a header": (
        "train.csv",
        lambda path: texts(path, header=False),
        {"columns": {"tokens": 1, "tags": 2}},
    ),
    "CSV with semicolons": ("train.csv", lambda path: texts(path, sep=";"), {"separator": ";"}),
    "CSV of Windows": ("train.csv", lambda path: texts(path, lineterminator="\r\n"), {}),
    "TSV": ("train.tsv", lambda path: texts(path, sep="\t"), {}),
    "TSV without quotation marks": (
        "train.tsv",
        lambda path: path.write_text("tokens\ttags\n" + "".join(f"{' '.join(w)}\t{' '.join(t)}\n" for w, t in ROWS)),
        {"quotes": False},
    ),
    "a word in each row": ("train.csv", one_word, KAGGLE),
    "a word in each row, as in Kaggle's": ("train.csv", lambda path: one_word(path, empty=True), KAGGLE),
    "a word in each row of a TSV": ("train.tsv", lambda path: one_word(path, sep="\t"), KAGGLE),
    "a word in each row of Parquet": (
        "train.parquet",
        lambda path: pd.DataFrame(
            [(i, w, t) for i, pair in enumerate(ROWS) for w, t in zip(*pair, strict=True)], columns=["s", "w", "t"]
        ).to_parquet(path),
        {"columns": {"tokens": "w", "tags": "t", "sentence": "s"}},
    ),
    "a word in each row, sentences counted anew": (
        "train.csv",
        lambda path: pd.DataFrame(
            [(i // 2, i % 2, w, t) for i, pair in enumerate(ROWS) for w, t in zip(*pair, strict=True)],
            columns=["document", "sentence", "tokens", "tags"],
        ).to_csv(path, index=False),
        {"columns": {"sentence": ["document", "sentence"]}},
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_sentences(tmp_path, name, capfd):
    file, write, options = FORMATS[name]
    (tmp_path / "news").mkdir()
    write(tmp_path / "news" / file)
    capfd.readouterr()
    splits = {
        split: "{task}/" + options.get("splits", {}).get("train", file) for split in ("train", "validation", "test")
    }
    given = {key: value for key, value in options.items() if key != "splits"}
    corpus = TableData(path=str(tmp_path), splits=splits, types=["PER", "LOC"], **given).corpus("news")
    for split in (corpus.train, corpus.validation, corpus.test):
        assert [(list(one.words), list(one.tags)) for one in split] == ROWS
    assert corpus.labels.tags == tuple(TAGS)
    assert corpus.notes == ()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["a ClassLabel", "names"])
def test_the_types_are_those_of_the_integers_names(tmp_path, name):
    names = ["O", "B-b", "I-b", "B-a", "I-a"]
    features = Features({"tokens": ListOf(Value("string")), "ner_tags": ListOf(ClassLabel(names=names))})
    data = Dataset.from_dict({"tokens": WORDS, "ner_tags": INDICES}, features=features if name != "names" else None)
    data.to_parquet(tmp_path / "train.parquet")
    own = {"names": names} if name == "names" else {}
    source = TableData(path=str(tmp_path / "train.parquet"), **own)
    assert source.corpus("x").labels.types == ("b", "a")


def test_names_other_than_those_of_the_class_label_are_refused(tmp_path):
    class_label().to_parquet(tmp_path / "train.parquet")
    source = TableData(path=str(tmp_path / "train.parquet"), names=["O", "B-PER", "I-PER"])
    says = "integers in 'ner_tags' have the names O, B-PER, I-PER, B-LOC, I-LOC; found others in names: O, B-PER"
    assert says in refusal(source)


@pytest.mark.parametrize(("scheme", "tags"), [
    ("IOB1", ["I-PER", "I-PER", "O"]),
    ("IOBES", ["B-PER", "E-PER", "O"]),
    ("BILOU", ["B-PER", "L-PER", "O"]),
    ("types", ["PER", "PER", "O"]),
    ("detect", ["PER", "PER", "O"]),
])  # fmt: skip
def test_schemes_and_types_are_converted(tmp_path, scheme, tags):
    path = tmp_path / "all.jsonl"
    rows = [{"tokens": [f"{n}", "b", "c"], "tags": [tag.replace("PER", "PERS") for tag in tags]} for n in range(20)]
    lines(path, rows)
    types = {"PERS": "PER", "DATE": None}
    corpus = TableData(path=str(path), scheme=scheme, types=types).corpus("x")
    assert {one.tags for one in corpus.train} == {("B-PER", "I-PER", "O")}
    assert corpus.labels.types == ("PER",)
    assert any("its tags are types" in note for note in corpus.notes) == (scheme == "detect")


def test_types_may_be_given_for_each_task(tmp_path):
    lines(tmp_path / "all.jsonl", [{"tokens": [f"{n}"], "tags": ["B-P"], "lang": "ab"[n % 2]} for n in range(40)])
    types = {"a": {"P": "PER"}, "b": {"P": None}}
    source = TableData(path=str(tmp_path / "all.jsonl"), task_column="lang", types=types)
    assert source.corpus("a").train[0].tags == ("B-PER",)
    assert source.corpus("b").train[0].tags == ("O",)
    assert source.entity_types() == ("PER",)


words = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1).filter(str.strip)
CELLS = {
    "Python's list": str,
    "JSON's list": json.dumps,
    "JSON's list with its own letters": lambda row: json.dumps(row, ensure_ascii=False),
    "an array": lambda row: str(np.array(row, dtype=object)),
    "a text": " ".join,
}


@pytest.mark.parametrize("kind", CELLS)
@settings(max_examples=40, deadline=None)
@given(st.lists(words, min_size=2, max_size=6))
def test_any_words_come_back_from_a_cell(kind, row):
    if kind != "a text" or not is_list(" ".join(row)):  # a text that begins like a list is refused, or is one
        assert words_in(CELLS[kind](row), "train.csv, line 2") == row


@pytest.mark.parametrize(("cell", "words"), [
    ("('a', 'b')", ["a", "b"]),  # a tuple
    ("[nan, 'a']", [None, "a"]),  # is refused later, for a word is missing
    ("[None 'a']", [None, "a"]),
    ("[1999, 'a']", [1999, "a"]),
    ("[1, 2]", [1, 2]),
    ("[['a', 'b'], ['c']]", [["a", "b"], ["c"]]),
    ("[b'a', b'b']", [b"a", b"b"]),
    ("[ 1 , 2 ]", ["[", "1", ",", "2", "]"]),  # texts, and no lists
    ("[1]", ["[1]"]),
    ("[...]", ["[...]"]),
    ("[1] Smith [2]", ["[1]", "Smith", "[2]"]),
    ("(a, b)", ["(a,", "b)"]),
    ("[", ["["]),
])  # fmt: skip
def test_a_list_in_a_cell_is_told_from_a_text(cell, words):
    assert words_in(cell, "train.csv, line 2") == words


# Which rows are a task's, which files a split's


@pytest.mark.parametrize("kind", ["strings", "integers", "a ClassLabel", "a word in each row"])
def test_a_columns_values_are_the_tasks(tmp_path, kind):
    domains = [0, 1, 1, 0, 1, 0]
    values: list[Any] = [["news", "law"][one] for one in domains]
    if kind == "integers":
        values = [2000 + one for one in domains]
    columns = {"tokens": [[f"w{i}"] for i in range(6)], "tags": [["O"]] * 6, "domain": values}
    path, options = tmp_path / "train.parquet", {}
    if kind == "a ClassLabel":
        rows = Dataset.from_dict(columns).cast_column("domain", ClassLabel(names=["law", "news"]))
        rows.to_parquet(path)
    elif kind == "a word in each row":
        path, options = tmp_path / "train.csv", {"columns": {"sentence": "s"}}
        frame(s=range(6), **{**columns, "tokens": [f"w{i}" for i in range(6)], "tags": ["O"] * 6}).to_csv(path)
    else:
        frame(**columns).to_parquet(path)
    every = dict.fromkeys(("train", "validation", "test"), path.name)
    source = TableData(path=str(tmp_path), splits=every, task_column="domain", **options)
    first, second = ("2000", "2001") if kind == "integers" else ("news", "law")
    assert [one.words for one in source.corpus(first).train] == [("w0",), ("w3",), ("w5",)]
    assert [one.words for one in source.corpus(second).test] == [("w1",), ("w2",), ("w4",)]
    with pytest.raises(DataError, match=rf"unknown domain '{first}s'; did you mean '{first}'"):
        source.corpus(f"{first}s")


@pytest.mark.parametrize(("value", "says"), [
    (None, "line 2: the row is of no task, for 'domain' is empty"),
    (" ", "line 2: the row is of no task, for 'domain' is empty"),
    ("law ", "line 2: 'domain' is 'law ', but the task is 'law'; remove the blanks"),
])  # fmt: skip
def test_a_row_of_no_task_is_refused(tmp_path, value, says):
    rows = [{"tokens": [str(n)], "tags": ["O"], "domain": one} for n, one in enumerate(["law", value])]
    lines(tmp_path / "a.jsonl", rows)
    assert says in refusal(TableData(path=str(tmp_path / "a.jsonl"), task_column="domain"), "law")


def test_files_named_like_splits_are_found(tmp_path):
    for task in ("aa", "bb"):
        (tmp_path / task).mkdir()
        for number, file in enumerate(
            ("train-00000-of-00002.csv", "train-00001-of-00002.csv", "dev.jsonl", "test.csv")
        ):
            path = tmp_path / task / file
            columns = {"tokens": [[task, str(number)]], "tags": [["O", "O"]]}
            lines(path, [{key: value[0] for key, value in columns.items()}]) if "json" in file else frame(
                **columns
            ).to_csv(path)
    (tmp_path / "bb" / "dev.jsonl").rename(tmp_path / "bb" / "dev.JSONL")
    corpus = TableData(path=str(tmp_path)).corpus("bb")
    assert [one.words for one in corpus.train] == [("bb", "0"), ("bb", "1")]
    assert [one.words for one in corpus.validation] == [("bb", "2")]
    with pytest.raises(DataError, match=f"unknown task 'b'; did you mean 'bb'.* expected a folder {tmp_path}/b;"):
        TableData(path=str(tmp_path)).corpus("b")


def test_what_is_neither_a_file_nor_a_folder_is_not_there(tmp_path, monkeypatch):
    for path in ("/dev/null", str(tmp_path / "nothing"), "a\0b", str(tmp_path / ("x" * 300))):
        assert refusal(TableData(path=path)).startswith("there is no file or folder ")

    def forbidden(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", forbidden)
    says = f"cannot read {tmp_path}: Permission denied; check the path"
    assert refusal(TableData(path=str(tmp_path))) == says


def test_a_file_of_several_that_is_not_there_is_noticed(tmp_path):
    for number in (0, 2):
        lines(tmp_path / f"train-0000{number}-of-00003.jsonl", [{"tokens": [str(number)], "tags": ["O"]}])
    says = (
        "train-00000-of-00003.jsonl is one of 3 files, of which number 00001 is not there; fetch all of them, or name"
    )
    assert says in refusal(TableData(path=str(tmp_path)))
    every = dict.fromkeys(("train", "validation", "test"), "train-*.jsonl")  # as the message says
    assert len(TableData(path=str(tmp_path), splits=every).corpus("x").train) == 2


def test_several_files_are_one_split(tmp_path):
    for number in range(3):
        lines(tmp_path / f"part{number}.jsonl", [{"tokens": [str(number)], "tags": ["O"]}])
    (tmp_path / "test").mkdir()
    lines(tmp_path / "test" / "part2.jsonl", [{"tokens": ["2"], "tags": ["O"]}])
    every = {"train": "part*.jsonl", "validation": "part0.jsonl", "test": "{split}/{task}.jsonl"}
    corpus = TableData(path=str(tmp_path), splits=every).corpus("part2")
    assert [one.words for one in corpus.train] == [("0",), ("1",), ("2",)]
    assert corpus.test[0].words == ("2",)


@pytest.mark.parametrize(("files", "says"), [
    (["train.csv", "train.jsonl"], "has train.csv and train.jsonl; say which with format or splits"),
    (["train.csv", "dev.csv", "valid.csv"], "has dev and valid; say which is which: splits: {train: train, validation"),
    (["train.csv", "test.csv", "other.csv"], "has no validation, but other; say which is which"),
    (["test.csv"], "unknown split 'train'; Known: test; say which is which: splits: {train: ...}"),
    ([], "unknown split 'train'; Known: none"),
])  # fmt: skip
def test_files_that_may_be_several_splits_are_refused(tmp_path, files, says):
    (tmp_path / "x").mkdir()
    for file in files:
        (tmp_path / "x" / file).touch()
    assert says in refusal(TableData(path=str(tmp_path)))


def test_documents_are_numbered(tmp_path):
    documents = ["d7", "d7", "d1", None, "d7"]
    lines(
        tmp_path / "a.jsonl",
        [{"tokens": [str(n)], "tags": ["O"], "document": -1, "doc": d} for n, d in enumerate(documents)],
    )
    every = dict.fromkeys(("train", "validation", "test"), "a.jsonl")
    found = TableData(path=str(tmp_path), splits=every, columns={"document": "doc"}).corpus("x").train
    assert [one.document for one in found] == [0, 0, 1, None, 0]
    assert TableData(path=str(tmp_path), splits=every).corpus("x").train[0].document is None
    lines(tmp_path / "b.jsonl", [{"tokens": ["x"], "tags": ["O"], "doc": d} for d in ("d9", "d1")])
    several = dict.fromkeys(("train", "validation", "test"), "*.jsonl")
    found = TableData(path=str(tmp_path), splits=several, columns={"document": "doc"}).corpus("x").train
    assert [one.document for one in found] == [0, 0, 1, None, 0, 2, 1]


def test_rows_without_words_are_skipped(tmp_path):
    rows = [{"tokens": [], "tags": []}, {"tokens": None, "tags": None}, {"tokens": ["a"], "tags": ["O"]}]
    lines(tmp_path / "a.jsonl", rows)
    every = dict.fromkeys(("train", "validation", "test"), "a.jsonl")
    assert len(TableData(path=str(tmp_path), splits=every).corpus("x").train) == 1


# What is refused


def refusal(source: TableData, task: str = "x", kind: type[PemetaError] = DataError) -> str:
    with pytest.raises(kind) as caught:
        source.corpus(task)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 800, message
    return message


GOOD = '{"tokens": ["a"], "tags": ["O"]}\n'
JSON = {
    "a word without a tag": ('{"tokens": ["a", "b"], "tags": ["O"]}', "line 2: 2 words but 1 tag"),
    "no tags": ('{"tokens": ["a"]}', "line 2: unknown column 'tags'; Known: tokens"),
    "null for tags": ('{"tokens": ["a"], "tags": null}', "line 2: 1 word but 0 tags"),
    "an unknown tag": ('{"tokens": ["a"], "tags": ["B-X"]}', "line 2: unknown type 'X' of the tag 'B-X'"),
    "another scheme": ('{"tokens": ["a"], "tags": ["S-PER"]}', "its tags are IOBES"),
    "types for tags": ('{"tokens": ["a"], "tags": ["PER"]}', "set scheme: types"),
    "integers": ('{"tokens": ["a"], "tags": [3]}', "line 2: tag 1 is the integer 3; give the tags that integers mean"),
    "an empty word": ('{"tokens": [""], "tags": ["O"]}', "line 2: word 1 of 1 is empty; remove it and its tag"),
    "null for a word": ('{"tokens": [null], "tags": ["O"]}', "line 2: word 1 of 1 is missing (None)"),
    "null for a tag": ('{"tokens": ["a"], "tags": [null]}', "line 2: tag 1 is missing (None)"),
    "a number for a word": ('{"tokens": [3], "tags": ["O"]}', "line 2: word 1 of 1 must be a string; found 3"),
    "spans": ('{"tokens": "ab", "tags": [[0, 2, "PER"]]}', "line 2: expected one tag for each word; found [0, 2"),
    "lists of lists": ('{"tokens": [["a"], ["b"]], "tags": ["O", "O"]}', "line 2: word 1 of 2 must be a string"),
    "a list that is cut": (
        '{"tokens": "[\'a\', \'b", "tags": ["O"]}',
        "line 2: the words look like a list, but cannot"),
    "an array that is cut": ('{"tokens": "[\'a\' ... \'b\']", "tags": ["O", "O"]}', "the words look like a list"),
    "a list without a comma": ('{"tokens": "[\'a\', \'b\' \'c\']", "tags": ["O", "O"]}', "write it as JSON does"),
    "integers that are cut": ('{"tokens": "a b", "tags": "[3 ... 0]"}', "line 2: the tags look like a list"),
    "no JSON": ("{'tokens': ['a']}", "line 2: not JSON at character 2"),
    "a line that is cut": ('{"tokens": ["a', "line 2: not JSON at character "),
    "a number": ("3", 'line 2: expected a JSON object, {"COLUMN": VALUE, ...}; found 3'),
    "a key twice": (
        '{"tokens": ["a"], "tokens": ["b"], "tags": ["O"]}',
        "line 2: not JSON: the key 'tokens' is there twice"),
    "brackets without end": ("[" * 100_000, "line 2: not JSON"),
    "blanks around a tag": ('{"tokens": ["a"], "tags": [" O"]}', "line 2: tag 1 has blanks around it; remove them"),
    "half a surrogate pair": ('{"tokens": ["\\ud83d"], "tags": ["O"]}', "half of a surrogate pair"),
}  # fmt: skip


@pytest.mark.parametrize("name", JSON)
def test_a_wrong_line_of_json_is_named(tmp_path, name):
    line, says = JSON[name]
    path = tmp_path / "a.jsonl"
    path.write_text(GOOD + line + "\n")
    message = refusal(TableData(path=str(path)))
    assert message.startswith(str(path))
    assert says in message


CSV = {
    "no file": (None, "cannot read {path}: No such file or directory; check the path"),
    "empty": ("", "{path} holds no row; check the path"),
    "a header alone": ("tokens,tags\n", "{path} holds no row"),
    "no such column": (
        "text,label\na,O\n",
        "expected a column of tags (ner_tags or tags or ner or labels); it has 'text', 'label'"),
    "two such columns": ("tokens,words,tags\na,a,O\n", "(tokens or words); found tokens and words; say which they are"),
    "tabs": ("tokens\ttags\na b\tO O\n", "if '\\t' stands between its values: separator: tab"),
    "no header": ("a b,B-PER O\nc d,O O\n", "if the first line has no names, give numbers: columns: {{tokens: 1, "),
    "a token file": ("a,O\n\nb,O\n", ", or, if each line is a word, read them with data: {{name: conll}}"),
    "commas between tags": ('tokens,tags\n"a, b","O, O"\n', "line 2: expected blanks between tags; found commas"),
    "a list of no words": ('tokens,tags\n"[nan, \'a\']","[\'O\', \'O\']"\n', "line 2: word 1 of 2 is missing (None)"),
    "semicolons": ("tokens;tags\na b;O O\n", "if ';' stands between its values: separator: ';'"),
    "a column twice": ("tokens,tags,tags\na,O,O\n", "line 1: two columns are named 'tags'; rename one"),
    "a value too few": ("tokens,tags\na b,O O\nc\n", "line 3: expected 2 values, as in the header; found 1: 'c\\n'"),
    "a value too many": ("tokens,tags\na,b,O O O\n", "line 2: expected 2 values, as in the header; found 3"),
    "a quotation mark that is a word": (
        'tokens,tags\n" a,O O\nb c,O O\n" d,O O\n', "line 2: ',' expected after '\"'"),
    "one that is closed lines later": (
        'tokens,tags\n",O\nb,O\n",O\n', "line 2: a quotation mark opens a value that goes on to line 4; found '\",O"),
    "one that is never closed": (
        'tokens,tags\na b,O O\n"c d,O O\n',
        "line 3: unexpected end of data; found '\"c d,O O"),
    "lines of old Macs": (
        "tokens,tags\ra b,O O\r",
        "if lines end with a carriage return alone: tr '\\r' '\\n' < {path} > NEW.csv"),
    "Latin-1": (
        "tokens,tags\nM\u00fcller,O\n".encode("latin-1"),
        "line 2: not UTF-8 at byte 1 of the line; found b'M\\xfcller"),
    "UTF-16": ("tokens,tags\na b,O O\n".encode("utf-16"), "it is UTF-16: iconv -f UTF-16 -t UTF-8 {path} > NEW.csv"),
    "a NUL": ("tokens,tags\na\0b,O\n", "line 2: found a NUL in 'a\\x00b,O\\n'"),
    "a Parquet file": (b"PAR1\x15\x04\xff" + bytes(20), "it is a Parquet file: set name: table, format: parquet"),
    "a spreadsheet": (
        b"PK\x03\x04\x14\x00\xff" + bytes(10),
        "it is an archive or a spreadsheet: unpack it, or save it as CSV"),
    "a pointer of Git LFS": ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "words in rows": ("sent,tokens,tags\n1,a,O\n1,b,B-PER\n", "each row seems to hold one word ('tokens') and its tag"),
    "a tag too few": ("tokens,tags\na b c,O O\n", "line 2: 3 words but 2 tags; give each word one tag"),
    "an empty value": ("tokens,tags\na b,\n", "line 2: 2 words but 0 tags"),
}  # fmt: skip


@pytest.mark.parametrize("name", CSV)
def test_a_wrong_line_of_csv_is_named(tmp_path, name):
    content, says = CSV[name]
    path = tmp_path / "a.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    splits = {"train": "a.csv"}
    message = refusal(TableData(path=str(tmp_path), splits=splits))
    assert says.format(path=path) in message


def test_a_tab_may_be_written_in_two_ways(tmp_path):
    (tmp_path / "a.csv").write_text("tokens\ttags\n" + "".join(f"w{n}\tO\n" for n in range(2)) + "a b\tO O\n")
    for separator in ("tab", "\t", r"\t"):
        assert len(TableData(path=str(tmp_path / "a.csv"), separator=separator).corpus("x").train) == 1


def test_quotation_marks_are_what_is_said_of_them(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text('tokens\ttags\n" a\tO O\nb "\tO O\n"c" d\tO O\n')
    every = dict.fromkeys(("train", "validation", "test"), "a.tsv")
    found = TableData(path=str(tmp_path), splits=every, quotes=False).corpus("x").train
    assert [one.words for one in found] == [('"', "a"), ("b", '"'), ('"c"', "d")]
    path.write_text('tokens\ttags\ttext\na b\tO O\t"one\ntwo"\n')
    assert "set quotes: false if it is a character like others, or quotes: true" in refusal(
        TableData(path=str(tmp_path), splits=every)
    )
    assert TableData(path=str(tmp_path), splits=every, quotes=True).corpus("x").train[0].words == ("a", "b")


WORD_ROWS = {
    "a sentence that begins again": (
        "1,a,O\n2,b,O\n1,c,O\n",
        "line 4: the sentence '1' begins again; it was at {path}, line 2"),
    "no sentence at first": (",a,O\n1,b,O\n", "line 2: no sentence has begun, for 's' is empty"),
    "an empty word": ("1,a,O\n1,,O\n", "line 3: expected a word in 'w'; found ''"),
    "an empty tag": ("1,a,O\n1,b,\n", "line 3: tag 2 is empty; give the word a tag, or O"),
    "a wrong tag": ("1,a,O\n1,b,I-PER\n", "line 3: tag 'I-PER' follows 'O', but in IOB2"),
    "an unknown type": ("1,a,O\n,b,B-X\n", "line 3: unknown type 'X' of the tag 'B-X'"),
}  # fmt: skip


@pytest.mark.parametrize("name", WORD_ROWS)
def test_a_wrong_word_of_a_row_is_named(tmp_path, name):
    content, says = WORD_ROWS[name]
    path = tmp_path / "a.csv"
    path.write_text("s,w,t\n" + content)
    columns = {"sentence": "s", "tokens": "w", "tags": "t"}
    assert says.format(path=path) in refusal(TableData(path=str(path), columns=columns))


def test_a_sentence_is_of_one_task_and_one_document(tmp_path):
    rows = [("a", "d", "1", "x"), ("b", "d", "1", "x"), ("c", "e", "1", "x"), ("d", "e", "1", "y"), ("e", "", "", "y")]
    path = tmp_path / "a.csv"
    path.write_text("tokens,doc,s,task,tags\n" + "".join(",".join([*row, "O"]) + "\n" for row in rows))
    columns = {"sentence": "s", "document": "doc"}
    every = dict.fromkeys(("train", "validation", "test"), path.name)
    source = TableData(path=str(tmp_path), splits=every, columns=columns, task_column="task")
    assert [one.words for one in source.corpus("x").train] == [("a", "b"), ("c",)]
    assert [one.words for one in source.corpus("y").train] == [("d", "e")]


def test_many_rows_of_a_word_are_noticed_early(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("tokens,tags\n" + "a,O\n" * 200 + "never read\n")
    assert "each row seems to hold one word" in refusal(TableData(path=str(path)))


def test_sentences_of_one_word_in_lists_are_sentences(tmp_path):
    lines(tmp_path / "a.jsonl", [{"tokens": [str(n)], "tags": ["O"]} for n in range(200)])
    assert len(TableData(path=str(tmp_path / "a.jsonl")).corpus("x").train) == 160


@pytest.mark.parametrize("format", ["parquet", "arrow"])
@pytest.mark.parametrize(
    "content", [b"", b"PAR1 is not enough", b"ARROW1\0\0 neither", bytes(range(256)), b"\xff\xff\xff\xff\0"]
)
def test_a_broken_file_is_one_sentence(tmp_path, format, content):
    path = tmp_path / f"a.{format}"
    path.write_bytes(content)
    assert refusal(TableData(path=str(path))).startswith(f"cannot read {path}: ")


def test_a_file_that_was_cut_is_one_sentence(tmp_path):
    whole = tmp_path / "whole"
    for format, write in (("parquet", class_label().to_parquet), ("arrow", as_stream)):
        write(whole)
        for part in (0.3, 0.6, 0.95):
            path = tmp_path / f"a.{format}"
            path.write_bytes(whole.read_bytes()[: int(part * whole.stat().st_size)])
            assert str(path) in refusal(TableData(path=str(path)))
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(GOOD.encode() * 1000)[:40])
    message = refusal(TableData(path=str(packed)))
    assert message.startswith(f"cannot read {packed}: ")
    assert message.endswith("; check that it is whole, and that format is right")


def test_a_row_of_parquet_is_named_by_its_index(tmp_path):
    tags = [["O"], ["O"], ["B-PER", "O"]]
    frame(tokens=[["a"]] * 3, tags=tags).to_parquet(tmp_path / "a.parquet")
    assert ", row 2: 1 word but 2 tags" in refusal(TableData(path=str(tmp_path / "a.parquet")))
    features = Features({"tokens": ListOf(Value("string")), "ner_tags": ListOf(ClassLabel(names=TAGS))})
    Dataset.from_dict({"tokens": [["a"]], "ner_tags": [[-1]]}, features=features).to_parquet(tmp_path / "b.parquet")
    assert ", row 0: tag 1 must be an index from 0 to 4; found -1" in refusal(
        TableData(path=str(tmp_path / "b.parquet"))
    )


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_columns_of_one_name_are_refused(tmp_path, kind):
    columns = [pa.array([["a"]]), pa.array([["O"]]), pa.array([["B-PER"]])]
    table = pa.Table.from_arrays(columns, names=["tokens", "tags", "tags"])
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    assert refusal(TableData(path=str(path))) == f"{path}: two columns are named 'tags'; rename one of them"


def test_a_date_that_python_has_not_is_one_sentence(tmp_path):
    table = pa.table({"tokens": [["a"]], "tags": [["O"]], "day": pa.array([10**7], pa.date32())})
    pq.write_table(table, tmp_path / "a.parquet")
    assert refusal(TableData(path=str(tmp_path / "a.parquet"))).startswith(f"cannot read {tmp_path}/a.parquet: ")


def test_empty_tables_and_folders_of_splits(tmp_path):
    frame(tokens=[], tags=[]).to_parquet(tmp_path / "a.parquet")
    assert "holds no row" in refusal(TableData(path=str(tmp_path / "a.parquet")))
    lines(tmp_path / "b.jsonl", [{"tokens": [], "tags": []}])
    assert "found no sentence" in refusal(TableData(path=str(tmp_path / "b.jsonl")))
    datasets.disable_progress_bars()
    datasets.DatasetDict({"train": class_label()}).save_to_disk(str(tmp_path / "dict" / "x"))
    datasets.enable_progress_bars()
    types = ["PER", "LOC"]
    for path in ("dict", "dict/x", "dict/x/train"):  # a folder for each task, all splits, or one
        assert len(TableData(path=str(tmp_path / path), types=types).corpus("x").train) == 5
    assert "holds the splits train" in refusal(
        TableData(path=str(tmp_path), splits={"train": "dict/x"}, format="arrow")
    )


@pytest.mark.parametrize("inner", ["x", ""])
def test_files_in_the_folder_itself_are_those_of_every_task(tmp_path, inner):
    (tmp_path / inner).mkdir(exist_ok=True)
    lines(tmp_path / inner / "train.jsonl", [{"tokens": [str(n)], "tags": ["O"]} for n in range(10)])
    source = TableData(path=str(tmp_path))
    assert len(source.corpus("x").train) == 8
    if inner:
        source.check_tasks(["x", "y"])
    else:
        with pytest.raises(ConfigError, match="would give the tasks x, y the same sentences"):
            source.check_tasks(["x", "y"])


@pytest.mark.parametrize(("options", "says"), [
    ({"splits": {"validation": "a"}}, "splits: expected one for train too"),
    ({"splits": {"train": "{tsk}.csv"}}, "only {task} and {split} may stand in braces; found {tsk}"),
    ({"splits": {"dev": "a", "train": "b"}}, "splits.dev"),
    ({"separator": ";;"}, "separator: expected one character"),
    ({"names": ["O", "O"]}, "names: two integers have the same name"),
    ({"names": ["O"]}, "names: a label set needs one or more"),
    ({"types": {"PER": 3}}, "types: expected the name of an entity type; found 3"),
    ({"validation": 0}, "validation: "),
    ({"validation": 1}, "validation: "),
    ({"test": True}, "test: "),
    ({"format": "xlsx"}, "format: "),
    ({"columns": {"token": "a"}}, "columns.token: unknown key 'token'; did you mean 'tokens'"),
    ({"scheme": "BIO"}, "scheme: "),
    ({"quotes": "maybe"}, "quotes: "),
])  # fmt: skip
def test_wrong_settings_are_named(options, says):
    with pytest.raises(ConfigError) as caught:
        TableData(path="x", **options)
    assert says in str(caught.value)


def test_tasks_that_would_be_the_same_sentences_are_refused():
    source = TableData(path="x", splits={"train": "train.csv"})
    source.check_tasks(["a"])
    with pytest.raises(ConfigError, match=r"would give the tasks a, b the same sentences; .* task_column"):
        source.check_tasks(["a", "b"])
    for other in ({"task_column": "d"}, {"splits": {"train": "{language}.csv"}}):
        TableData(path="x", **{"splits": {"train": "train.csv"}, **other}).check_tasks(["a", "b"])
    TableData(path="folder").check_tasks(["a", "b"])


def test_rows_are_read_as_they_are_asked_for(tmp_path):
    """The last line is wrong, and not reached."""
    path = tmp_path / "a.jsonl"
    path.write_text(GOOD * 3 + "{")
    rows = read_table(path).rows
    assert [next(rows).where for _ in range(3)] == [f"{path}, line {n}" for n in (1, 2, 3)]
    with pytest.raises(DataError, match="line 4"):
        next(rows)


def test_a_long_field_is_refused_in_a_sentence(tmp_path):
    path = tmp_path / "a.csv"
    with path.open("w") as file:
        csv.writer(file).writerows([["tokens", "tags"], ["x" * 200_000, "O"]])
    assert "line 2: field larger than field limit" in refusal(TableData(path=str(path)))
