"""Prompts with completions as tokens, of which the completion is learned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from pemeta.data.chat import Scripts
from pemeta.data.completion_tokens import Ends, Tokens, ids_of, tokens_of
from pemeta.data.examples import TokenExamples, checked_length
from pemeta.data.metrics import LanguageModelScores, language_model_scores
from pemeta.data.turns import Completion, Turn, completion_of
from pemeta.errors import ConfigError, DataError, excerpt
from pemeta.typing import IGNORE_INDEX, Batch
from pemeta.utils.signatures import checked
from pemeta.utils.values import known, listed

LongCompletions: TypeAlias = Literal["refuse", "truncate"]
"""What becomes of a completion that is longer than there is room for."""
LENGTH = 1024
"""Most tokens of an example by default, our choice, which is that of TRL."""


@dataclass(frozen=True)
class EncodedCompletions(TokenExamples[list[float], LanguageModelScores]):
    """Encoded prompts with completions, of which the completions are predicted.

    Attributes:
        vocab_size: Number V of tokens in the vocabulary.
        input_ids: Token ids of prompt and completion, one sequence per example.
        label_ids: For each token itself where it is learned, or -100.
        prompt_ids: Token ids of each prompt, with which generation begins.
        completions: Text of each completion, as the data has it.
        pad_id: Token id that pads shorter examples; padding is not predicted.
        end_ids: The tokens that end a completion: EOS, and those with which the chat template ends a turn.
        num_truncated: Number of examples of which something was cut off.
        num_cut_tokens: Number of tokens that were cut off, at the left of prompts and the end of completions.
        num_cut_completions: Number of completions of which the end was cut off.
        num_apart: Number of completions that are tokenised apart from their prompts, because together they would
            share a token.
        trunk: Hidden states (T, D) of each example, if fine-tuning has computed them.
    """

    kind: ClassVar[str] = "causal_lm"
    unit: ClassVar[str] = "completion"
    per_position: ClassVar[bool] = True

    vocab_size: int
    input_ids: tuple[torch.Tensor, ...]
    label_ids: tuple[torch.Tensor, ...]
    prompt_ids: tuple[torch.Tensor, ...]
    completions: tuple[str, ...]
    pad_id: int
    end_ids: tuple[int, ...] = ()
    num_truncated: int = 0
    num_cut_tokens: int = 0
    num_cut_completions: int = 0
    num_apart: int = 0
    trunk: Sequence[torch.Tensor] | None = None

    @property
    def outputs(self) -> range:
        """The ids of all tokens."""
        return range(self.vocab_size)

    def gold(self, index: int) -> torch.Tensor:  # noqa: D102 - inherited
        return self.label_ids[index]

    def tensors(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """``input_ids``, ``attention_mask`` and ``labels`` (B, T); the labels are -100 on prompts and padding."""
        labels = pad_sequence([self.gold(i) for i in indices], batch_first=True, padding_value=IGNORE_INDEX)
        return {**self.inputs(indices), "labels": labels}

    def decode(self, prediction: Sequence[float], index: int) -> list[float]:
        """Log-probabilities of the example's learned tokens, each given those before it."""
        learned = (self.gold(index) != IGNORE_INDEX).tolist()
        return [value for value, counts in zip(prediction, learned, strict=False) if counts]

    def scores(self, decoded: Sequence[Sequence[float]]) -> LanguageModelScores:
        """Mean loss and perplexity per learned token."""
        return language_model_scores(decoded)


class Prompts(NamedTuple):
    """Encoded prompts.

    Attributes:
        input_ids: Token ids, one sequence per prompt.
        num_truncated: Number of prompts of which the beginning was cut off.
    """

    input_ids: tuple[torch.Tensor, ...]
    num_truncated: int


@checked(rows=None, tokenizer=None, max_length=None, template=None, long_completions=None)
def encode_completions(
    rows: Iterable[Mapping[str, Any] | Completion],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None = None,
    *,
    template: str | None = None,
    template_options: Mapping[str, Any] | None = None,
    long_completions: LongCompletions = "refuse",
) -> EncodedCompletions:
    """Encode prompts with completions, of which only the completions are learned.

    A row has a ``prompt`` and a ``completion``, or ``messages``, turns with a ``role`` and a ``content``, as for TRL's
    ``SFTTrainer``. Of messages all turns of the assistant are learned. A prompt and its completion may be turns, too;
    then only the assistant's turns in the completion are.

    Texts are used as they are. Turns become text by the chat template. Where it marks with ``{% generation %}`` what
    the assistant generates, that is learned of messages. Otherwise, a turn begins where the text of the turns before
    it, with the template's generation prompt, ends, which has to be how the whole text begins; and it ends with the
    special token after its content.

    The tokens of a prompt are those that it has alone. A sequence begins with the BOS token, once, where the tokenizer
    or the chat template puts one; a completion ends with EOS, or with the token that ends the template's turns, once.
    Of what is too long, the beginning of the prompt is cut off, after BOS, and counted.

    Args:
        rows: The rows: mappings such as those of a data set of ``datasets``, or :class:`Completion` objects.
        tokenizer: Tokenizer of the backbone.
        max_length: Most tokens of prompt and completion together. By default 1024, our choice, or the model's limit if
            that is less.
        template: None for texts as they are and turns by the tokenizer's chat template; ``chat`` for that template also
            for texts, as a turn of the user and one of the assistant; or a chat template in Jinja, for all rows.
        template_options: Further variables for the template, such as ``{"enable_thinking": False}``.
        long_completions: What becomes of a completion that is longer than there is room for beside one token of its
            prompt: ``refuse``, or ``truncate`` its end, which is counted.

    Raises:
        ConfigError: ``max_length`` is above the model's limit or below 3, there is no template for turns, it is no
            Jinja, or ``long_completions`` is neither of the two.
        DataError: A row has no prompt or completion, or an empty one; a template fails; or a completion is too long.
            The message names the row.
    """
    max_length = _checked_length(max_length, tokenizer)
    known(long_completions, "choice for long completions", get_args(LongCompletions))
    makes = Scripts(tokenizer, _checked_template(template), template_options)
    given = _completions(rows)
    where = [one.where for one in given]
    scripts = [makes.script(one, place) for one, place in zip(given, where, strict=True)]
    found = tokens_of(scripts, [makes.is_plain(one.prompt) for one in given], makes, where)
    return _encoded(given, found, tokenizer, max_length, long_completions)


def _encoded(
    given: Sequence[Completion],
    found: Sequence[Tokens],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    long_completions: LongCompletions,
) -> EncodedCompletions:
    """Completions whose tokens were found, cut to a length."""
    ends = Ends(tokenizer)
    closing = {one.ids[-1] for one in found} & ends.special
    whole = [
        _fitted(tokens, max_length, long_completions, ends, one.where) for tokens, one in zip(found, given, strict=True)
    ]
    tokens = [one for one, _ in whole]
    return EncodedCompletions(
        vocab_size=len(tokenizer),
        input_ids=tuple(torch.tensor(one.ids) for one in tokens),
        label_ids=tuple(torch.tensor(one.labels()) for one in tokens),
        prompt_ids=tuple(torch.tensor(one.ids[: one.opening]) for one in tokens),
        completions=tuple(one.completion_text for one in given),
        pad_id=_padding(tokenizer),
        end_ids=tuple(sorted(closing | ({ends.end} if ends.end is not None else set()))),
        num_truncated=sum(one.cut > 0 for one in tokens),
        num_cut_tokens=sum(one.cut for one in tokens),
        num_cut_completions=sum(ended for _, ended in whole),
        num_apart=sum(one.apart for one in tokens),
    )


@checked(prompts=None, tokenizer=None, max_length=None, template=None)
def encode_prompts(
    prompts: Iterable[str | Sequence[Turn]],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None = None,
    *,
    template: str | None = None,
    template_options: Mapping[str, Any] | None = None,
) -> Prompts:
    """Encode prompts alone, as those that :func:`encode_completions` puts before completions.

    Args:
        prompts: Texts, or the turns of conversations.
        tokenizer: Tokenizer of the backbone.
        max_length: Most tokens of a prompt, of which the beginning is cut off if it has more; by default as many as
            the model takes.
        template: As in :func:`encode_completions`.
        template_options: As there.

    Raises:
        ConfigError: ``max_length`` is above the model's limit or below 1, or there is no template for turns.
        DataError: A prompt is empty, or the template fails.
    """
    limit = getattr(tokenizer, "model_max_length", None)
    max_length = checked_length(limit if max_length is None else max_length, 1, tokenizer)
    makes = Scripts(tokenizer, _checked_template(template), template_options)
    ends = Ends(tokenizer)
    given = listed(prompts, "prompts", "['2 + 2 =']")
    texts = []
    for number, prompt in enumerate(given, 1):
        where = f"prompt {number} of {len(given)}"
        if not prompt or (isinstance(prompt, str) and not prompt.strip()) or not isinstance(prompt, str | list | tuple):
            raise DataError(f"{where} must be a text that is not empty, or turns; found {excerpt(prompt)}")
        texts.append(makes.prompt(prompt, where))
    plain = [makes.is_plain(prompt) for prompt in given]
    whole = [ends.begun(ids, bare) for ids, bare in zip(ids_of(texts, tokenizer), plain, strict=True)]
    kept = [_shortened(ids, max_length, ends) for ids in whole]
    return Prompts(tuple(map(torch.tensor, kept)), sum(len(ids) > max_length for ids in whole))


def _checked_template(template: object) -> str | None:
    if template is not None and (not isinstance(template, str) or not template.strip()):
        raise ConfigError(f"template must be 'chat', or a chat template in Jinja; found {excerpt(template)}")
    return template


def _checked_length(max_length: int | None, tokenizer: PreTrainedTokenizerBase) -> int:
    limit = getattr(tokenizer, "model_max_length", None)
    if max_length is None and isinstance(limit, int | float):
        max_length = int(min(LENGTH, limit))
    return checked_length(max_length, 3, tokenizer)


def _completions(rows: Iterable[Mapping[str, Any] | Completion]) -> list[Completion]:
    """Rows as completions, each with what messages call it."""
    given = listed(rows, "rows", "[{'prompt': '2 + 2 =', 'completion': ' 4'}]")
    found = []
    for number, row in enumerate(given, 1):
        where = f"row {number} of {len(given)}"
        if not isinstance(row, Completion):
            row = completion_of(row, where)
        found.append(row if row.where else Completion(row.prompt, row.completion, row.every_turn, where))
    return found


def _fitted(
    tokens: Tokens, most: int, long_completions: LongCompletions, ends: Ends, where: str
) -> tuple[Tokens, bool]:
    """Tokens of at most a length, and whether the end of the completion was cut off for that."""
    if not tokens.learned or tokens.learned[-1][0] >= tokens.learned[-1][1]:
        raise DataError(f"{where}: the completion has no token in this vocabulary; remove the row")
    kept = _kept(tokens.ids, ends)
    own = len(tokens.ids) - tokens.opening
    if own + 1 <= most:
        return tokens.cut_to(most, kept), False
    if long_completions == "refuse":
        raise DataError(
            f"{where}: the completion has {own} tokens, which with one of its prompt are more than max_length {most}; "
            "raise max_length, or cut their ends off with long_completions: truncate"
        )
    return tokens.cut_to(own + 1, kept).ended_at(most), True


def _kept(ids: Sequence[int], ends: Ends) -> int:
    """How many tokens stay at the beginning of what is cut: BOS."""
    return 1 if ends.begin and tuple(ids[:1]) == ends.begin else 0


def _shortened(ids: tuple[int, ...], most: int, ends: Ends) -> tuple[int, ...]:
    kept = min(_kept(ids, ends), most)
    return ids if len(ids) <= most else ids[:kept] + ids[len(ids) - (most - kept) :]


def _padding(tokenizer: PreTrainedTokenizerBase) -> int:
    return tokenizer.pad_token_id or 0
