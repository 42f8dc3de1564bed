"""Masked examples: what is hidden, what is to be predicted, and that it depends on seed and number alone."""

import copy

import pytest
import torch

from pemeta import EncodedMasked, encode_masked_language_model
from pemeta.errors import ConfigError, DataError

TEXTS = [f"Anna met Ben and {word} in Paris ." for word in ("Carl", "Dora", "Emil")] * 40


def original(tokenizer, texts, max_length):
    """The tokens of each text, in pieces with special tokens, by the tokenizer's own truncation."""
    return [
        torch.tensor(ids)
        for ids in tokenizer(texts, truncation=True, max_length=max_length, return_overflowing_tokens=True)["input_ids"]
    ]


def restored(examples):
    """The tokens with the labels in place of what hides them."""
    return [torch.where(y == -100, x, y) for x, y in zip(examples.input_ids, examples.labels, strict=True)]


def test_labels_are_the_hidden_tokens_and_nothing_else_changes(tokenizer):
    examples = encode_masked_language_model(TEXTS, tokenizer, 8)
    expected = original(tokenizer, TEXTS, 8)
    assert len(examples) == len(expected)
    assert all(map(torch.equal, restored(examples), expected))
    special = torch.tensor(tokenizer.all_special_ids)
    for ids, labels in zip(expected, examples.labels, strict=True):
        ordinary = int((~torch.isin(ids, special)).sum())
        assert int((labels != -100).sum()) == max(1, round(0.15 * ordinary))
        assert not torch.isin(labels[labels != -100], special).any()


def test_of_the_hidden_tokens_most_are_masked_some_drawn_and_some_stay(tokenizer):
    examples = encode_masked_language_model(TEXTS, tokenizer, share=0.5, copies=10)
    shown, gold = torch.cat(examples.input_ids), torch.cat(examples.labels)
    shown, gold = shown[gold != -100], gold[gold != -100]
    count = len(gold)
    assert count > 3000
    masked, stays = (shown == tokenizer.mask_token_id).sum() / count, (shown == gold).sum() / count
    assert abs(float(masked) - 0.8) < 4 * (0.16 / count) ** 0.5  # four standard errors
    by_chance = 0.1 / (len(tokenizer) - len(tokenizer.all_special_ids))
    assert abs(float(stays) - 0.1 - by_chance) < 4 * (0.09 / count) ** 0.5
    rest = shown[(shown != tokenizer.mask_token_id) & (shown != gold)]
    assert len(rest.unique()) > 20
    assert not torch.isin(rest, torch.tensor(tokenizer.all_special_ids)).any()


def test_the_draw_depends_on_seed_and_number_alone(tokenizer):
    one, two, other = (encode_masked_language_model(TEXTS[:n], tokenizer, seed=s) for n, s in ((9, 0), (5, 0), (9, 1)))
    assert one.digest() == encode_masked_language_model(TEXTS[:9], tokenizer).digest() != other.digest()
    assert all(map(torch.equal, one.input_ids[:5], two.input_ids))
    twice = encode_masked_language_model(TEXTS[:9], tokenizer, copies=2)
    assert all(map(torch.equal, twice.input_ids[:9], one.input_ids))
    assert not all(map(torch.equal, twice.input_ids[9:], one.input_ids))
    assert all(map(torch.equal, restored(twice)[9:], restored(one)))


def test_batches_and_scores(tokenizer):
    examples = encode_masked_language_model(TEXTS[:4], tokenizer)
    batch = examples.batch([0, 2])
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    assert batch["labels"].shape == batch["input_ids"].shape
    row = torch.arange(20.0)
    assert examples.decode(row.tolist(), 0) == row[: len(examples.labels[0])][examples.labels[0] != -100].tolist()
    assert examples.scores([[-1.0], [-3.0]]).loss == 2.0
    assert examples.kind == "masked_lm"
    assert isinstance(examples, EncodedMasked)


def test_what_is_refused(tokenizer):
    with pytest.raises(DataError, match="text 2 of 2 has no token in this vocabulary but special ones; remove it: "):
        encode_masked_language_model(["Anna", tokenizer.unk_token], tokenizer)
    with pytest.raises(DataError, match="empty"):
        encode_masked_language_model([""], tokenizer)
    with pytest.raises(ConfigError, match="max_length must be from 3 to"):
        encode_masked_language_model(TEXTS, tokenizer, 2)
    assert len(encode_masked_language_model([], tokenizer)) == 0


def test_a_tokenizer_without_a_mask_is_refused(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.mask_token = None
    with pytest.raises(ConfigError, match=r"needs a tokenizer with a mask token; found .* without one"):
        encode_masked_language_model(TEXTS, tokenizer)
