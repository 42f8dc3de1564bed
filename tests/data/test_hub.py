"""Data sets of the hub: the hub's own code on local folders with the hub's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from datasets import Dataset
from wikiann_files import SPLITS, TAGS, rows_to_parquet

from pemeta.data import HubData
from pemeta.data.sentences import Sentence
from pemeta.errors import ConfigError, DataError

ROWS = [(["TASK", "Lovelace", "slept"], [1, 2, 0]), (["\u041a\u0435\u0439\u043f"], [5]), (["NA", "y"], [0, 0])]
MANY = [([f"w{n}", "Ada"], [0, 1]) for n in range(40)]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A function that writes a folder with the layout of a data set on the hub; the cache is in the test's folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def make(
        rows: list[tuple[list[str], list[int]]] = ROWS,
        configs: tuple[str, ...] = ("af", "nl"),
        splits: tuple[str, ...] = SPLITS,
        head: bool = True,
        names: list[str] = TAGS,
    ) -> str:
        folder = tmp_path / "hub"
        entries = []
        for number, config in enumerate(configs):
            named = [
                ([f"{config}{number}" if word == "TASK" else word for word in words], tags) for words, tags in rows
            ]
            entries.append(
                {"config_name": config, "data_files": [{"split": one, "path": f"{config}/{one}-*"} for one in splits]}
            )
            for split in splits:
                rows_to_parquet(folder / config / f"{split}-00000-of-00001.parquet", named, names)
        if head:
            (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': entries})}---\n# Data\n", "utf-8")
        return str(folder)

    return make


def refusal(source: HubData, task: str = "af") -> str:
    with pytest.raises(DataError) as caught:
        source.corpus(task)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    return message


def test_each_configuration_is_a_task(hub, capfd):
    folder = hub()
    capfd.readouterr()
    for number, task in enumerate(("af", "nl")):
        corpus = HubData(repository=folder, config="{task}").corpus(task)
        assert corpus.labels.tags == tuple(TAGS)
        assert corpus.train[0] == Sentence((f"{task}{number}", "Lovelace", "slept"), ("B-PER", "I-PER", "O"))
        assert corpus.train[1] == Sentence(("\u041a\u0435\u0439\u043f",), ("B-LOC",))
        assert [len(corpus.split(split)) for split in SPLITS] == [3, 3, 3]
    assert capfd.readouterr() == ("", "")  # no bars of `datasets`


def test_the_only_configuration_need_not_be_named(hub):
    assert len(HubData(repository=hub(configs=("af",))).corpus("any name").train) == 3


def test_a_folder_without_configurations_has_no_configuration_of_any_name(hub):
    """datasets would load the same files for every name."""
    folder = hub(configs=("data",), head=False)
    assert len(HubData(repository=folder).corpus("af").train) == 3
    message = refusal(HubData(repository=folder, config="{task}"))
    assert message.endswith("has only one configuration; found config: af; remove config")


def test_a_folder_named_like_the_configuration_is_said(hub):
    """Without the name, the files of all folders would be one data set."""
    folder = hub(head=False)
    message = refusal(HubData(repository=folder, config="{task}"), "nl")
    assert f"read that with data: {{name: hub, repository: {folder}/nl}}, or '{folder}/{{task}}' for each" in message
    assert len(HubData(repository=f"{folder}/{{task}}").corpus("nl").train) == 3


def test_what_was_loaded_once_is_read_without_a_network(hub, tmp_path, monkeypatch):
    folder = hub()
    for name in ("af", "nl"):
        datasets.load_dataset(folder, name)
    (tmp_path / "cache" / "hub").rename(tmp_path / "cache" / "some___hub")  # as if it came from the hub
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    source = HubData(repository="some/hub", config="{task}")
    assert source.corpus("nl").train[0].words[0] == "nl1"
    assert source.sizes("nl") == {"train": 3, "validation": 3, "test": 3}
    assert refusal(source, "de") == "unknown configuration 'de'; Known: af, nl in some/hub"
    says = "some/hub has configurations: af, nl; say which: config: NAME, or '{task}' for each"
    assert refusal(HubData(repository="some/hub")) == says
    (kept,) = (one for one in (tmp_path / "cache" / "some___hub" / "nl").glob("*/*") if one.is_dir())
    kept.rename(kept.with_name("a" * 40))
    assert len(HubData(repository="some/hub", config="{task}", revision="a" * 7).corpus("nl").train) == 3
    says = f"without a network there is only revision {'a' * 40}, in the cache of datasets; found revision: abcdef0"
    assert says in refusal(HubData(repository="some/hub", config="{task}", revision="abcdef0"), "nl")


def test_a_folder_has_no_revision(hub):
    message = refusal(HubData(repository=hub(configs=("af",)), revision="abc"))
    assert message.endswith("is a folder, which has no revision 'abc'; remove revision")


def test_a_gated_data_set_is_to_be_asked_for(monkeypatch):
    def gated(*_: Any, **__: Any) -> None:
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'a/b' is a gated dataset on the Hub.")

    monkeypatch.setattr(datasets, "load_dataset_builder", gated)
    assert refusal(HubData(repository="a/b")).endswith(
        "ask for access on its page on the hub, then log in: hf auth login"
    )


@pytest.mark.parametrize(("config", "says"), [
    ("aff", "unknown configuration 'aff'; did you mean 'af'? Known: af, nl in "),
    (None, "has configurations: af, nl; say which: config: NAME, or '{task}' for each"),
])  # fmt: skip
def test_a_wrong_configuration_names_all(hub, config, says):
    assert says in refusal(HubData(repository=hub(), config=config))


def test_splits_of_other_names_are_named(hub):
    folder = hub(MANY, ("af",), ("train", "dev_a", "test_a"))
    assert "has no validation, but dev_a, test_a; say which is which" in refusal(HubData(repository=folder))
    splits = {"train": "train[:50%]", "validation": "dev_a", "test": "dev_a+test_a"}
    corpus = HubData(repository=folder, splits=splits).corpus("af")
    assert [len(corpus.split(split)) for split in SPLITS] == [20, 40, 80]
    message = refusal(HubData(repository=folder, splits={"train": "trian[:50%]"}))
    assert "splits.train: unknown split 'trian'; did you mean 'train'?" in message
    message = refusal(HubData(repository=folder, splits={"train": "train[:50"}))
    assert message.endswith(
        "Unrecognized instruction format: train[:50; say which with splits: names, or parts such as train[:10%]"
    )


def test_what_is_lacking_is_held_out_and_said(hub):
    folder = hub(MANY, ("af",), ("train", "test"))
    corpus = HubData(repository=folder).corpus("af")
    assert [len(corpus.split(split)) for split in SPLITS] == [36, 4, 40]
    assert corpus.notes == (
        f"{folder}, af has no validation: 4 of 40 training sentences are held out for it, chosen by split_seed 0",
    )
    other = HubData(repository=folder, split_seed=1).corpus("af")
    assert set(other.validation) != set(corpus.validation)


def test_tasks_may_be_splits_and_columns(hub, tmp_path):
    folder = hub(MANY, ("all",), ("train", "de", "fr"))
    source = HubData(repository=folder, splits={"train": "{task}"})
    source.check_tasks(["de", "fr"])
    assert len(source.corpus("de").train) == 32
    rows = Dataset.from_dict({"tokens": [[f"w{n}"] for n in range(40)], "tags": [["O"]] * 40, "lang": ["x", "y"] * 20})
    (tmp_path / "other").mkdir()
    rows.to_csv(str(tmp_path / "other" / "train.csv"))
    corpus = HubData(repository=str(tmp_path / "other"), task_column="lang").corpus("y")
    found = {one.words[0] for split in SPLITS for one in corpus.split(split)}
    assert found == {f"w{n}" for n in range(1, 40, 2)}


def test_integers_without_names_need_names(hub, tmp_path):
    (tmp_path / "plain").mkdir()
    data = {"tokens": [w for w, _ in MANY], "tags": [t for _, t in MANY]}
    Dataset.from_dict(data).to_parquet(tmp_path / "plain" / "train.parquet")
    folder = str(tmp_path / "plain")
    assert ", row 0: tag 1 is the integer 0; give the tags that integers mean" in refusal(HubData(repository=folder))
    assert HubData(repository=folder, names=TAGS).corpus("x").train[0].tags == ("O", "B-PER")


@pytest.mark.parametrize(("row", "says"), [
    ((["a", "Ada"], [0, 2]), "tag 'I-PER' follows 'O', but in IOB2 an entity starts with 'B-PER'"),
    ((["a", "b"], [1]), "2 words but 1 tag"),
    ((["a", ""], [1, 0]), "word 2 of 2 is empty"),
    ((["a", None], [1, 0]), "word 2 of 2 is missing"),
    ((["a", "b"], [1, None]), "tag 2 is missing"),
    ((["a", "b"], [1, -1]), "tag 2 must be an index from 0 to 6; found -1"),
    ((["a", "b"], None), "2 words but 0 tags"),
])  # fmt: skip
def test_a_wrong_row_is_named(hub, row, says):
    message = refusal(HubData(repository=hub([ROWS[0], row], ("af",))))
    assert f", train, row 1: {says}" in message


def test_bare_types_as_names_need_their_scheme(hub):
    rows = [(["a", "b"], [1, 1])] * 3
    folder = hub(rows, ("af",), names=["O", "art", "person"])
    assert "its tags are types: 3 entities of the types art: set scheme: types" in refusal(HubData(repository=folder))
    corpus = HubData(repository=folder, scheme="types").corpus("af")
    assert corpus.labels.types == ("art", "person")
    assert corpus.test[0].tags == ("B-art", "I-art")


def test_sizes_are_counted(hub):
    source = HubData(repository=hub(MANY, ("af",), ("train", "test")))
    assert source.sizes("af") == {"train": 36, "validation": 4, "test": 40}


def test_sizes_are_those_of_the_card(hub):
    folder = Path(hub(configs=("af",), splits=("train", "test")))
    info = {"splits": [{"name": "train", "num_examples": 500}, {"name": "test", "num_examples": 70}]}
    configs = [{"config_name": "af", "data_files": [{"split": s, "path": f"af/{s}-*"} for s in ("train", "test")]}]
    head = yaml.safe_dump({"configs": configs, "dataset_info": {"config_name": "af", **info}})
    (folder / "README.md").write_text(f"---\n{head}---\n", "utf-8")
    assert HubData(repository=str(folder)).sizes("af") == {"train": 500, "validation": 50, "test": 70}


def test_a_broken_file_is_one_sentence(hub):
    folder = Path(hub())
    (folder / "af" / "train-00000-of-00001.parquet").write_bytes(b"PAR1 is not enough")
    assert refusal(HubData(repository=str(folder), config="{task}")).startswith("cannot load the data set ")


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch):
    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach 'some/thing' on the Hub (LocalEntryNotFoundError)\nMore.")

    monkeypatch.setattr(datasets, "load_dataset_builder", unreachable)
    assert refusal(HubData(repository="some/thing")) == (
        "cannot load the data set 'some/thing': Couldn't reach 'some/thing' on the Hub (LocalEntryNotFoundError); "
        "check its name and the network, or read files with data: {name: table, path: ...}"
    )


def test_a_script_is_refused_with_what_reads_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "scripted").mkdir()
    (tmp_path / "scripted" / "scripted.py").write_text("raise SystemExit")
    message = refusal(HubData(repository=str(tmp_path / "scripted")))
    assert "refs/convert/parquet" in message


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert refusal(HubData(repository=str(tmp_path / "nothing"))).startswith("cannot load the data set ")


def test_tasks_that_would_be_the_same_are_refused():
    with pytest.raises(ConfigError, match="data 'hub' would give the tasks a, b the same sentences"):
        HubData(repository="some/thing").check_tasks(["a", "b"])
    for own in ({"repository": "some/{language}"}, {"config": "{task}"}, {"task_column": "lang"}):
        HubData(**{"repository": "some/thing", **own}).check_tasks(["a", "b"])
