"""Running text in blocks: nothing is lost or changed, and each token after a block's first is predicted once."""

import pytest
import torch
from chat_templates import byte_tokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from pemeta import encode_language_model
from pemeta.data.blocks import best_fit
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


# Document masks


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=8), st.integers(2, 12))
def test_documents_stay_whole_unless_they_are_longer_than_a_block(ending, texts, length):
    encoded = encode_language_model(texts, ending, length, document_masks=True)
    whole = [torch.tensor([*ending(one, add_special_tokens=False)["input_ids"], ending.eos_token_id]) for one in texts]
    expected = sorted(part.tolist() for one in whole for part in one.split(length) if len(part) > 1)
    found = [
        part.tolist() for ids, own in zip(encoded.input_ids, encoded.documents, strict=True) for part in ids.split(own)
    ]
    assert sorted(found) == expected
    assert all(len(ids) <= length for ids in encoded.input_ids)
    # No two blocks would fit into one.
    sizes = sorted(map(len, encoded.input_ids))
    assert len(sizes) < 2 or sizes[0] + sizes[1] > length


def test_nothing_predicts_the_first_token_of_a_document(ending):
    encoded = encode_language_model(TEXTS, ending, 24, document_masks=True)
    (sizes,) = encoded.documents
    batch = encoded.batch([0])
    starts = [0, sizes[0], sizes[0] + sizes[1]]
    assert (batch["labels"][0] == IGNORE_INDEX).nonzero().flatten().tolist() == starts
    assert batch["packed.documents"][0].tolist() == [i for i, size in enumerate(sizes) for _ in range(size)]
    row = list(range(sum(sizes)))
    assert encoded.decode(row, 0) == [value for value in row if value not in starts]
    joined = encode_language_model(TEXTS, ending, 24)
    assert joined.input_ids[0].tolist() == encoded.input_ids[0].tolist()
    assert joined.digest() != encoded.digest()
    assert len(encode_language_model([], ending, document_masks=True)) == 0


def test_a_document_begins_with_bos_where_the_tokenizer_puts_one():
    with_bos, without = byte_tokenizer(bos=True), byte_tokenizer()
    for tokenizer, begin in ((with_bos, "<s>"), (without, "")):
        encoded = encode_language_model(["ab", "cde"], tokenizer, document_masks=True)
        assert tokenizer.decode(encoded.input_ids[0]) == f"{begin}ab</s>{begin}cde</s>"


def test_best_fit_is_never_worse_than_a_row_each():
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(1, 20, (300,), generator=generator).tolist()
    rows = best_fit(sizes, 32)
    assert sorted(i for row in rows for i in row) == list(range(300))
    assert max(sum(sizes[i] for i in row) for row in rows) <= 32
    assert len(rows) <= 1.05 * sum(sizes) / 32 + 1
