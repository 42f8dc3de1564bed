"""Words as the tokens of running text.

Data comes in words, but a model knows running text, where a byte-level tokenizer such as RoBERTa's or Llama's marks a
word by the space before it. Given the words alone, such a tokenizer finds no spaces and takes a sentence for one long
word. It is therefore given the text, and its tokens are assigned to words by their offsets. Other tokenizers
(WordPiece, SentencePiece) mark the beginnings of words themselves, and are given the words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, product
from typing import Any

from transformers import PreTrainedTokenizerBase

from pemeta.utils.signatures import checked

_SPACE = re.compile(r"[^\S\u00a0\u2007\u202f]+")  # whitespace at which a line may be broken
_PROBES = ("x", "1", ".")
_SPACELESS = ("THAI ", "LAO ", "KHMER ", "MYANMAR ", "TIBETAN ", "TAI ", "NEW TAI ", "JAVANESE ", "BALINESE ")
"""How the names of characters begin in scripts without spaces whose letters are not wide, as those of Chinese are."""


@dataclass(frozen=True)
class WordTokens:
    """The tokens of one sentence.

    Attributes:
        ids: Token ids, special tokens included.
        words: For each token, the index of the word that it is part of; None for special tokens and spaces, and for
            the rest of a word whose beginning was cut off.
        inner: Positions from the first token of the text to the last one; special tokens stand before and after them.
        cut: Whether the sentence was truncated.
    """

    ids: list[int]
    words: list[int | None]
    inner: range
    cut: bool

    def first_tokens(self) -> dict[int, int]:
        """A mapping of word indices to the positions of their first tokens, without words that have none."""
        first: dict[int, int] = {}
        for position, word in enumerate(self.words):
            if word is not None:
                first.setdefault(word, position)
        return first


@checked(tokenizer=None)  # anything that acts as one
def tokenize_words(
    sentences: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, max_length: int | None = None
) -> list[WordTokens]:
    """The tokens that the words of each sentence have in running text.

    A tokenizer that sees spaces only in running text is given :func:`running_text`. All others are given the words,
    which gives the same tokens, except next to added tokens and for words that hold the tokenizer's sign of a space.
    No token belongs to two words: where running text has such a one, as between letters of a script without spaces,
    each word of the sentence is tokenized by itself, with the space before it, if any.

    Args:
        sentences: One or more words each.
        tokenizer: A fast tokenizer.
        max_length: Most tokens per sentence, special tokens included; by default there is no limit.
    """
    if not needs_running_text(tokenizer):
        encodings = _encodings([list(words) for words in sentences], tokenizer, max_length)
        return [_tokens(encoding, lambda one: one.word_ids, tokenizer) for encoding in encodings]
    found: dict[int, WordTokens] = {}
    left = list(range(len(sentences)))
    for apart in (False, True):
        texts = [_Text.of(sentences[i], apart) for i in left]
        encodings = _encodings([text.parts for text in texts], tokenizer, max_length)
        for i, text, encoding in zip(left, texts, encodings, strict=True):
            if text.words_of(encoding) is not None:
                found[i] = _tokens(encoding, text.words_of, tokenizer)
        left = [i for i in left if i not in found]
    return [found[i] for i in range(len(sentences))]


def needs_running_text(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer sees other characters in running text than in its words, namely the spaces between them.

    This looks at its normalizer and pre-tokenizer only, so it does not depend on the vocabulary.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return False

    def seen(text: str) -> str:
        if backend.normalizer is not None:
            text = backend.normalizer.normalize_str(text)
        if backend.pre_tokenizer is None:
            return text
        return "".join(part for part, _ in backend.pre_tokenizer.pre_tokenize_str(text))

    return any(seen(f"{left} {right}") != seen(left) + seen(right) for left, right in product(_PROBES, repeat=2))


@checked()
def split_words(text: str) -> tuple[str, ...]:
    """The words of a text, which are separated by whitespace; a no-break space is part of its word."""
    return tuple(word for word in _SPACE.split(text) if word and not word.isspace())


@checked()
def running_text(words: Sequence[str]) -> str:
    """The text of a sentence: its words with a space before each, except where its language has none.

    A language is taken to be written without spaces if most words with a letter are of such a script (Chinese,
    Japanese, Thai, Lao, Khmer, Burmese, Tibetan ...). There, only words of other scripts have a space between them. In
    other languages only two words of such a script have none. A sentence with such a letter has no space at all if each
    word is a single character.

    >>> running_text(["Angela", "Merkel", "visited", "東", "京"])
    'Angela Merkel visited 東京'
    >>> running_text(["東京", "で", "Angela", "Merkel", "と", "会う", "。"])
    '東京でAngela Merkelと会う。'
    """
    return "".join(gap + word for gap, word in zip(_gaps(words), words, strict=True))


def _gaps(words: Sequence[str]) -> list[str]:
    """What stands before each word in running text: a space or nothing."""
    letters = [next((letter for letter in word if letter.isalpha()), "") for word in words]
    kinds = [_is_spaceless(letter) for letter in letters if letter]
    characters = any(kinds) and all(len(word) == 1 for word in words)
    spaceless = 2 * sum(kinds) > len(kinds)
    gaps = [""] * min(1, len(words))
    for left, right in pairwise(words):
        sides = _is_spaceless(left[-1:]), _is_spaceless(right[:1])
        joined = characters or (any(sides) if spaceless else all(sides))
        gaps.append("" if joined else " ")
    return gaps


@cache
def _is_spaceless(letter: str) -> bool:
    """Whether a character is of a script that is written without spaces, or of that script's punctuation."""
    name = unicodedata.name(letter, "") if letter else ""
    if not name or "HANGUL" in name:
        return False
    wide = unicodedata.east_asian_width(letter) in "FW" and unicodedata.category(letter)[0] != "S"  # not an emoji
    return wide or name.startswith(("HALFWIDTH", *_SPACELESS))


@dataclass(frozen=True)
class _Text:
    """Running text in parts that no token may leave.

    Attributes:
        parts: The text of each part.
        owners: For each character of each part, the index of its word; None for a space between words.
    """

    parts: list[str]
    owners: list[list[int | None]]

    @classmethod
    def of(cls, words: Sequence[str], apart: bool) -> _Text:
        """The running text of words; ``apart`` makes each word, with the space before it, a part of its own."""
        parts: list[str] = []
        owners: list[list[int | None]] = []
        for number, (gap, word) in enumerate(zip(_gaps(words), words, strict=True)):
            if apart or not gap:  # words without a space between them are apart, as the data says
                parts.append("")
                owners.append([])
            parts[-1] += gap + word
            owners[-1] += [None] * len(gap) + [number] * len(word)
        return cls(parts, owners)

    def words_of(self, encoding: Any) -> list[int | None] | None:
        """For each token the word that it is part of; None in place of all if a token is part of two."""
        words: list[int | None] = []
        for part, (start, end) in zip(encoding.word_ids, encoding.offsets, strict=True):
            own = [] if part is None else [word for word in self.owners[part][start:end] if word is not None]
            if own and own[0] != own[-1]:
                return None
            words.append(own[0] if own else None)
        return words


def _encodings(parts: list[list[str]], tokenizer: PreTrainedTokenizerBase, max_length: int | None) -> Sequence[Any]:
    """The tokenizer's own output for texts in parts."""
    if not parts:
        return []
    options: dict[str, Any] = (
        {"verbose": False} if max_length is None else {"truncation": True, "max_length": max_length}
    )
    found: Any = tokenizer(parts, is_split_into_words=True, **options)
    encodings: Sequence[Any] = found.encodings
    return encodings


def _tokens(
    encoding: Any, words_of: Callable[[Any], list[int | None] | None], tokenizer: PreTrainedTokenizerBase
) -> WordTokens:
    words = words_of(encoding) or []
    inner = [position for position, part in enumerate(encoding.word_ids) if part is not None]
    # The tokenizer keeps the rest of a truncated sentence as overflow.
    if encoding.overflowing and getattr(tokenizer, "truncation_side", "right") == "left":
        gone = {word for rest in encoding.overflowing for word in words_of(rest) or ()}
        words = [None if word in gone else word for word in words]
    span = range(inner[0], inner[-1] + 1) if inner else range(0)
    return WordTokens(encoding.ids, words, span, bool(encoding.overflowing))
