"""What is served: words as in training, long texts in windows, pairs of texts, and files on the command line."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizer_kinds import tokenizer_of
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from pemeta import (
    Adapter,
    FineTuning,
    LabelSet,
    PEModel,
    Sentence,
    Server,
    Task,
    encode,
    encode_texts,
    evaluate,
    finetune,
    predict,
)
from pemeta.errors import ConfigError, DataError, ModelError
from pemeta.heads import SequenceClassification

LABELS = LabelSet(("PER", "LOC"))
CLASSES = ("other", "same")
TEXTS = ["Angela Merkel visited Bergen", "Tuva reads in 1984 , ' Bergen '", "Москва", "the town of Bergen is wet"]
FIRST = ["Bergen", "Tuva reads", "Angela Merkel visited the town of Bergen in 1984 and " * 4]
SECOND = ["the town of Bergen is wet", "Tuva", "x_1 " * 20]


def shaken(tokenizer: PreTrainedTokenizerFast, *tasks: Task) -> PEModel:
    """A tiny model whose adapter and heads are as far from zero as training might take them."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    model = PEModel(BertModel(config, add_pooling_layer=False).eval(), Adapter(bottleneck=4))
    for task in tasks:
        model.add_head(task.name, task.make_head)
        with torch.no_grad():
            for name in model.stored_names(task.name):
                model.get_parameter(name).add_(torch.randn_like(model.get_parameter(name)), alpha=0.5)
    return model


def served(folder: Path, tokenizer: PreTrainedTokenizerFast, *tasks: Task, length: int | None = None) -> Server:
    model = shaken(tokenizer, *tasks)
    model.save_pretrained(folder, tokenizer)
    for task in tasks:
        model.save_task(folder / "tasks" / task.name, task.name, length)
    return Server.load(folder, device="cpu")


def tagging(tokenizer: PreTrainedTokenizerFast) -> Task:
    return Task.token_classification("ner", encode([], LABELS, tokenizer))


def tagged(server: Server, texts: Any, **options: Any) -> list[tuple[str | None, ...]]:
    return [one.tags for one in server.predict("ner", texts, **options)]  # type: ignore[union-attr]


def evaluated(server: Server, words: list[list[str]], length: int | None = None) -> list[tuple[str, ...]]:
    """What the library's own prediction says about words as they are encoded for training."""
    sentences = [Sentence(tuple(one), ("O",) * len(one)) for one in words]
    with server.using("ner") as model:
        return [tuple(tags) for tags in predict(model, encode(sentences, LABELS, server.tokenizer, length), "ner")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server of a task of each kind, which tests leave as it is."""
    tokenizer = tokenizer_of("GPT-2")
    folder = tmp_path_factory.mktemp("served") / "m"
    return served(folder, tokenizer, tagging(tokenizer), pair_task(tokenizer), single_task(tokenizer), length=16)


# Words


@pytest.mark.parametrize(
    "kind", ["GPT-2", "Llama 3", "Gemma", "metaspace never", "BERT", "T5", "GPT-2 with a space before"]
)
def test_words_are_labelled_as_they_were_encoded_for_training(tmp_path, kind):
    tokenizer = tokenizer_of(kind)
    server = served(tmp_path / "m", tokenizer, tagging(tokenizer))
    words = [*(text.split() for text in TEXTS), ["東京", "で", "Tuva", "会う"]]
    expected = evaluated(server, words)
    assert len({tag for tags in expected for tag in tags}) > 1
    assert tagged(server, words) == expected
    assert tagged(server, [tuple(one) for one in words]) == expected
    assert tagged(server, TEXTS) == expected[:-1]
    assert tagged(server, iter(TEXTS)) == expected[:-1]
    assert tagged(server, [TEXTS[0], words[1]], batch_size=1) == expected[:2]


def test_words_come_in_any_sequence(server):
    """A table's column of words holds arrays, as pandas reads them from Parquet."""
    words = [text.split() for text in TEXTS]
    expected = tagged(server, words)
    assert tagged(server, pd.Series([np.array(one) for one in words])) == expected
    assert tagged(server, [iter(one) for one in words], batch_size=np.int64(2), stride=np.int64(4)) == expected
    assert server.predict("ner", [np.array(["Tuva"])])[0].to_json()["words"] == ("Tuva",)
    pairs = list(zip(FIRST, SECOND, strict=True))
    for array in (np.array(pairs), np.array(pairs, dtype=object), pd.DataFrame(pairs).to_numpy()):
        assert server.predict("pair", array) == server.predict("pair", pairs)
    assert tagged(server, np.array([["Tuva", "reads"], ["in", "Bergen"]])) == tagged(
        server, ["Tuva reads", "in Bergen"]
    )


@pytest.mark.parametrize(("task", "texts"), [("ner", ["a \ud83d"]), ("ner", [["a", "\ud83d"]]), ("single", ["\ud83d"])])
def test_half_a_character_is_refused(server, task, texts):
    with pytest.raises(DataError, match=r"text 1 of 1 holds '\\ud83d', half of a surrogate pair"):
        server.predict(task, texts)


def test_words_may_hold_spaces_and_no_break_spaces_stay_in_them(tmp_path):
    tokenizer = tokenizer_of("GPT-2")
    server = served(tmp_path / "m", tokenizer, tagging(tokenizer))
    first, second, third = server.predict("ner", ["10\u00a0000 km in\u202f1984", ["New York", "is", ""], []])
    assert first.words == ("10\u00a0000", "km", "in\u202f1984")
    assert first.tags == evaluated(server, [["10\u00a0000", "km", "in\u202f1984"]])[0]
    assert second.words == ("New York", "is", "")
    assert second.tags[2] is None
    assert (third.words, third.tags, third.entities) == ((), (), ())


def test_entities_of_a_language_without_spaces_have_none(tmp_path):
    tokenizer = tokenizer_of("GPT-2")
    server = served(tmp_path / "m", tokenizer, tagging(tokenizer))
    (found,) = server.predict("ner", [["東", "京", "で", "会", "う"]])
    assert all(entity.text == "".join(found.words[entity.start : entity.end]) for entity in found.entities)


# Long texts


@pytest.mark.parametrize("kind", ["GPT-2", "BERT"])
def test_a_long_text_is_labelled_to_its_end(tmp_path, kind):
    tokenizer = tokenizer_of(kind)
    server = served(tmp_path / "m", tokenizer, tagging(tokenizer), length=16)
    words = " ".join(TEXTS * 5).split()
    whole, cut = tagged(server, [words], stride=4)[0], evaluated(server, [words], 16)[0]
    assert None not in whole
    labelled = len(encode([Sentence(tuple(words), ("O",) * len(words))], LABELS, tokenizer, 16).first_tokens[0])
    assert whole[: labelled - 4] == cut[: labelled - 4]  # what only the first window has
    assert tagged(server, [TEXTS[0], words, "Bergen"], stride=4)[1] == whole
    assert tagged(server, [" ".join(words)], stride=4) == [whole]
    assert len(tagged(server, [words])[0]) == len(words)
    for one in server.predict("ner", [words]):
        assert all(0 < entity.score <= 1 for entity in one.entities)


def test_words_of_a_long_text_are_labelled_by_their_windows(tmp_path):
    """With windows of whole words, each of one token, each window is a text of its own to the model."""
    tokenizer = tokenizer_of("BERT")
    server = served(tmp_path / "m", tokenizer, tagging(tokenizer), length=10)
    words = ["bergen", "the", "town", "is", "wet", "reads", "in"] * 3
    assert len(tokenizer(" ".join(words))["input_ids"]) == len(words) + 2
    parts = {0: words[:8], 6: words[6:14], 12: words[12:20], 18: words[18:]}
    tags = dict(zip(parts, tagged(server, list(parts.values())), strict=True))
    where = [0] * 7 + [6] * 6 + [12] * 6 + [18] * 2  # of words in two windows, the first is further from an edge
    assert tagged(server, [words], stride=2)[0] == tuple(tags[start][i - start] for i, start in enumerate(where))


@pytest.mark.parametrize("stride", [-1, 16, 1.5, True, "4"])
def test_a_stride_that_leaves_no_step_is_refused(server, stride):
    with pytest.raises(ConfigError, match="stride must be from 0 to 15, less than max_length; found"):
        server.predict("ner", TEXTS, stride=stride)


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ("Anna", "put a single one in brackets; found 'Anna'"),
        (None, "put a single one in brackets; found None"),
        (3, "put a single one in brackets; found 3"),
        ({"a": 1}, "put a single one in brackets; found {'a': 1}"),
        (["Anna", 3], "text 2 of 2 is 3"),
        ([["Anna", None]], "text 1 of 1 is ['Anna', None]"),
        ([b"Anna"], "text 1 of 1 is b'Anna'"),
        ([float("nan")], "text 1 of 1 is nan"),
    ],
)
def test_what_is_no_list_of_texts_is_refused(server, texts, says):
    with pytest.raises(DataError) as caught:
        server.predict("ner", texts)
    assert str(caught.value) == f"texts must be a list of strings or of lists of words; {says}"
    with pytest.raises(ConfigError, match="batch_size must be a whole number of at least 1; found 'many'"):
        server.predict("ner", TEXTS, batch_size="many")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="unknown task None; Known: ner, pair, single"):
        server.predict(None, TEXTS)  # type: ignore[arg-type]


# Pairs


def pair_task(tokenizer: PreTrainedTokenizerFast, name: str = "pair") -> Task:
    return Task.sequence_classification(name, encode_texts(FIRST, ["same"] * 3, CLASSES, tokenizer, pairs=SECOND))


def single_task(tokenizer: PreTrainedTokenizerFast) -> Task:
    return Task.sequence_classification("single", encode_texts(FIRST, ["same"] * 3, CLASSES, tokenizer))


@pytest.mark.parametrize("types", [False, True])
def test_a_task_of_pairs_is_served_with_pairs(tmp_path, types):
    tokenizer = tokenizer_of("BERT")
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if types else [])]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        model_max_length=64,
        model_input_names=names,
        **tokenizer.special_tokens_map,
    )
    task = pair_task(tokenizer)
    server = served(tmp_path / "m", tokenizer, task, single_task(tokenizer), length=24)
    data = encode_texts(FIRST, ["same"] * 3, CLASSES, tokenizer, 24, pairs=SECOND)
    assert (data.type_ids is not None) == types
    assert data.num_truncated == 1
    with server.using("pair") as model:
        expected = predict(model, data, "pair")
    pairs = list(zip(FIRST, SECOND, strict=True))
    found = server.predict("pair", pairs)
    assert [one.label for one in found] == expected
    with server.using("pair") as model, torch.no_grad():
        batch = model.placed(data.batch(range(3)))
        logits = model(batch, "pair").softmax(-1).max(-1).values
    assert [one.score for one in found] == pytest.approx(logits.tolist(), abs=1e-6)
    assert [one.text for one in found] == pairs
    assert server.predict("pair", [list(pair) for pair in pairs]) == found
    assert server.labels_pairs("pair")
    assert not server.labels_pairs("single")
    assert server.predict("pair", []) == server.predict("single", []) == []
    assert json.loads(json.dumps(found[0].to_json()))["text"] == list(pairs[0])
    assert str(found[0]).endswith("  Bergen  |  the town of Bergen is wet")


@pytest.mark.parametrize(
    ("task", "texts", "says"),
    [
        (
            "pair",
            ["Bergen"],
            "task 'pair' labels pairs of texts, but text 1 of 1 is 'Bergen'; give both texts, as (first",
        ),
        ("pair", [("a", "b"), ("a", "b", "c")], "labels pairs of texts, but text 2 of 2 is ('a', 'b', 'c'); give both"),
        ("pair", [("a",)], "labels pairs of texts, but text 1 of 1 is ('a',); give both"),
        ("pair", [("a", " ")], "pair 1 of 1 has an empty text; remove the pair"),
        (
            "single",
            [("a", "b")],
            "task 'single' labels single texts, but text 1 of 1 is ('a', 'b'); give it as one string",
        ),
        ("single", ["a", "\n"], "text 2 of 2 is empty; remove it"),
        ("single", [3], "texts must be a list of strings; text 1 of 1 is 3"),
        ("pair", None, "texts must be a list of pairs of strings; put a single one in brackets; found None"),
    ],
)
def test_single_texts_for_a_task_of_pairs_are_refused_and_the_reverse(server, task, texts, says):
    with pytest.raises(DataError) as caught:
        server.predict(task, texts)
    assert says in str(caught.value)


def test_a_task_file_without_the_word_is_of_single_texts(tmp_path):
    tokenizer = tokenizer_of("GPT-2")
    served(tmp_path / "m", tokenizer, single_task(tokenizer))
    path = tmp_path / "m" / "tasks" / "single" / "task.json"
    manifest = json.loads(path.read_text())
    assert manifest["head"].pop("pairs") is False
    path.write_text(json.dumps(manifest))
    assert not Server.load(tmp_path / "m", device="cpu").labels_pairs("single")


def test_pairs_are_not_evaluated_or_validated_as_single_texts():
    tokenizer = tokenizer_of("GPT-2")
    pair, single = pair_task(tokenizer), single_task(tokenizer)
    model = shaken(tokenizer, pair, single)
    assert evaluate(model, pair.train, "pair").accuracy in (0, 1 / 3, 2 / 3, 1)
    with pytest.raises(
        DataError, match=r"the head of task 'pair' labels pairs of texts, but the data has single texts; "
    ):
        evaluate(model, single.train, "pair")
    with pytest.raises(DataError, match=r"labels single texts, but the data has pairs of texts; .*with pairs=True"):
        predict(model, pair.train, "single")
    for task, validation in ((pair, single), (single, pair)):
        with pytest.raises(DataError, match=r"on pairs of texts and \w+ on single ones; encode both alike"):
            finetune(model, task, validation.train, FineTuning(epochs=1), progress=False)
    own = Task("own", pair.train, SequenceClassification(labels=CLASSES, pairs=True))
    finetune(model, own, pair.train, FineTuning(epochs=1), progress=False)  # what the messages advise


# The command line


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tokenizer = tokenizer_of("GPT-2")
    served(tmp_path / "m", tokenizer, tagging(tokenizer), pair_task(tokenizer))
    return tmp_path / "m"


def test_predict_reads_a_file(pemeta, refused, folder, tmp_path):
    file = tmp_path / "texts.txt"
    file.write_bytes("\ufeffAngela Merkel\r\n\nMoskva\u2028x".encode())
    shown = pemeta("predict", folder, "--task", "ner", "--json", "--file", file)
    assert (shown.code, shown.err) == (0, "")
    assert [json.loads(line)["words"] for line in shown.out.splitlines()] == [["Angela", "Merkel"], [], ["Moskva", "x"]]
    says = "is the name of a file; label its lines with --file, or give the text itself on standard input, with `-`"
    assert refused("predict", folder, "--task", "ner", file) == f"{str(file)!r} {says}"
    assert "give TEXT or --file, not both" in refused("predict", folder, "--task", "ner", "x", "--file", file)
    assert "missing argument 'TEXT...', or --file FILE" in refused("predict", folder, "--task", "ner")
    assert "cannot read nothing.txt: No such file" in refused(
        "predict", folder, "--task", "ner", "--file", "nothing.txt"
    )
    file.write_bytes(b"\xff\xfe")
    assert "not UTF-8 at byte 0" in refused("predict", folder, "--task", "ner", "--file", file)
    file.write_text("\n\n")
    assert f"{file} has no text" in refused("predict", folder, "--task", "ner", "--file", file)


def test_marks_of_joined_files_are_no_part_of_a_word(pemeta, folder, tmp_path, monkeypatch):
    text = "\ufeffAngela\n\ufeffTuva a\ufeffb\n"
    (tmp_path / "texts.txt").write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    for given in (("--file", tmp_path / "texts.txt"), ("-",)):
        shown = pemeta("predict", folder, "--task", "ner", "--json", *given)
        assert [json.loads(line)["words"] for line in shown.out.splitlines()] == [["Angela"], ["Tuva", "a\ufeffb"]]


def test_a_name_of_a_file_is_a_text_on_standard_input(pemeta, folder, tmp_path, monkeypatch):
    (tmp_path / "README").write_text("x")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO("README\n"))
    shown = pemeta("predict", folder, "--task", "ner", "--json", "-")
    assert json.loads(shown.out)["words"] == ["README"]


def test_pairs_have_a_tab_between_them(pemeta, refused, folder, tmp_path):
    shown = pemeta("predict", folder, "--task", "pair", "--json", "Bergen\tthe town", "Tuva\treads")
    assert (shown.code, shown.err) == (0, "")
    assert [json.loads(line)["text"] for line in shown.out.splitlines()] == [["Bergen", "the town"], ["Tuva", "reads"]]
    for text in ("Bergen the town", "a\tb\tc"):
        assert "task 'pair' labels pairs of texts, but text 2 of 2 is " in refused(
            "predict", folder, "--task", "pair", "a\tb", text
        )
