"""Encoding: every label is on its word's first token, and nothing is lost except counted truncation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from pemeta.data.conll import read_conll_corpus
from pemeta.data.encoding import Encoded, encode
from pemeta.data.sentences import LabelSet, Sentence
from pemeta.errors import ConfigError, DataError, ModelError
from pemeta.typing import IGNORE_INDEX

LABELS = LabelSet(("PER", "ORG", "LOC"))
ZERO_WIDTH = "\u200b"


def sentence(*pairs: str) -> Sentence:
    """A sentence from words with optional tags, ``sentence("Ada/B-PER", "slept")``; the default tag is ``O``."""
    split = [pair.partition("/") for pair in pairs]
    return Sentence(tuple(word for word, _, _ in split), tuple(tag or "O" for _, _, tag in split))


def well_formed(words: tuple[str, ...], tags: tuple[str, ...]) -> Sentence:
    """A sentence in which each entity starts with ``B-``."""
    pairs = zip(("O", *tags), tags, strict=False)
    return Sentence(
        words, tuple(f"B{tag[1:]}" if tag[0] == "I" and tag[2:] != last[2:] else tag for last, tag in pairs)
    )


@pytest.fixture(scope="session")
def byte_tokenizer(conll_dir):
    """A byte-level BPE tokenizer like RoBERTa's: a Cyrillic letter is two tokens, and every word has a token."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<pad>", "<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(["Anna met Otto"], trainer)
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", inner.token_to_id("<s>")), ("</s>", inner.token_to_id("</s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, model_max_length=64, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def check(encoded: Encoded, sentences: list[Sentence], tokenizer, max_length: int) -> None:
    """Compare with the oracle: words tokenized one by one, concatenated, and truncated by hand."""
    truncated = cut_words = 0
    for i, original in enumerate(sentences):
        expected_ids: list[int] = []
        expected_labels: list[int] = []
        first: dict[int, int] = {}
        for number, (word, tag) in enumerate(zip(original.words, original.tags, strict=True)):
            alone = tokenizer([[word]], is_split_into_words=True, add_special_tokens=False)["input_ids"][0]
            if alone:
                first[number] = 1 + len(expected_ids)
            expected_ids += alone
            expected_labels += [LABELS.index[tag], *[IGNORE_INDEX] * (len(alone) - 1)] if alone else []
        room = max_length - 2
        if len(expected_ids) > room:
            truncated += 1
            first = {word: position for word, position in first.items() if position <= room}
            cut_words += len(original.words) - 1 - max(first)
        assert encoded.input_ids[i][1:-1].tolist() == expected_ids[:room]
        assert encoded.label_ids[i].tolist() == [IGNORE_INDEX, *expected_labels[:room], IGNORE_INDEX]
        assert encoded.first_tokens[i] == first
        assert encoded.sentences[i] is original
    assert encoded.num_truncated == truncated
    assert encoded.num_cut_words == cut_words


words = st.one_of(
    st.sampled_from(
        ["Anna", "Otto", "Globex", "Осло", "неар", "met", ZERO_WIDTH, "東京都", "x.y-z", "a" * 150, "[SEP]"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
)
tags = st.sampled_from(LABELS.tags)
sentences_of_words = st.lists(
    st.lists(st.tuples(words, tags), min_size=1, max_size=14).map(lambda s: well_formed(*zip(*s, strict=True))),
    min_size=1,
    max_size=4,
)
property_test = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@property_test
@given(sentences_of_words, st.integers(3, 32))
def test_every_label_is_on_its_word_and_nothing_is_lost_uncounted(tokenizer, sentences, max_length):
    check(encode(sentences, LABELS, tokenizer, max_length), sentences, tokenizer, max_length)


@property_test
@given(sentences_of_words, st.integers(3, 64))
def test_the_same_with_bytes_as_tokens(byte_tokenizer, sentences, max_length):
    check(encode(sentences, LABELS, byte_tokenizer, max_length), sentences, byte_tokenizer, max_length)


def test_the_first_token_of_each_word_carries_the_label_and_special_tokens_none(tokenizer):
    encoded = encode([sentence("Globexmet/B-ORG", "Otto/I-ORG", "met")], LABELS, tokenizer, 32)
    tokens = tokenizer.convert_ids_to_tokens(encoded.input_ids[0].tolist())
    labelled = [token for token, label in zip(tokens, encoded.label_ids[0].tolist(), strict=True) if label >= 0]
    assert tokens[0] == "[CLS]"
    assert tokens[-1] == "[SEP]"
    assert len(labelled) == 3
    assert labelled[0].startswith("G")
    assert not any(token.startswith("##") for token in labelled)
    assert encoded.label_ids[0][encoded.label_ids[0] >= 0].tolist() == [3, 4, 0]


def test_a_word_without_tokens_does_not_shift_the_labels_of_the_others(tokenizer):
    encoded = encode([sentence("Anna/B-PER", ZERO_WIDTH, "Rome/B-LOC", "met")], LABELS, tokenizer, 32)
    assert set(encoded.first_tokens[0]) == {0, 2, 3}
    positions = encoded.first_tokens[0]
    assert [int(encoded.label_ids[0][positions[word]]) for word in (0, 2, 3)] == [1, 5, 0]
    assert (encoded.num_truncated, encoded.num_cut_words) == (0, 0)


@pytest.mark.parametrize(("length", "truncated", "cut"), [(30, 0, 0), (31, 1, 1), (32, 1, 2), (300, 1, 270)])
def test_truncation_is_counted_in_sentences_and_words_however_many_chunks_overflow(tokenizer, length, truncated, cut):
    # "met" is one token; 32 tokens hold 30 of them between [CLS] and [SEP]. 300 words overflow into nine more chunks.
    assert len(tokenizer.tokenize("met")) == 1
    short = sentence("met")
    encoded = encode([short, sentence(*["met"] * length), short], LABELS, tokenizer, 32)
    assert (encoded.num_truncated, encoded.num_cut_words) == (truncated, cut)
    assert len(encoded) == 3
    assert [len(ids) for ids in encoded.input_ids] == [3, min(length + 2, 32), 3]
    assert len(encoded.sentences[1].tags) == length  # gold tags stay complete, so that cut words are scored


def test_a_cut_within_the_last_word_cuts_no_word(tokenizer):
    long = sentence("met", "x" * 40)
    assert len(tokenizer.tokenize("x" * 40)) > 10
    encoded = encode([long], LABELS, tokenizer, 8)
    assert (encoded.num_truncated, encoded.num_cut_words) == (1, 0)
    assert set(encoded.first_tokens[0]) == {0, 1}


def test_multi_byte_scripts_are_truncated_by_tokens_and_not_by_letters(byte_tokenizer):
    # A Cyrillic letter is two bytes, so "мет" is seven tokens with its space: 62 are eight words and six more tokens.
    encoded = encode([sentence(*["мет/B-LOC"] * 12)], LABELS, byte_tokenizer, 64)
    assert (encoded.num_truncated, encoded.num_cut_words) == (1, 3)
    assert (encoded.label_ids[0] == LABELS.index["B-LOC"]).sum() == 9


def test_a_batch_is_padded_and_padding_is_neither_attended_nor_labelled(tokenizer):
    encoded = encode([sentence("met"), sentence("Anna/B-PER", "met", "Otto/B-PER")], LABELS, tokenizer, 32)
    batch = encoded.batch([1, 0])
    lengths = [len(encoded.input_ids[1]), len(encoded.input_ids[0])]
    assert {tensor.shape for tensor in batch.values()} == {(2, max(lengths))}
    assert batch["attention_mask"].sum(1).tolist() == lengths
    padding = batch["attention_mask"] == 0
    assert (batch["input_ids"][padding] == tokenizer.pad_token_id).all()
    assert (batch["labels"][padding] == IGNORE_INDEX).all()
    assert torch.equal(batch["input_ids"][0], encoded.input_ids[1])
    assert torch.equal(batch["labels"][1, :3], encoded.label_ids[0])


def test_batches_by_length_hold_every_sentence_once(conll_dir, tokenizer):
    corpus = read_conll_corpus(conll_dir, "aa", LABELS)
    encoded = encode(corpus.train, LABELS, tokenizer, 32)
    batches = list(encoded.by_length(5))
    assert sorted(i for batch in batches for i in batch) == list(range(24))
    lengths = [len(encoded.input_ids[i]) for batch in batches for i in batch]
    assert lengths == sorted(lengths, reverse=True)


def test_no_sentences_give_no_batches(tokenizer):
    encoded = encode([], LABELS, tokenizer, 32)
    assert len(encoded) == 0
    assert list(encoded.by_length(4)) == []


def test_the_models_limit_is_the_default_if_it_is_lower(tokenizer):
    long = Sentence(("met",) * 200, ("O",) * 200)
    assert tokenizer.model_max_length == 32
    assert len(encode([long], LABELS, tokenizer).input_ids[0]) == 32


@pytest.mark.parametrize("max_length", [2, 33])
def test_a_length_that_the_model_does_not_take_is_refused(tokenizer, max_length):
    with pytest.raises(ConfigError, match=f"from 3 to the model's 32; found {max_length}"):
        encode([sentence("met")], LABELS, tokenizer, max_length)


def test_a_tag_that_is_not_in_the_label_set_is_refused_with_the_sentence(tokenizer):
    with pytest.raises(DataError, match=r"unknown tag 'B-ART'.*in the sentence 'Mona Lisa'"):
        encode([sentence("Mona/B-ART", "Lisa")], LABELS, tokenizer, 32)


def test_a_tokenizer_that_cannot_align_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(ModelError, match="Slow does not align tokens with words; use a fast tokenizer"):
        encode([sentence("met")], LABELS, Slow(), 32)  # type: ignore[arg-type]
