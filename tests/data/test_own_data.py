"""Data of users' own as a configuration describes it: folders of any layout, types by other names, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pemeta.data.entity_types import label_set, mapped, type_map
from pemeta.data.sources import ConllData, DataSource
from pemeta.errors import ConfigError, DataError
from pemeta.experiments.config import GridConfig
from pemeta.utils.neutral import without_neutral

SPLITS = {"train": "{task}/train.txt", "validation": "{task}/dev.txt", "test": "{task}/test.txt"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two languages, ``en`` in IOB1 with four columns and ``de`` in IOB2 with other types, in files of other names."""
    for language, text in (
        ("en", "-DOCSTART- -X- -X- O\n\nAda NNP O I-PERS\n1815 CD O I-DATE\nOslo NNP O I-geo\n\nBo NNP O I-PERS\n"),
        ("de", "Ada NE O B-PER\nund KON O O\n\nRom NE O B-LOC\n"),
    ):
        (tmp_path / "data" / language).mkdir(parents=True)
        for split in ("train", "dev", "test"):
            (tmp_path / "data" / language / f"{split}.txt").write_text(text, encoding="utf-8")
    return tmp_path / "data"


def source(folder: Path, **keys: Any) -> DataSource:
    return DataSource.parse({"name": "conll", "path": str(folder), "splits": SPLITS, "columns": {"word": 1, "tag": 4},
                             "scheme": "detect", **keys})  # fmt: skip


def test_one_configuration_for_two_languages(folder):
    data = source(folder, types={"en": {"PERS": "PER", "geo": "LOC", "DATE": None}, "de": ["PER", "LOC"]})
    english, german = data.corpus("en"), data.corpus("de")
    assert english.labels == german.labels
    assert english.labels.types == ("PER", "LOC")
    assert [one.tags for one in english.train] == [("B-PER", "O", "B-LOC"), ("B-PER",)]
    assert [one.tags for one in german.test] == [("B-PER", "O"), ("B-LOC",)]
    assert [one.document for one in english.validation] == [0, 0]
    assert [one.document for one in german.validation] == [None, None]
    says = "its tags are IOB1: 4 entities of the types PERS, DATE, geo"
    assert english.notes == tuple(f"{folder}/en/{name}.txt: {says}" for name in ("train", "dev", "test"))
    assert english.limited(train=1).notes == english.notes


def test_what_detection_found_is_said_before_a_run(folder, run_config, pemeta):
    data = source(folder, types={"PERS": "PER", "PER": "PER", "LOC": "LOC", "geo": "LOC", "DATE": None}).to_config()
    outcome = pemeta("validate", {**run_config, "data": data, "sources": ["en"], "targets": ["de"]}, "--load")
    assert f"{folder}/en/train.txt: its tags are IOB1: 4 entities" in outcome.out + outcome.err
    assert f"{folder}/de/test.txt: its tags are IOB2: 2 entities of the types PER, LOC" in outcome.out + outcome.err


def test_a_type_that_is_not_mentioned_is_refused(folder):
    with pytest.raises(
        DataError, match=r"en/train.txt, line 4: type 'DATE' of the tag 'I-DATE' is not .*\(PERS, geo\)"
    ):
        source(folder, types={"PERS": "PER", "geo": "LOC"}).corpus("en")
    with pytest.raises(
        DataError, match=r"en/train.txt, line 3: unknown type 'PERS' of the tag 'I-PERS'; the types are PER"
    ):
        source(folder, types=["PER", "LOC"]).corpus("en")


@pytest.mark.parametrize("template", ["{language}/{split}.txt", "{task}.{split}", "deep/{task}/{task}-{split}.txt"])
def test_files_are_where_splits_say(tmp_path, template):
    for task in ("a", "b.c"):
        for split in ("train", "validation", "test"):
            path = tmp_path / template.format(task=task, language=task, split=split)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{task}-{split}\tB-PER\n", encoding="utf-8")
    data = ConllData(path=str(tmp_path), splits=dict.fromkeys(("train", "validation", "test"), template))
    assert data.corpus("b.c").validation[0].words == ("b.c-validation",)
    with pytest.raises(DataError) as caught:
        data.corpus("bc")
    expected = tmp_path / template.format(task="bc", language="bc", split="train")
    assert str(caught.value) == (
        f"unknown language 'bc'; did you mean 'b.c'? Known: a, b.c; expected a file {expected}"
    )
    in_b = ConllData(path=str(tmp_path), splits=data.splits, folders={"x": "a"})
    assert in_b.corpus("x").train[0].words == ("a-train",)
    (tmp_path / template.format(task="a", language="a", split="test")).unlink()
    with pytest.raises(DataError, match=r"cannot read .*a.*test.*: No such file or directory; check the path"):
        data.corpus("a")


def test_folders_and_files_that_are_missing(tmp_path):
    with pytest.raises(DataError, match=r"there is no folder .*nothing; expected the one that data.splits starts from"):
        source(tmp_path / "nothing").corpus("en")
    with pytest.raises(DataError, match=r"unknown language 'en'; Known: none; expected a file .*en/train.txt"):
        source(tmp_path).corpus("en")
    whole = ConllData(path=str(tmp_path), splits={"train": "a", "validation": "b", "test": "c"})
    with pytest.raises(DataError, match=r"unknown language 'en'; Known: none; expected a file .*/a"):
        whole.corpus("en")


WRONG = {
    "splits": [
        ({"test": "a"}, "where they are not to be held out of train; found {'test': 'a'}; add train"),
        ({**SPLITS, "dev": "x"}, "unknown split 'dev'; Known: test, train, validation"),
        ({**SPLITS, "test": "{lang}/x"}, "test: unknown name in braces 'lang'; did you mean 'language'? "),
        ({**SPLITS, "test": "{task"}, "test: expected a path; found a brace alone in '{task'; double it"),
        ({**SPLITS, "test": "{}/x"}, "test: unknown name in braces ''"),
        ({**SPLITS, "test": "{task.x}"}, "test: unknown name in braces 'task.x'"),
        ({**SPLITS, "test": " "}, "test: expected a path; found ' '"),
        ({**SPLITS, "test": "{task}/train.txt"}, "expected a file for each split; found one for two"),
        ({**SPLITS, "test": 3}, "test: input should be a valid string; found 3"),
        ("{task}/train.txt", "splits: input should be a mapping; found '{task}/train.txt'"),
    ],
    "types": [
        ("PER", "expected a list of entity types, or a mapping such as {PERS: PER, DATE: null}; found 'PER'"),
        ([], "a label set needs one or more different entity types; found []"),
        ({}, "expected one entity type or more; found {}"),
        ({"DATE": None}, "a label set needs one or more different entity types; found []"),
        (["B-PER"], "expected entity types, not tags; found 'B-PER'; give the types without prefixes"),
        ({"I-PER": "PER"}, "expected entity types, not tags; found 'I-PER'"),
        ({"en": {"O": None, "PER": "PER"}}, "expected entity types, not tags; found 'O'"),
        (["PER", None], "types: expected the name of an entity type; found null; put it in quotes"),
        ([1], "types: expected the name of an entity type; found 1; put it in quotes"),
        ({"PERS": "B-PER"}, "a label set needs entity types, not tags"),
        ({"PERS": 3}, "expected the name of an entity type; found 3; put it in quotes"),
        ({False: "PER"}, "expected the name of an entity type; found False; put it in quotes"),
        ({"en": {"PERS": "PER"}, "DATE": None}, "'DATE': None}; give the task of 'DATE', or remove it"),
        ({"en": []}, "task 'en' has no entity type; give one or more"),
        ({"en": {"PERS": ["PER"]}}, "expected the name of an entity type; found ['PER']"),
        ({True: {"PERS": "PER"}}, "expected the name of a task; found True; put it in quotes"),
    ],
    "columns": [
        ({"word": 1}, "expected the column of tags; found {'word': 1}; add tag"),
        ({"tag": [3, 4]}, "tag: expected one column; found [3, 4]; nested annotations have several columns of tags"),
        ({"tag": 1.5}, "found 1.5"),
        ([1, 2], "expected a mapping such as {word: 1, tag: 2}; found [1, 2]"),
        ({"token": 1, "tag": 2}, "unknown column 'token'; Known: flags, sentence, tag, word"),
    ],
    "separator": [
        ("", "expected what separates columns"),
        (3, "found 3"),
        ("comma", "tab, blanks, or the characters, such as ','; found 'comma'"),
        ("\\t", r"found '\\t'"),
        ([","], "found [',']"),
    ],
    "encoding": [("hex", "expected an encoding, such as latin-1 or utf-16; found 'hex'"), (8, "found 8")],
    "scheme": [("IOB", "scheme: input should be 'IOB2', 'IOB1', 'IOBES', 'BILOU', 'BMES'"), (None, "found None")],
    "format": [("conll", "format: input should be 'columns' or 'conllu'; found 'conll'")],
}  # fmt: skip


@pytest.mark.parametrize(("key", "value", "says"), [(key, *case) for key, cases in WRONG.items() for case in cases])
def test_wrong_values_are_refused_in_a_sentence(tmp_path, key, value, says):
    with pytest.raises(ConfigError) as caught:
        source(tmp_path, **{key: value})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def grid(run_config: dict[str, Any], **data: Any) -> GridConfig:
    return GridConfig(**{**run_config, "data": {**run_config["data"], **data}})


def test_tasks_that_would_have_the_same_file_are_refused(run_config):
    for splits in ({**SPLITS, "test": "test.txt"}, {"train": "a", "validation": "b", "test": "c"}):
        with pytest.raises(
            ConfigError, match=r"data.splits: 'aa' and 'bb' would both have the file '.*' for .*\{task\}"
        ):
            grid(run_config, splits=splits)
    with pytest.raises(ConfigError, match=r"data.splits: 'bb' and 'cc' would both have the file 'cc/train.txt'"):
        grid(run_config, splits=SPLITS, folders={"bb": "cc"})
    alone = {"train": "a", "validation": "b", "test": "c"}
    only = {**run_config, "sources": [], "settings": {"plain": {"method": "adapter"}}}
    assert grid(only, splits=alone).targets == ("cc",)


def test_types_are_given_for_every_task(run_config):
    with pytest.raises(
        ConfigError, match=r"data.types: unknown task 'bb'; Known: aa, cc; types are given for each task"
    ):
        grid(run_config, types={"aa": ["PER"], "cc": ["PER"]})


def test_what_is_not_said_changes_no_digest(run_config):
    """The keys of a configuration from before the new ones, written out."""
    plain = grid(run_config).data
    assert without_neutral(plain) == {
        "name": "conll", "path": run_config["data"]["path"], "folders": {}, "types": ["PER", "ORG", "LOC"],
    }  # fmt: skip
    for key, value in {
        "splits": SPLITS,
        "columns": {"tag": 2},
        "separator": "tab",
        "scheme": "IOB1",
        "format": "conllu",
    }.items():
        said = grid(run_config, **{key: value}).data
        assert without_neutral(said) == {**without_neutral(plain), key: value}
        assert DataSource.parse(said.to_config()) == said


def test_scoring_is_part_of_a_run_and_of_priming_that_is_validated(run_config):
    usual = GridConfig.model_validate(run_config)
    strict = GridConfig.model_validate({**run_config, "scoring": "strict"})
    named = GridConfig.model_validate({**run_config, "scoring": "conlleval"})
    assert [usual.run_digest(run) for run in usual.runs] == [named.run_digest(run) for run in named.runs]
    assert not {usual.run_digest(run) for run in usual.runs} & {strict.run_digest(run) for run in strict.runs}
    assert usual.primed_name("primed", 0) == strict.primed_name("primed", 0)
    priming = {**run_config["priming"], "validate_every": 1}
    validated = {**run_config, "priming": priming, "validation_tasks": ["dd"]}
    digests = {
        GridConfig.model_validate({**validated, **more}).primed_name("primed", 0)
        for more in ({}, {"scoring": "strict"})
    }
    assert len(digests) == 2


def test_maps_of_types():
    types = {"en": {"PERS": "PER", "DATE": None, "GPE": "LOC"}, "de": ("LOC", "ORG")}
    assert label_set(types).types == ("PER", "LOC", "ORG")
    assert type_map(types, "de") == {"LOC": "LOC", "ORG": "ORG"}
    assert type_map(("PER",), "en") is None
    assert [mapped(tag, types["en"]) for tag in ("O", "B-PERS", "I-PERS", "B-DATE", "I-DATE", "B-PER")] == [
        "O", "B-PER", "I-PER", "O", "O", None,
    ]  # fmt: skip
