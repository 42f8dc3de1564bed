"""Chat templates: how the turns of a conversation become text, and where in it the assistant's turns are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from pemeta.data.turns import ASSISTANT, Completion, Turn
from pemeta.errors import ConfigError, DataError, excerpt, reason, shortened

OWN = "chat"
"""The name of the tokenizer's own template, for data whose prompts are texts."""
_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
_STAND_IN = "\u2591stand-in\u2591"
"""The content of a turn that is not known yet."""


@dataclass(frozen=True)
class Script:
    """A prompt with its completion as one text.

    Attributes:
        text: The text.
        learned: Where in it something learned begins and ends, in order; the last is the completion.
        turns: The turns that a template with marks is applied to; None where ``learned`` says all.
    """

    text: str
    learned: tuple[tuple[int, int], ...]
    turns: tuple[Turn, ...] | None = None


class Scripts:
    """Makes text of prompts and completions.

    Args:
        tokenizer: The tokenizer, whose chat template is used for turns.
        template: None for TRL's convention: texts as they are, and turns by the tokenizer's template. ``chat`` for its
            template also for texts, as turns of user and assistant. Or a template in Jinja, for all of them.
        options: Further variables of the template, such as ``enable_thinking``.

    Raises:
        ConfigError: ``chat`` is given, and the tokenizer has no template.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template: str | None = None, options: Mapping[str, Any] | None = None
    ) -> None:
        self.tokenizer, self.options = tokenizer, dict(options or {})
        self.wraps = template is not None
        """Whether texts become turns."""
        self.given = None if template in (None, OWN) else template
        """The template that was given, in Jinja."""
        self._before: dict[bool, str] = {}  # between the beginning of a turn, the last or another, and its content
        if template == OWN:
            self._require_template("template: chat")

    def is_plain(self, prompt: object) -> bool:
        """Whether a prompt is used as it is, without a template."""
        return isinstance(prompt, str) and not self.wraps

    def prompt(self, prompt: str | Sequence[Turn], where: str) -> str:
        """The text of a prompt up to where the completion begins.

        Raises:
            DataError: The template fails, or shows the beginning of a conversation otherwise than alone.
            ConfigError: Turns are given, and there is no template, or it is no Jinja.
        """
        if isinstance(prompt, str) and not self.wraps:
            return prompt
        turns = ({"role": "user", "content": prompt},) if isinstance(prompt, str) else prompt
        opened = self._render(turns, where, opened=True)
        if opened != self._render(turns, where):
            return opened
        # A template without a generation prompt: the completion begins where the next turn's content does.
        whole = self._render((*turns, {"role": ASSISTANT, "content": _STAND_IN}), where)
        if not whole.startswith(opened) or _STAND_IN not in whole:
            raise DataError(f"{where}: {self._apart(whole, opened)}")
        found = whole[: whole.index(_STAND_IN)]
        # A blank alone, as of Mistral's and Llama 2's templates, is the model's to write: servers send none.
        return found if found[len(opened) :].strip() else opened

    def script(self, completion: Completion, where: str) -> Script:
        """The text of a prompt with its completion, and where what is learned begins and ends in it.

        A turn of the assistant begins where the text of the turns before it ends, with the template's generation
        prompt, which has to be the beginning of the whole text; and it ends with its content.

        Raises:
            DataError: The template fails, or that text is not the beginning of the whole.
            ConfigError: There is no template for turns, or it is no Jinja.
        """
        if isinstance(completion.prompt, str) and isinstance(completion.completion, str) and not self.wraps:
            text = completion.prompt + completion.completion
            return Script(text, ((len(completion.prompt), len(text)),))
        before, learned = completion.turns
        turns = (*before, *learned)
        text = self._render(turns, where)
        first = 0 if completion.every_turn else len(before)
        own = [number for number in range(first, len(turns)) if turns[number]["role"] == ASSISTANT]
        if self.has_marks and completion.every_turn:
            return Script(text, (), turns)
        starts = [self._begin(text, turns[:number], where) for number in own]
        ends = [*starts[1:], len(text)]
        found = [
            (start, self._end(text, turns, number, start, end, where))
            for number, start, end in zip(own, starts, ends, strict=True)
        ]
        return Script(text, tuple(found))

    @property
    def has_marks(self) -> bool:
        """Whether the template says itself what the assistant generates, between ``{% generation %}`` marks."""
        return bool(_MARKS.search(self._require_template("messages")))

    def masked(self, turns: Sequence[Turn], where: str) -> tuple[list[int], list[int]]:
        """The tokens of turns by a template with marks, and 1 for each that the assistant generates, else 0.

        Raises:
            DataError: The template fails.
        """
        found = self._apply(turns, where, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
        return list(found["input_ids"]), list(found["assistant_masks"])

    def _begin(self, text: str, before: Sequence[Turn], where: str) -> int:
        """Where in the text the turn after those before it begins, as :meth:`prompt` ends there."""
        opened = self.prompt(tuple(before), where) if before else self._before_all(where)
        if not text.startswith(opened):
            raise DataError(f"{where}: {self._apart(text, opened)}")
        return len(opened)

    def _before_all(self, where: str) -> str:
        """The text before a first turn that is the assistant's."""
        whole = self._render(({"role": ASSISTANT, "content": _STAND_IN},), where)
        return whole[: max(0, whole.find(_STAND_IN))]

    def _end(self, text: str, turns: Sequence[Turn], number: int, start: int, limit: int, where: str) -> int:
        """Where in the text the content of a turn ends that begins at ``start``."""
        raw = str(turns[number].get("content") or "")
        last = number == len(turns) - 1
        # What the template puts before the content, as an empty thought, may hold the same letters.
        before = self._before.get(last)
        if before is None or not text.startswith(f"{before}{raw.strip()}", start):
            before = self._before_content(text, turns, number, start, where)
        if before is not None and raw.strip():
            self._before[last] = before
            at = start + len(before)
            content = raw.rstrip() if text.startswith(raw.rstrip(), at) else raw.strip()
            if text.startswith(content, at) and at + len(content) <= limit:
                return at + len(content)
        closed = self._render(turns[: number + 1], where)  # of a content that the template changes
        if not text.startswith(closed) or len(closed) > limit:
            raise DataError(f"{where}: {self._apart(text, closed)}")
        return len(closed.rstrip())

    def _before_content(self, text: str, turns: Sequence[Turn], number: int, start: int, where: str) -> str | None:
        """What stands between the beginning of a turn and its content; None if that cannot be told."""
        other = [{**turn, "content": _STAND_IN} if i == number else turn for i, turn in enumerate(turns)]
        shown = self._render(other, where)
        at = shown.find(_STAND_IN)
        return text[start:at] if at >= start and shown[:at] == text[:at] else None

    def _apart(self, text: str, other: str) -> str:
        """What is wrong with a template that shows the beginning of a conversation otherwise than alone."""
        at = next((n for n, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), min(len(text), len(other)))
        return (
            "the chat template shows the beginning of the conversation otherwise than when it stands alone, so that "
            f"what the assistant says cannot be told: {excerpt(other[at:][:40], 50)} against "
            f"{excerpt(text[at:][:40], 50)} after {excerpt(text[:at][-40:], 50)}; mark the assistant's turns in a "
            "template of your own with {% generation %}, or give the last turn only: prompt and completion"
        )

    def _render(self, turns: Sequence[Turn], where: str, opened: bool = False) -> str:
        return str(self._apply(turns, where, tokenize=False, add_generation_prompt=opened))

    def _apply(self, turns: Sequence[Turn], where: str, **how: Any) -> Any:
        """The template's text, or its tokens."""
        self._require_template(where)
        try:
            return self.tokenizer.apply_chat_template(
                [dict(turn) for turn in turns], chat_template=self.given, **self.options, **how
            )
        except Exception as error:  # whatever a template does, in Jinja's classes and others
            if type(error).__name__ == "TemplateSyntaxError":
                line = getattr(error, "lineno", 1)
                raise ConfigError(
                    f"the chat template is no Jinja: {reason(error)}, in line {line}; correct it"
                ) from None
            raise DataError(f"{where}: {_refusal(turns, error)}") from None

    def _require_template(self, what: str) -> str:
        """The template.

        Raises:
            ConfigError: There is none.
        """
        if self.given is not None:
            return self.given
        found = getattr(self.tokenizer, "chat_template", None)
        if isinstance(found, dict):  # by name
            found = found.get("default") or next(iter(found.values()), None)
        if not found:
            raise ConfigError(
                f"{what} needs a chat template, and the tokenizer has none, as those of base models; give one in "
                "Jinja, template: ..., or rows with 'prompt' and 'completion', which need none"
            )
        return str(found)


def _refusal(turns: Sequence[Turn], error: Exception) -> str:
    """What is said of turns that a template does not take."""
    why = shortened(reason(error), 160)
    roles = shortened(", ".join(str(turn.get("role")) for turn in turns), 100)
    remedy = "correct the row, or the template"
    if "system" in why.lower() and any(turn.get("role") == "system" for turn in turns):
        remedy = "put what the system turn says into the first turn of the user"
    elif "alternate" in why.lower():
        remedy = "let turns of user and assistant take turns"
    return f"the chat template fails for turns of {roles}: {why}; {remedy}"
