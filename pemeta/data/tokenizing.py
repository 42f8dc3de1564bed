"""Telling one tokenizer from another."""

from __future__ import annotations

import hashlib

from transformers import PreTrainedTokenizerBase

from pemeta.errors import ModelError

PROBES = ("Anna Müller met Ωμέγα in São Paulo.", "don't  stop: 3,5 % of x_1", "東京都 и Москва\tİstanbul", "ﬁn e\u0301")
"""Texts on which tokenizers of equal vocabulary differ: in case, accents, spaces, normal forms and special tokens."""


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Twelve hexadecimal digits that change when a word piece, its index, or how a text is cut into pieces does.

    Of what the tokenizer does and not of its files, which another version of the ``tokenizers`` package writes
    otherwise.
    """
    sha = hashlib.sha256()
    for piece, index in sorted(tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0])):
        sha.update(f"{index}\t{piece}\n".encode(errors="surrogatepass"))
    for probe in PROBES:
        try:
            sha.update(f"{tokenizer(probe, verbose=False)['input_ids']}\n".encode())
        except Exception as error:  # a vocabulary without an unknown token takes only what is in it
            sha.update(f"{type(error).__name__}\n".encode())
    return sha.hexdigest()[:12]


def check_tokenizer(what: str, expected: str | None, found: str | None) -> None:
    """Refuse another tokenizer than the one that data was encoded with, where both are known.

    Args:
        what: was made with ``expected``, such as ``task 'nl'``.
        expected: digest of its tokenizer.
        found: digest of the one that is given.

    Raises:
        ModelError: they differ.
    """
    if expected is not None and found is not None and expected != found:
        raise ModelError(
            f"{what} was made with another tokenizer: its digest is {expected}, and that of the one given is {found}; "
            "give the tokenizer that was saved beside the model, with its files unchanged"
        )
