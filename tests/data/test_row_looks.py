"""A first look at tables of texts: which kind of task they are for, which column is what, and what is odd in them."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from pemeta.data.look import Asked, RowLook, SentenceLook, data_set_of, look_into
from pemeta.data.look.guess import guess
from pemeta.errors import DataError

THINGS = ("door", "window", "box", "key")
TEXTS = [f"{word} the {thing}, please" for word in ("open", "close", "find") for thing in THINGS]
CHAT = [{"role": "user", "content": "say a"}, {"role": "assistant", "content": "a"}]


def rows(**columns: Any) -> list[dict[str, Any]]:
    """Twelve rows; a column is a list of values, which are repeated, or ``texts``."""
    found = {name: TEXTS if values == "texts" else values for name, values in columns.items()}
    return [{name: values[i % len(values)] for name, values in found.items()} for i in range(len(TEXTS))]


NUMBERS = [i / 7 for i in range(12)]
IDS = [f"id-{i}" for i in range(12)]
ANSWERS = [f"the answer is number {i}" for i in range(12)]
CASES: Mapping[str, tuple[list[dict[str, Any]], str, dict[str, str], str]] = {
    "CLINC150": (rows(text="texts", label=["a", "b", "c"]), "sequence_classification",
                 {"text": "text", "label": "label"}, "single_label"),
    "integers for classes": (rows(sentence="texts", label=[0, 1], idx=list(range(12))), "sequence_classification",
                             {"text": "sentence", "label": "label"}, "single_label"),
    "names that say nothing": (rows(a="texts", b=["yes", "no"]), "sequence_classification", {"text": "a", "label": "b"},
                               "single_label"),
    "MNLI": (rows(premise="texts", hypothesis=ANSWERS, label=[0, 1, 2], idx=IDS), "sequence_classification",
             {"text": "premise", "text_pair": "hypothesis", "label": "label"}, "single_label"),
    "several labels": (rows(text="texts", labels=[["a"], ["a", "b"], []]), "sequence_classification",
                       {"text": "text", "labels": "labels"}, "multi_label"),
    "STS-B": (rows(sentence1="texts", sentence2=ANSWERS, score=NUMBERS), "sequence_classification",
              {"text": "sentence1", "text_pair": "sentence2", "label": "score"}, "regression"),
    "stars": (rows(review="texts", stars=[1, 5, 3]), "sequence_classification", {"text": "review", "label": "stars"},
              "single_label"),
    "BIG-Bench Hard": (rows(prompt="texts", completion=["True", "False"]), "completion",
                       {"prompt": "prompt", "completion": "completion"}, "single_label"),
    "instructions": (rows(instruction="texts", output=ANSWERS), "completion",
                     {"prompt": "instruction", "completion": "output"}, "single_label"),
    "questions": (rows(question="texts", answer=ANSWERS, id=IDS), "completion",
                  {"prompt": "question", "completion": "answer"}, "single_label"),
    "chats": (rows(messages=[CHAT], id=IDS), "completion", {"messages": "messages"}, "single_label"),
    "texts": (rows(text="texts", id=list(range(12))), "language_model", {"text": "text"}, "single_label"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_kind_and_columns_are_told_by_names_and_contents(name: str) -> None:
    given, kind, columns, problem = CASES[name]
    found = guess("x", given)
    assert found is not None
    assert (found.kind, dict(found.columns), found.problem) == (kind, columns, problem)
    assert found.why.keys() == columns.keys()


def test_the_column_of_tasks_is_one_of_such_a_name() -> None:
    given = [{**row, "domain": "banking" if i % 2 else "travel"} for i, row in enumerate(CASES["CLINC150"][0])]
    found = guess("x", given)
    assert found is not None
    assert (found.tasks, dict(found.columns)) == ("domain", {"text": "text", "label": "label"})


@pytest.mark.parametrize(
    "given",
    [
        rows(tokens=[["Ada", "ran"]], ner_tags=[[1, 0]]),
        rows(tokens=[["Ada", "ran"]], tags=[["B-PER", "O"]]),
        rows(text=["Ada ran"], tags=["B-PER O"]),
        rows(word=["Ada", "ran", "home"], tag=["PER", "O", "O"]),
    ],
)
def test_sentences_with_tags_are_left_to_their_own_look(given: list[dict[str, Any]]) -> None:
    assert guess("x", given) is None


def test_what_the_user_says_comes_first() -> None:
    given = rows(a="texts", b=ANSWERS, c=["x", "y"])
    found = guess("f", given, None, {"prompt": "b", "completion": "a"})
    assert found is not None
    assert (found.kind, dict(found.columns)) == ("completion", {"prompt": "b", "completion": "a"})
    found = guess("f", given, "sequence_classification", {"text": "b"})
    assert found is not None
    assert dict(found.columns) == {"text": "b", "label": "c"}
    assert found.why["text"] == "as you say"
    found = guess("f", given, "masked_language_model", {"text": "a"})
    assert found is not None
    assert found.kind == "masked_language_model"
    with pytest.raises(DataError, match="f: --column text=A: unknown column 'A'; did you mean 'a'"):
        guess("f", given, None, {"text": "A"})
    with pytest.raises(
        DataError, match="cannot tell which columns are what for completion; it has 'x', 'y'; say it: --col"
    ):
        guess("f", rows(x="texts", y="texts"), "completion")


def written(path: Path, given: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(list(given)), path)
    elif path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(given[0]), delimiter="," if path.suffix == ".csv" else "\t")
            writer.writeheader()
            writer.writerows(given)
    else:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in given), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "a.parquet"])
def test_every_format_is_looked_at(tmp_path: Path, name: str) -> None:
    own, whole = data_set_of(written(tmp_path / name, CASES["CLINC150"][0]))
    assert isinstance(own, RowLook)
    assert (own.kind, own.tally.examples, own.tally.classes) == (
        "sequence_classification",
        12,
        {"a": 4, "b": 4, "c": 4},
    )
    assert own.tally.words == sum(len(text.split()) for text in TEXTS)
    assert (whole.task, own.settings) == ("a", {"columns": {"text": "text", "label": "label"}})


def test_a_table_of_words_and_tags_still_is_one(tmp_path: Path) -> None:
    own, _ = data_set_of(written(tmp_path / "a.jsonl", rows(tokens=[["Ada", "ran"]], tags=[["B-PER", "O"]])))
    assert isinstance(own, SentenceLook)


def test_what_is_odd_in_rows_is_named(tmp_path: Path) -> None:
    given = [
        {"text": "a b", "label": "x"},
        {"text": "a b", "label": "y"},
        {"text": "", "label": "x"},
        {"text": "c d", "label": None},
        {"text": "caf\u00c3\u00a9 e", "label": "X"},
        {"text": "lost \ufffd", "label": "y"},
        {"text": "f g", "label": "x"},
        {"text": "h i", "label": "y"},
    ]
    own, _ = data_set_of(written(tmp_path / "a.jsonl", given))
    found = {one.what: (one.number, one.places) for one in own.oddities}
    assert found["a text that occurs before with another label"] == (1, [("line 2", "first at line 1")])
    assert found["a row with an empty text"][1] == [("line 3", "")]
    assert found["a row with an empty label"][1] == [("line 4", "")]
    assert found["two letters in place of one"][1][0][0] == "line 5"
    assert found["a character that was lost: U+FFFD REPLACEMENT CHARACTER"][0] == 1
    assert found["classes that differ in capitals or blanks alone"][1] == [("", "x X")]
    assert found["a class of a single row"][1] == [("", "'X'")]


def test_odd_chats_are_named(tmp_path: Path) -> None:
    given = [{"messages": CHAT}, {"messages": CHAT[:1]}, {"messages": []}]
    own, _ = data_set_of(written(tmp_path / "a.jsonl", given))
    assert isinstance(own, RowLook)
    assert own.tally.completions == {1: 1}
    (one,) = [one for one in own.oddities if one.what.startswith("a chat")]
    assert (one.number, [place for place, _ in one.places]) == (2, ["line 2", "line 3"])


def test_a_folder_of_tasks_is_one_configuration(tmp_path: Path) -> None:
    for task in ("banking", "travel"):
        for split in ("train", "dev", "test"):
            written(tmp_path / task / f"{split}.jsonl", CASES["CLINC150"][0])
    written(tmp_path / "chats" / "train.jsonl", CASES["chats"][0])
    found = look_into(tmp_path, Asked())
    assert [[one.task for one in group] for group in found.groups] == [["banking", "travel"], ["chats"]]
    assert [next(iter(group[0].looks.values())).kind for group in found.groups] == [
        "sequence_classification",
        "completion",
    ]
    assert list(found.groups[0][0].looks) == ["train", "validation", "test"]
