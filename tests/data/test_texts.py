"""Texts with labels: tokens, pairs, counted truncation, batches, and refusals."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from pemeta import encode_texts
from pemeta.data.classes import balanced_weights, checked_weights
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


# Several labels, and numbers


def test_several_labels_are_ones_and_zeros_in_the_order_of_the_classes(tokenizer):
    encoded = encode_texts(TEXTS, [["good", "fair"], []], ("bad", "fair", "good"), tokenizer, problem="multi_label")
    assert encoded.labels == (("fair", "good"), ())
    batch = encoded.batch([0, 1])
    assert batch["labels"].tolist() == [[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    assert encoded.decode([1, 0, 1], 0) == ("bad", "good")
    indices = encode_texts(TEXTS, [[2, 1], []], ("bad", "fair", "good"), tokenizer, problem="multi_label")
    assert indices.digest() == encoded.digest()
    assert encoded.scores([("good",), ()]).micro_f1 == pytest.approx(2 / 3)
    assert len(encode_texts(TEXTS, [["a"], []], ["a"], tokenizer, problem="multi_label").classes) == 1


def test_numbers_are_learned_as_they_are(tokenizer):
    encoded = encode_texts(TEXTS, [0.5, "-100"], None, tokenizer, problem="regression")
    assert encoded.batch([0, 1])["labels"].tolist() == [[0.5], [-100.0]]
    assert (encoded.outputs, encoded.labels) == (("value",), (0.5, -100.0))
    assert encoded.has_label(1)
    assert encoded.decode([0.25], 0) == 0.25
    assert encoded.scores([1.5, -100.0]).mse == 0.5
    assert encoded.scores([1.5, -100.0]).main == -0.5
    named = encode_texts(TEXTS, torch.tensor([0.5, -100.0]), ["stars"], tokenizer, problem="regression")
    assert (named.outputs, named.digest()) == (("stars",), encoded.digest())


@pytest.mark.parametrize(
    ("labels", "classes", "problem", "error", "says"),
    [
        ([["good"], "bad"], CLASSES, "multi_label", DataError, "text 2 of 2: a text with several labels needs a list"),
        ([["good"], None], CLASSES, "multi_label", DataError, "found nothing; give [] for none"),
        ([["goood"], []], CLASSES, "multi_label", DataError, "unknown class 'goood'; did you mean 'good'?"),
        ([0.5, "x"], None, "regression", DataError, "text 2 of 2: expected a number to predict; found 'x'"),
        ([0.5, float("inf")], None, "regression", DataError, "text 2 of 2: expected a finite number; found inf"),
        ([0.5, None], None, "regression", DataError, "text 2 of 2 has no number (None); remove it, or give it one"),
        ([0.5, True], None, "regression", DataError, "expected a number to predict; found True"),
        ([0.5, 1.0], CLASSES, "regression", ConfigError, "regression predicts one number"),
        ([["good"], []], [], "multi_label", ConfigError, "classes must be one or more different names"),
        (["good", "bad"], None, "single_label", ConfigError, "classes must be two or more different names; found None"),
        (
            ["good", "bad"],
            CLASSES,
            "multilabel",
            ConfigError,
            "unknown problem 'multilabel'; did you mean 'multi_label'",
        ),
    ],
)
def test_wrong_labels(tokenizer, labels, classes, problem, error, says):
    with pytest.raises(error) as caught:
        encode_texts(TEXTS, labels, classes, tokenizer, problem=problem)
    assert says in str(caught.value)


def test_balanced_weights_are_those_of_scikit_learn():
    labels = ["good"] * 5 + ["bad"] * 2 + ["fair"]
    classes = ("bad", "fair", "good")
    expected = compute_class_weight("balanced", classes=np.array(classes), y=np.array(labels))
    assert balanced_weights(labels, classes) == pytest.approx(expected)
    with pytest.raises(DataError, match="balanced class weights need an example of each class; there is none of worst"):
        balanced_weights(labels, (*classes, "worst"))


def test_class_weights_by_class_in_order_or_refused():
    assert checked_weights({"good": 2}, CLASSES, ()) == (1.0, 2.0)
    assert checked_weights([3, 0.5], CLASSES, ()) == (3.0, 0.5)
    assert checked_weights("balanced", CLASSES, ["good", "bad"]) == (1.0, 1.0)
    for weights in ([1.0], [1.0, 0.0], [1.0, float("nan")], "even", {"goood": 1.0}, 3):
        with pytest.raises(ConfigError, match="class_weights"):
            checked_weights(weights, CLASSES, ())
