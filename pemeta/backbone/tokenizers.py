"""Telling one tokenizer from another."""

from __future__ import annotations

import hashlib

from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from pemeta.backbone.loading import load_model_config
from pemeta.errors import ModelError
from pemeta.utils.hub import explained, quiet

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


def load_tokenizer(path: str, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """A model's tokenizer; its ``model_max_length`` is at most what the model has positions for.

    Args:
        path: a folder or a name on the Hugging Face hub.
        trust_remote_code: run Python code that comes with it, if its class is not one of transformers'.

    Raises:
        ModelError: it cannot be loaded, or is not this model's.
    """
    with explained("a tokenizer", path, "give a folder with a model's and its tokenizer's files"), quiet():
        # The configuration first: a hub that cannot be reached is then waited for once.
        config = load_model_config(path, trust_remote_code)
        return _fitted(AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code), config)


def _fitted(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> PreTrainedTokenizerBase:
    """The tokenizer with a limit that the model can take; not every tokenizer's files tell one."""
    pieces = max(tokenizer.get_vocab().values(), default=-1) + 1
    size = getattr(config, "vocab_size", pieces)
    if not len(tokenizer.all_special_ids) < pieces <= size:
        raise ValueError(f"its {pieces} word pieces do not fit a model with {size}")
    longest = max_positions(config)
    if longest is not None:
        tokenizer.model_max_length = min(tokenizer.model_max_length, longest)
    return tokenizer


def max_positions(config: PreTrainedConfig) -> int | None:
    """Word pieces that a model has positions for; None where it has no limit."""
    found = getattr(config, "max_position_embeddings", None)
    if not isinstance(found, int) or found <= 0:
        return None
    # RoBERTa and its kin count positions from behind the padding index, and have two more than a round number.
    counted = getattr(config, "pad_token_id", None)
    return found - (counted + 1 if isinstance(counted, int) and found % 8 == counted + 1 else 0)
