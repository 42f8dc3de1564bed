"""Running text in blocks: nothing is lost or changed, and each token after a block's first is predicted once."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from pemeta import encode_language_model
from pemeta.errors import ConfigError, DataError
from pemeta.typing import IGNORE_INDEX

TEXTS = ["Anna met Otto", "met near Rome", "Otto"]


@pytest.fixture(scope="module")
def ending(tokenizer):
    """The same tokenizer with an end-of-sequence token."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, model_max_length=32, eos_token="[SEP]", pad_token="[PAD]"
    )


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=6), st.integers(2, 32))
def test_the_blocks_are_the_text(ending, texts, length):
    encoded = encode_language_model(texts, ending, length)
    running = []
    for text in texts:
        running += [*ending(text, add_special_tokens=False)["input_ids"], ending.eos_token_id]
    found = [i for ids in encoded.input_ids for i in ids.tolist()]
    assert running[: len(found)] == found
    assert len(running) - len(found) == (len(running) % length == 1)  # a single remaining token
    assert all(len(ids) == length for ids in encoded.input_ids[:-1])
    assert encoded.num_truncated == 0


def test_without_an_end_token_the_texts_follow_each_other(tokenizer):
    encoded = encode_language_model(TEXTS, tokenizer, 32)
    tokens = [i for text in TEXTS for i in tokenizer(text, add_special_tokens=False)["input_ids"]]
    assert encoded.input_ids[0].tolist() == tokens
    assert encoded.vocab_size == len(encoded.outputs) == len(tokenizer)


def test_a_batch_predicts_all_but_padding(ending):
    encoded = encode_language_model(TEXTS, ending, 8)
    last = len(encoded) - 1
    assert len(encoded.input_ids[last]) < 8
    batch = encoded.batch([last, 0])
    shown = batch["attention_mask"] == 1
    assert torch.equal(batch["labels"][shown], batch["input_ids"][shown])
    assert (batch["labels"][~shown] == IGNORE_INDEX).all()
    row = torch.zeros(8)
    assert len(encoded.decode(row.tolist(), last)) == len(encoded.input_ids[last]) - 1
    assert [i for batch in encoded.by_length(1) for i in batch] == [0, last]


def test_the_digest_changes_with_the_text_and_the_blocks(ending):
    digests = {encode_language_model(t, ending, n).digest() for t, n in ((TEXTS, 8), (TEXTS[::-1], 8), (TEXTS, 9))}
    assert len(digests) == 3


def test_wrong_input(ending):
    with pytest.raises(DataError, match="text 2 of 3 is empty; remove it"):
        encode_language_model(["met", "  ", "met"], ending)
    for length in (1, 33):
        with pytest.raises(ConfigError, match=f"block_length must be from 2 to the model's 32; found {length}"):
            encode_language_model(TEXTS, ending, length)
    assert len(encode_language_model([], ending)) == 0
