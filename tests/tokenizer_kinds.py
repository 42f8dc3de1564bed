"""Small tokenizers of the kinds that pretrained models come with, trained on a few sentences."""

from __future__ import annotations

from functools import cache

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "Angela Merkel visited Bergen in 1984, and Tuva reads there.",
    "Tuva reads in Bergen and works for Fjord Data (since 2008).",
    "Don't say: naïve Ελλάδα, Москва 3.5 % of x_1",
    "the town of Bergen is wet",
] * 20
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def _bpe(**options) -> tuple[models.BPE, trainers.BpeTrainer]:
    letters = sorted({"▁", *"".join(CORPUS)})
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=SPECIAL, initial_alphabet=letters, show_progress=False, **options
    )
    return models.BPE(unk_token="<unk>", **options), trainer


def _byte_bpe() -> tuple[models.BPE, trainers.BpeTrainer]:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return models.BPE(), trainers.BpeTrainer(
        vocab_size=450, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )


def _unigram() -> tuple[models.Unigram, trainers.UnigramTrainer]:
    return models.Unigram(), trainers.UnigramTrainer(
        vocab_size=150, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
    )


def _word_piece() -> tuple[models.WordPiece, trainers.WordPieceTrainer]:
    return models.WordPiece(unk_token="<unk>"), trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=SPECIAL, show_progress=False
    )


def _metaspace(scheme: str, split: bool = True) -> pre_tokenizers.Metaspace:
    return pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)


def _parts(*parts):
    return pre_tokenizers.Sequence(list(parts))


WORDS = pre_tokenizers.Split("▁", "merged_with_next")
# Model and trainer, normalizer, pre-tokenizer, and that of training, where SentencePiece had kept words apart.
KINDS = {
    "GPT-2": lambda: (_byte_bpe(), None, pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "GPT-2 with a space before": lambda: (_byte_bpe(), None, pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "Llama 3": lambda: (_byte_bpe(), None, _parts(pre_tokenizers.Split(Regex(LLAMA_3), "isolated"), BYTES)),
    "Qwen": lambda: (
        _byte_bpe(),
        normalizers.NFC(),
        _parts(pre_tokenizers.Split(Regex(LLAMA_3.replace("{1,3}", "")), "isolated"), BYTES),
    ),
    "Falcon": lambda: (
        _byte_bpe(),
        None,
        _parts(
            pre_tokenizers.Punctuation("contiguous"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
            pre_tokenizers.Digits(individual_digits=False),
        ),
    ),
    "metaspace always": lambda: (_bpe(), None, _metaspace("always")),
    "metaspace first": lambda: (_bpe(), None, _metaspace("first")),
    "metaspace never": lambda: (_bpe(), None, _metaspace("never")),
    "Llama 2": lambda: (_bpe(), None, _metaspace("first", split=False), _metaspace("first")),
    "Llama": lambda: (
        _bpe(),
        normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        None,
        WORDS,
    ),
    "Gemma": lambda: (_bpe(), normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous"), WORDS),
    "T5": lambda: (
        _unigram(),
        normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]),
        _metaspace("always"),
    ),
    "XLM-R": lambda: (_unigram(), normalizers.NFKC(), _parts(pre_tokenizers.WhitespaceSplit(), _metaspace("always"))),
    "a unigram without a space before": lambda: (
        _unigram(),
        normalizers.Sequence([normalizers.Strip(), normalizers.NFKC()]),
        _metaspace("never"),
    ),
    "BERT": lambda: (_word_piece(), normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()),
    "WordPiece": lambda: (_word_piece(), None, pre_tokenizers.WhitespaceSplit()),
    "CLIP": lambda: (_bpe(end_of_word_suffix="</w>"), normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()),
    "characters": lambda: (_bpe(), None, pre_tokenizers.Split(Regex("."), "isolated")),
}
NEED_TEXT = {"GPT-2", "Llama 3", "Qwen", "Falcon", "metaspace never", "Gemma", "a unigram without a space before"} | {
    "characters"
}
"""Kinds that see spaces between words in running text only."""


@cache
def tokenizer_of(kind: str, max_length: int = 64) -> PreTrainedTokenizerFast:
    """A tokenizer of one kind, with a special token before and after each text."""
    (model, trainer), normalizer, pre_tokenizer, *training = KINDS[kind]()
    inner = Tokenizer(model)
    if normalizer is not None:
        inner.normalizer = normalizer
    inner.pre_tokenizer = training[0] if training else pre_tokenizer
    inner.train_from_iterator(CORPUS, trainer)
    inner.pre_tokenizer = pre_tokenizer
    return finished(inner, max_length)


def finished(inner: Tokenizer, max_length: int = 64) -> PreTrainedTokenizerFast:
    ends = [(token, inner.token_to_id(token)) for token in ("<s>", "</s>")]
    template = processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=ends)
    byte_level = isinstance(inner.pre_tokenizer, pre_tokenizers.ByteLevel)
    # As RoBERTa's and GPT-2's post-processors do, offsets leave out the space before a word.
    trim = [processors.ByteLevel(trim_offsets=True)] if byte_level else []
    inner.post_processor = processors.Sequence([*trim, template])
    inner.decoder = decoders.ByteLevel() if byte_level else decoders.Metaspace()
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=max_length, **names)
