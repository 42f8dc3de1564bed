"""Texts with labels: tokens, pairs, counted truncation, batches, and refusals."""

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from pemeta import encode_texts
from pemeta.errors import ConfigError, DataError

CLASSES = ("bad", "good")
TEXTS, LABELS = ["met Otto", "Anna met Otto near Rome"], ["good", "bad"]


def test_tokens_and_labels_of_texts(tokenizer):
    encoded = encode_texts(TEXTS, LABELS, CLASSES, tokenizer)
    for text, ids in zip(TEXTS, encoded.input_ids, strict=True):
        assert ids.tolist() == tokenizer(text)["input_ids"]
    batch = encoded.batch([1, 0])
    assert batch.keys() == {"input_ids", "attention_mask", "labels"}
    assert batch["labels"].tolist() == [0, 1]
    assert batch["labels"].dtype == torch.long
    assert batch["attention_mask"].sum(1).tolist() == [len(encoded.input_ids[1]), len(encoded.input_ids[0])]
    assert (batch["input_ids"][batch["attention_mask"] == 0] == tokenizer.pad_token_id).all()
    assert encoded.outputs == CLASSES
    assert (encoded.num_truncated, len(encoded)) == (0, 2)


def test_pairs_have_type_ids_if_the_tokenizer_does(tokenizer):
    telling = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        model_max_length=32,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    encoded = encode_texts(TEXTS, LABELS, CLASSES, telling, pairs=["met Anna", "met"])
    tokens = telling(TEXTS, ["met Anna", "met"])
    assert [ids.tolist() for ids in encoded.input_ids] == tokens["input_ids"]
    assert [ids.tolist() for ids in encoded.type_ids] == tokens["token_type_ids"]
    assert encoded.batch([0, 1])["token_type_ids"].shape == encoded.batch([0, 1])["input_ids"].shape
    assert encode_texts(TEXTS, LABELS, CLASSES, telling).type_ids is None
    assert encode_texts(TEXTS, LABELS, CLASSES, tokenizer, pairs=["met", "met"]).type_ids is None


@pytest.mark.parametrize(("words", "truncated"), [(30, 0), (31, 1), (300, 1)])
def test_truncation_is_counted_and_keeps_the_special_tokens(tokenizer, words, truncated):
    encoded = encode_texts(["met " * words, "met"], LABELS, CLASSES, tokenizer, 32)
    assert encoded.num_truncated == truncated
    assert [len(ids) for ids in encoded.input_ids] == [32, 3]
    assert encoded.input_ids[0][-1] == tokenizer.sep_token_id


def test_the_digest_changes_with_a_label_and_with_a_token(tokenizer):
    digests = {
        encode_texts(texts, labels, CLASSES, tokenizer).digest()
        for texts, labels in ((TEXTS, LABELS), (TEXTS, LABELS[::-1]), (TEXTS[::-1], LABELS))
    }
    assert len(digests) == 3
    assert encode_texts(TEXTS, LABELS, CLASSES, tokenizer).digest() in digests


def test_predictions_become_names_and_scores(tokenizer):
    encoded = encode_texts(TEXTS, LABELS, CLASSES, tokenizer)
    decoded = [encoded.decode(row, i) for i, row in enumerate([1, 1])]
    assert decoded == ["good", "good"]
    assert encoded.scores(decoded).accuracy == 0.5
    assert len(encode_texts([], [], CLASSES, tokenizer)) == 0


def test_wrong_input(tokenizer):
    with pytest.raises(DataError, match="each text needs one label; found 2 texts and 1 label"):
        encode_texts(TEXTS, ["good"], CLASSES, tokenizer)
    with pytest.raises(DataError, match="found 2 texts and 1 second text"):
        encode_texts(TEXTS, LABELS, CLASSES, tokenizer, pairs=["met"])
    with pytest.raises(DataError, match=r"text 2 of 2: unknown class 'goood'; did you mean 'good'\? Known: bad, good"):
        encode_texts(TEXTS, ["good", "goood"], CLASSES, tokenizer)
    with pytest.raises(DataError, match="text 2 of 2 is empty; remove it and its label"):
        encode_texts(["met", " \n"], LABELS, CLASSES, tokenizer)
    with pytest.raises(DataError, match="second text 1 of 2 is empty"):
        encode_texts(TEXTS, LABELS, CLASSES, tokenizer, pairs=["", "met"])
    for classes in ((), ("good",), ("good", "good"), "good"):
        with pytest.raises(ConfigError, match="classes must be two or more different names; found"):
            encode_texts(TEXTS, LABELS, classes, tokenizer)
    with pytest.raises(ConfigError, match="max_length must be from 3 to the model's 32; found 33"):
        encode_texts(TEXTS, LABELS, CLASSES, tokenizer, 33)


def test_a_text_without_a_token_is_refused():
    inner = Tokenizer(models.BPE({"m": 0, "e": 1, "t": 2}, []))
    bare = PreTrainedTokenizerFast(tokenizer_object=inner)
    with pytest.raises(DataError, match="text 2 of 2 has no token in this vocabulary; remove it: 'AAA'"):
        encode_texts(["met", "AAA"], LABELS, CLASSES, bare)
