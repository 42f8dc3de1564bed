"""WikiAnn: the hub's own code on a local folder with the hub's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from datasets import Dataset
from wikiann_files import SPLITS, TAGS, rows_to_parquet

from pemeta.data.sentences import Sentence
from pemeta.data.wikiann import read_wikiann
from pemeta.errors import DataError

ROWS = [(["Ada", "Lovelace", "slept"], [1, 2, 0]), (["Кейптаун"], [5]), (["x", "y"], [0, 0])]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A function that writes a folder with the layout of ``unimelb-nlp/wikiann``; the cache is in the test's folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def make(
        rows: list[tuple[list[str], list[int]]] = ROWS, names: list[str] = TAGS, splits: tuple[str, ...] = SPLITS
    ) -> str:
        folder = tmp_path / "wikiann"
        configs = []
        for language in ("af", "nl", "zh-yue"):
            files = [{"split": split, "path": f"{language}/{split}-*"} for split in splits]
            configs.append({"config_name": language, "data_files": files})
            for split in splits:
                path = folder / language / f"{split}-00000-of-00001.parquet"
                rows_to_parquet(path, rows, names)
        head = yaml.safe_dump({"configs": configs})
        (folder / "README.md").write_text(f"---\n{head}---\n# WikiAnn\n", encoding="utf-8")
        return str(folder)

    return make


def refusal(*arguments: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_wikiann(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_language_is_read_with_its_tags(hub, capfd):
    folder = hub()
    capfd.readouterr()
    corpus = read_wikiann("af", folder)
    assert corpus.name == "af"
    assert corpus.labels.tags == tuple(TAGS)
    assert corpus.train[0] == Sentence(("Ada", "Lovelace", "slept"), ("B-PER", "I-PER", "O"))
    assert corpus.train[1] == Sentence(("Кейптаун",), ("B-LOC",))
    assert len(corpus.train) == len(corpus.validation) == len(corpus.test) == 3
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""  # no progress bars of `datasets`


def test_progress_bars_are_enabled_again_afterwards(hub):
    datasets.enable_progress_bars()
    read_wikiann("af", hub())
    assert datasets.is_progress_bar_enabled()


def test_labels_in_another_order_mean_the_same(hub):
    order = [TAGS[i] for i in (6, 5, 4, 3, 2, 1, 0)]
    rows = [(["Ada", "Lovelace"], [order.index("B-PER"), order.index("I-PER")])]
    assert read_wikiann("af", hub(rows, order)).train[0].tags == ("B-PER", "I-PER")


def test_an_unknown_language_names_the_nearest_and_all(hub):
    assert refusal("zh_yue", hub()).startswith(
        "unknown configuration 'zh_yue'; did you mean 'zh-yue'? Known: af, nl, zh-yue in "
    )


def test_a_folder_that_names_no_languages_is_not_every_language(hub):
    """datasets would load all of its files for any language."""
    folder = Path(hub())
    (folder / "README.md").unlink()
    assert f"read that with data: {{name: hub, repository: {folder / 'nl'}}}" in refusal("nl", str(folder))
    assert refusal("de", str(folder)).endswith("has only one configuration; found config: de; remove config")


def test_a_sentence_without_words_is_skipped(hub):
    assert len(read_wikiann("af", hub([([], []), (None, None), *ROWS])).train) == 3


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ((["slept", "Ada"], [0, 2]), "tag 'I-PER' follows 'O', but in IOB2 an entity starts with 'B-PER'"),
        ((["Rome", "Ada"], [5, 2]), "tag 'I-PER' follows 'B-LOC'"),
        ((["Ada", "slept"], [1]), "2 words but 1 tag"),
        ((["Ada", ""], [1, 0]), "word 2 of 2 is empty"),
        ((["Ada", None], [1, 0]), "word 2 of 2 is missing"),
        ((["Ada", "slept"], [1, None]), "tag 2 is missing"),
        ((["Ada", "slept"], None), "2 words but 0 tags"),
        ((["Ada", "slept"], [1, -1]), "tag 2 must be an index from 0 to 6; found -1"),
    ],
)
def test_a_wrong_row_is_named(hub, row, says):
    message = refusal("af", hub([ROWS[0], row]))
    assert f"(af), train, row 1: {says}" in message


def test_other_labels_are_refused(hub):
    message = refusal("af", hub([(["x"], [5])], [*TAGS[:-2], "B-GPE", "I-GPE"]))
    assert "row 0: unknown type 'GPE' of the tag 'B-GPE'; the types are PER, ORG, LOC" in message


def test_a_missing_split_is_refused(hub):
    assert "(af) lacks the split 'validation'; found train, test" in refusal("af", hub(splits=("train", "test")))


def test_data_of_another_kind_is_refused(tmp_path, hub):
    folder = Path(hub())
    for split in SPLITS:
        path = folder / "af" / f"{split}-00000-of-00001.parquet"
        Dataset.from_dict({"text": ["x"]}).to_parquet(path)
    assert "columns.tags: unknown column 'ner_tags'; Known: text" in refusal("af", str(folder))


def test_an_empty_split_is_refused(hub):
    assert "(af), train: found no sentence" in refusal("af", hub([([], [])]))


def test_a_broken_file_is_refused(hub):
    folder = Path(hub())
    (folder / "af" / "train-00000-of-00001.parquet").write_bytes(b"PAR1 is not enough")
    assert refusal("af", str(folder)).startswith(f"cannot load the data set '{folder} (af)': ")


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch):
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach 'unimelb-nlp/wikiann' on the Hub (LocalEntryNotFoundError)\nMore.")

    monkeypatch.setattr(datasets, "load_dataset_builder", unreachable)
    assert refusal("af").startswith(
        "cannot load the data set 'unimelb-nlp/wikiann (af)': Couldn't reach 'unimelb-nlp/wikiann' on the Hub "
    )


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert refusal("af", str(tmp_path / "nothing")).startswith(
        f"cannot load the data set '{tmp_path / 'nothing'} (af)': "
    )
