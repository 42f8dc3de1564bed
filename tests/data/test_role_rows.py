"""Rows by role for kinds of task other than token classification: from each format, by column, held out, refused."""

import csv
import json

import datasets
import pandas as pd
import pytest

from pemeta.data import HubData, TableData
from pemeta.data.labelled import LabelledText, check_classes, classes_in, digest_of, labelled_texts, plain_texts
from pemeta.data.roles import CLASSIFICATION, COMPLETION, TEXT
from pemeta.data.rows import Row
from pemeta.data.sentences import SPLITS
from pemeta.data.sources import ConllData, SyntheticData
from pemeta.data.turns import completions
from pemeta.errors import ConfigError, DataError

ROWS = [
    {"text": f"text {i}, with a comma", "label": ("bad", "good")[i % 2], "domain": "ab"[i // 10]} for i in range(20)
]
SPLIT = {"train": ROWS[:12], "validation": ROWS[12:16], "test": ROWS[16:]}


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_csv(path, rows, delimiter=","):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


WRITERS = {
    "jsonl": write_jsonl,
    "csv": write_csv,
    "tsv": lambda path, rows: write_csv(path, rows, "\t"),
    "parquet": lambda path, rows: pd.DataFrame(rows).to_parquet(path),
    "arrow": lambda path, rows: pd.DataFrame(rows).to_feather(path),
}


def texts(source, task="news", roles=CLASSIFICATION, problem="single_label"):
    found = source.rows(task, roles)
    return {split: list(labelled_texts(found[split].read(), problem)) for split in SPLITS}


def expected(rows):
    return [LabelledText(row["text"], row["label"]) for row in rows]


@pytest.mark.parametrize("kind", WRITERS)
def test_each_format_gives_the_same_rows(tmp_path, kind):
    for split, rows in SPLIT.items():
        WRITERS[kind](tmp_path / f"{split}.{kind}", rows)
    found = texts(TableData(path=str(tmp_path)))
    assert found == {split: expected(rows) for split, rows in SPLIT.items()}
    first = found["train"][0].where
    assert first.startswith(str(tmp_path / f"train.{kind}"))


def test_a_folder_of_datasets_and_its_names_for_numbers(tmp_path):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    given = {
        split: datasets.Dataset.from_list(
            [{"text": r["text"], "label": ("bad", "good").index(r["label"])} for r in rows], features=features
        )
        for split, rows in SPLIT.items()
    }
    datasets.DatasetDict(given).save_to_disk(tmp_path / "saved")
    assert texts(TableData(path=str(tmp_path / "saved"))) == {s: expected(rows) for s, rows in SPLIT.items()}
    (tmp_path / "hub").mkdir()
    for split, one in given.items():
        one.to_parquet(tmp_path / "hub" / f"{split}.parquet")
    hub = HubData(repository=str(tmp_path / "hub"))
    assert texts(hub) == {s: expected(rows) for s, rows in SPLIT.items()}
    assert hub.row_sizes("news", CLASSIFICATION) == {"train": 12, "validation": 4, "test": 4}


def test_tasks_by_folder_by_pattern_and_by_column(tmp_path):
    for task in ("a", "b"):
        (tmp_path / task).mkdir()
        write_jsonl(tmp_path / task / "train.jsonl", [row for row in ROWS if row["domain"] == task])
        write_jsonl(tmp_path / f"{task}.jsonl", [row for row in ROWS if row["domain"] == task])
    write_jsonl(tmp_path / "all.jsonl", ROWS)
    sources = [
        TableData(path=str(tmp_path)),
        TableData(path=str(tmp_path), splits={"train": "{task}.jsonl"}),
        TableData(path=str(tmp_path / "all.jsonl"), task_column="domain"),
    ]
    found = [{split: set(rows) for split, rows in texts(source, "a").items()} for source in sources]
    assert found[0] == found[1] == found[2]  # which are held out depends on the texts alone
    assert set().union(*found[0].values()) == set(expected(ROWS[:10]))
    with pytest.raises(DataError, match="unknown domain 'c'"):
        texts(sources[2], "c")


def test_held_out_examples_share_no_text_and_are_told(tmp_path):
    rows = [{"prompt": f"p{i % 15}", "completion": f"c{i}"} for i in range(60)]
    write_jsonl(tmp_path / "train.jsonl", rows)
    found = TableData(path=str(tmp_path), validation=0.2, test=0.2).rows("news", COMPLETION)
    prompts = {split: [one.prompt for one in completions(found[split].read())] for split in SPLITS}
    assert sum(map(len, prompts.values())) == 60
    assert not any(set(prompts[a]) & set(prompts[b]) for a, b in (("train", "test"), ("train", "validation")))
    notes = found["test"].notes
    assert [note.partition(" has no ")[2].partition(":")[0] for note in notes] == ["validation", "test"]
    assert f"{len(prompts['test'])} of 60 training examples are held out for it" in notes[1]
    assert {split: stream.count() for split, stream in found.items()} == {s: len(prompts[s]) for s in SPLITS}
    again = TableData(path=str(tmp_path), validation=0.2, test=0.2).rows("news", COMPLETION)
    assert [row.values for row in again["test"].read()] == [row.values for row in found["test"].read()]
    same = TableData(path=str(tmp_path), validation="train", test="train").rows("news", COMPLETION)
    assert same["test"].count() == 60
    assert same["test"].fingerprint() == same["train"].fingerprint() != found["test"].fingerprint()


def test_conversations_that_differ_in_the_answer_alone_are_not_in_two_splits(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": f"q{i % 9}"}, {"role": "assistant", "content": f"a{i}"}]}
        for i in range(36)
    ]
    write_jsonl(tmp_path / "train.jsonl", rows)
    found = TableData(path=str(tmp_path), validation=0.2, test=0.2).rows("news", COMPLETION)
    asked = [{one.prompt_text for one in completions(found[split].read())} for split in SPLITS]
    assert sum(map(len, asked)) == 9


def test_columns_by_name_and_by_number(tmp_path):
    write_jsonl(tmp_path / "named.jsonl", [{"utterance": r["text"], "intent": r["label"], "id": 1} for r in ROWS])
    (tmp_path / "bare.csv").write_text("".join(f'"{row["text"]}",{row["label"]}\n' for row in ROWS))
    named = TableData(path=str(tmp_path / "named.jsonl"), columns={"text": "utterance", "label": "intent"})
    bare = TableData(path=str(tmp_path / "bare.csv"), columns={"text": 1, "label": 2})
    assert texts(named) == texts(bare)
    assert sorted(one.text for split in texts(bare).values() for one in split) == sorted(row["text"] for row in ROWS)


def test_pairs_several_labels_and_numbers(tmp_path):
    rows = [{"text": f"t{i}", "text_pair": f"p{i}", "labels": [["x"], [], ["y", "x"]][i % 3]} for i in range(20)]
    write_jsonl(tmp_path / "lists.jsonl", rows)
    write_csv(tmp_path / "cells.csv", [{**row, "labels": json.dumps(row["labels"])} for row in rows])
    found = [
        texts(TableData(path=str(tmp_path / name)), problem="multi_label") for name in ("lists.jsonl", "cells.csv")
    ]
    assert found[0] == found[1]
    assert {one.label for one in found[0]["train"]} == {("x",), (), ("y", "x")}
    assert all(one.pair == one.text.replace("t", "p") for one in found[0]["train"])
    assert classes_in(found[0]["train"]) == ("x", "y")
    write_csv(tmp_path / "numbers.csv", [{"sentence": f"t{i}", "label": i / 2} for i in range(20)])
    numbers = texts(TableData(path=str(tmp_path / "numbers.csv")), problem="regression")
    assert all(one.label == int(one.text[1:]) / 2 for one in numbers["train"])


def test_turns_of_messages_in_each_format(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": f"a{i}"}]}
        for i in range(20)
    ]
    write_jsonl(tmp_path / "one.jsonl", rows)
    pd.DataFrame(rows).to_parquet(tmp_path / "two.parquet")
    write_csv(tmp_path / "three.csv", [{"messages": json.dumps(row["messages"])} for row in rows])
    found = []
    for name in ("one.jsonl", "two.parquet", "three.csv"):
        source = TableData(path=str(tmp_path / name)).rows("news", COMPLETION)
        found.append({split: digest_of(completions(stream.read())) for split, stream in source.items()})
    assert found[0] == found[1] == found[2]
    assert len(set(found[0].values())) == 3


def test_plain_texts_and_digests(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", ROWS)
    source = TableData(path=str(tmp_path), validation="train", test="train").rows("news", TEXT)
    assert list(plain_texts(source["train"].read())) == [row["text"] for row in ROWS]
    read = [digest_of(plain_texts(source["train"].read())), digest_of(row["text"] for row in ROWS)]
    assert read[0] == read[1] != digest_of(row["text"] for row in ROWS[1:])


def test_classes_are_those_of_train_in_an_order():
    assert classes_in([LabelledText("t", name) for name in ("10", "9", "-1")]) == ("-1", "9", "10")
    assert classes_in([LabelledText("t", name) for name in ("b", "a", "10")]) == ("10", "a", "b")
    assert classes_in([LabelledText("t", 0.5)]) == ()


# Bad input


def refusal(error, call, *arguments):
    with pytest.raises(error) as caught:
        call(*arguments)
    return str(caught.value)


def test_a_column_that_is_missing_or_renamed(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", [{"text": row["text"], "lable": row["label"]} for row in ROWS])
    message = refusal(DataError, texts, TableData(path=str(tmp_path)))
    assert message == (
        f"{tmp_path}/train.jsonl: expected the columns text and label, or text and labels; unknown column 'label'; did "
        "you mean 'lable'? Known: lable, text; say which they are: columns: {text: ..., label: ...}"
    )
    message = refusal(DataError, texts, TableData(path=str(tmp_path), columns={"label": "labl"}))
    assert "columns.label: unknown column 'labl'; did you mean 'lable'? Known: lable, text" in message
    message = refusal(ConfigError, texts, TableData(path=str(tmp_path), columns={"prompt": "text"}))
    assert "data.columns: unknown column of sequence_classification 'prompt'" in message
    source = TableData(path=str(tmp_path))
    message = refusal(DataError, lambda: source.rows("news", COMPLETION))
    assert "expected the columns prompt and completion, or messages; unknown column 'prompt'" in message
    with pytest.raises(DataError, match=r"columns\.text is for another kind of task; token classification reads"):
        TableData(path=str(tmp_path), columns={"text": "text"}).corpus("news")


@pytest.mark.parametrize(
    ("row", "problem", "says"),
    [
        ({"text": None, "label": "a"}, "single_label", "line 13: the text is missing; remove the row"),
        ({"text": " ", "label": "a"}, "single_label", "line 13: the text is empty; remove the row"),
        ({"text": "t", "label": None}, "single_label", "line 13 has no label; remove the row, or give it one"),
        ({"text": "t", "label": ["a"]}, "single_label", "if a text may have several, set problem: multi_label"),
        ({"text": "t", "label": 0.5}, "single_label", "found the number 0.5; for numbers set problem: regression"),
        ({"text": "t", "label": -1}, "single_label", "the label -1 marks texts without a label, as in GLUE's"),
        ({"text": "t", "label": ["a", "a"]}, "multi_label", "a class is there twice in ['a', 'a']"),
        ({"text": "t", "label": "bad"}, "regression", "line 13: expected a number to predict; found 'bad'"),
        ({"text": 3, "label": "a"}, "single_label", "line 13: the text must be a string; found 3"),
    ],
)
def test_wrong_rows(tmp_path, row, problem, says):
    rows = [{**one, "label": 1.5} if problem == "regression" else one for one in ROWS[:12]]
    write_jsonl(tmp_path / "train.jsonl", [*rows, row])
    source = TableData(path=str(tmp_path), validation="train", test="train")
    assert says in refusal(DataError, texts, source, "news", CLASSIFICATION, problem)


def test_a_pair_in_some_rows_only(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", [{"text": "a", "text_pair": "b", "label": "x"}, {"text": "a", "label": "y"}])
    source = TableData(path=str(tmp_path), validation="train", test="train")
    assert "unknown column 'text_pair'" in refusal(DataError, texts, source)


def test_labels_of_test_that_are_not_in_train():
    train, test = (
        [LabelledText("t", "good"), LabelledText("t", "bad")],
        LabelledText("t", "goood", where="test.csv, line 3"),
    )
    check_classes(train, classes_in(train), "test")
    message = refusal(DataError, check_classes, [*train, test, test], classes_in(train), "test")
    assert message == (
        "test.csv, line 3: the label 'goood' of 2 texts in test is not among the labels of train; unknown class "
        "'goood'; did you mean 'good'? Known: bad, good; list all classes: classes: [...], or remove these rows"
    )


def test_sources_of_sentences_have_no_rows(tmp_path):
    for source in (SyntheticData(), ConllData(path=str(tmp_path))):
        message = refusal(ConfigError, source.rows, "aru", COMPLETION)
        assert "has sentences with tags, and completion needs prompt or completion or messages; read a file" in message
    write_jsonl(tmp_path / "train.jsonl", ROWS[:1])
    message = refusal(DataError, TableData(path=str(tmp_path)).rows, "news", CLASSIFICATION)
    assert "1 example to train on with 1 different text, which are too few to hold some out" in message


def test_the_order_of_classes_depends_on_their_names_alone():
    names = ["1", "01", "001", "0001", "00001", "0", "00", "000", "0000", "2"]
    orders = {classes_in([LabelledText("t", name) for name in some]) for some in (names, names[::-1], sorted(names))}
    assert orders == {("0", "00", "000", "0000", "00001", "0001", "001", "01", "1", "2")}
    assert classes_in([LabelledText("t", name) for name in ("\u00b2", "--1", "1")]) == ("--1", "1", "\u00b2")


def test_lists_of_one_number_in_a_text_are_lists(tmp_path):
    (tmp_path / "train.csv").write_text('text,labels\na,"[0, 1]"\nb,[1]\nc,"(1,)"\nd,[]\ne,1\nf,\n')
    source = TableData(path=str(tmp_path), validation="train", test="train")
    found = [one.label for one in texts(source, problem="multi_label")["train"]]
    assert found == [("0", "1"), ("1",), ("1",), (), ("1",), ()]
    (tmp_path / "train.csv").write_text("text,labels\na,[bad]\n")
    assert "the labels look like a list, but cannot be read" in refusal(
        DataError, texts, source, "t", CLASSIFICATION, "multi_label"
    )


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"text": "a", "labels": None}], "line 1 has no labels; give [] for a text of no class"),
        ([{"text": "a", "labels": [0, 1, 1]}], "a row lists the classes of its text, not 0 or 1 for each class"),
        (
            [{"text": "a", "label": "x", "labels": ["y"]}],
            "found the columns label, and labels; say which: columns: {label:",
        ),
        (
            [{"text": "a", "labels": ["x"]}, {"text": "b", "text_pair": "p", "labels": ["y"]}],
            "line 2: the row has 'text_pair', which rows before it lack; give each row one, or remove it",
        ),
    ],
    ids=["null", "0 or 1 for each", "label and labels", "a pair that begins late"],
)
def test_rows_of_several_labels_that_are_refused(tmp_path, rows, says):
    write_jsonl(tmp_path / "train.jsonl", rows)
    source = TableData(path=str(tmp_path), validation="train", test="train")
    assert says in refusal(DataError, texts, source, "t", CLASSIFICATION, "multi_label")


def test_one_of_two_columns_that_would_do_is_read_where_it_is_said(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", [{"text": "a", "label": "x", "labels": "y"}])
    for column, label in (("label", "x"), ("labels", "y")):
        source = TableData(path=str(tmp_path), validation="train", test="train", columns={column: column})
        assert texts(source)["train"] == [LabelledText("a", label)]


def test_minus_one_is_a_class_where_it_is_said():
    rows = [Row({"text": "a", "label": -1}, "row 0"), Row({"text": "b", "label": "1"}, "row 1")]
    with pytest.raises(DataError, match=r"or, if it is a class, list all of them: classes: \['-1', ...\]"):
        list(labelled_texts(rows))
    assert [one.label for one in labelled_texts(rows, classes=["-1", "0", "1"])] == ["-1", "1"]
