"""Loading tokenizers, and telling them apart by a digest of their behaviour."""

from __future__ import annotations

import hashlib

from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from pemeta.backbone.loading import load_model_config
from pemeta.errors import ModelError, counted
from pemeta.utils.hub import explained, quiet
from pemeta.utils.signatures import checked

PROBES = ("Anna Müller met Ωμέγα in São Paulo.", "don't  stop: 3,5 % of x_1", "東京都 и Москва\tİstanbul", "ﬁn e\u0301")
"""Texts that tell tokenizers of equal vocabulary apart: case, accents, spaces, normal forms and special tokens."""


@checked()
def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """A digest of a tokenizer's vocabulary and of how it splits texts, as twelve hexadecimal digits.

    The digest covers the tokenizer's behaviour and not its files, which differ between versions of the ``tokenizers``
    package.
    """
    sha = hashlib.sha256()
    for token, index in sorted(tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0])):
        sha.update(f"{index}\t{token}\n".encode(errors="surrogatepass"))
    for probe in PROBES:
        try:
            sha.update(f"{tokenizer(probe, verbose=False)['input_ids']}\n".encode())
        except Exception as error:  # a vocabulary without an unknown token rejects other words
            sha.update(f"{type(error).__name__}\n".encode())
    return sha.hexdigest()[:12]


def check_tokenizer(what: str, expected: str | None, found: str | None) -> None:
    """Refuse a tokenizer other than the one that data was encoded with, if both are known.

    Args:
        what: What was made with the expected tokenizer, such as ``task 'nl'``.
        expected: Digest of the expected tokenizer.
        found: Digest of the given tokenizer.

    Raises:
        ModelError: The digests differ.
    """
    if expected is not None and found is not None and expected != found:
        raise ModelError(
            f"{what} was made with another tokenizer: its digest is {expected}, but that of the given one is {found}; "
            "use the tokenizer that was saved with the model, with its files unchanged"
        )


def load_tokenizer(path: str, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """A model's tokenizer; its ``model_max_length`` is at most the model's number of positions.

    Args:
        path: Folder, or name on the Hugging Face hub.
        trust_remote_code: Run Python code that comes with the tokenizer, if its class is not part of transformers.

    Raises:
        ModelError: The tokenizer cannot be loaded, or does not belong to this model.
    """
    with explained("a tokenizer", path, "give a folder with the files of a model and its tokenizer"), quiet():
        # The configuration first, so that an unreachable hub is waited for only once.
        config = load_model_config(path, trust_remote_code)
        return _fitted(AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code), config)


def _fitted(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> PreTrainedTokenizerBase:
    """The tokenizer, limited to the model's number of positions; not every tokenizer's files hold a limit."""
    tokens = max(tokenizer.get_vocab().values(), default=-1) + 1
    size = getattr(config, "vocab_size", tokens)
    if not len(tokenizer.all_special_ids) < tokens <= size:
        raise ValueError(f"its vocabulary of {counted(tokens, 'token')} does not fit the model's vocabulary of {size}")
    longest = max_positions(config)
    if longest is not None:
        tokenizer.model_max_length = min(tokenizer.model_max_length, longest)
    return tokenizer


def max_positions(config: PreTrainedConfig) -> int | None:
    """The number of positions of a model, or None if it has no limit."""
    found = getattr(config, "max_position_embeddings", None)
    if not isinstance(found, int) or found <= 0:
        return None
    # RoBERTa and its relatives count positions from the one after the padding index, so they have two more than usual.
    padding = getattr(config, "pad_token_id", None)
    return found - (padding + 1 if isinstance(padding, int) and found % 8 == padding + 1 else 0)
