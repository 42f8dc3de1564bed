"""Prompts with completions as data has them, in TRL's conventions: two texts, or the turns of a conversation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pemeta.data.rows import Row
from pemeta.errors import DataError, article, excerpt, shortened, unknown_name
from pemeta.utils.values import listed, missing, text_problem

Turn: TypeAlias = Mapping[str, Any]
"""One turn of a conversation: its ``role``, its ``content``, and what else a chat template reads of it."""
ASSISTANT = "assistant"
"""The role whose turns are learned."""
FORMS = "'prompt' and 'completion', or 'messages'"
"""The columns that a row of completions has."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A prompt with the completion that is to be learned.

    Attributes:
        prompt: A text, or the turns before the completion.
        completion: A text, or turns of which those of the assistant are learned; the last one is the assistant's.
        every_turn: Whether the assistant's turns in ``prompt`` are learned too, as those of a row of ``messages`` are.
        where: Where the data has it, such as ``train.jsonl, line 12``, for messages; it does not count for equality.
    """

    prompt: str | tuple[Turn, ...]
    completion: str | tuple[Turn, ...]
    every_turn: bool = False
    where: str = field(default="", compare=False, repr=False)

    @property
    def prompt_text(self) -> str:
        """The prompt for people, where turns are lines with their roles."""
        return self.prompt if isinstance(self.prompt, str) else "\n".join(map(_shown, self.prompt))

    @property
    def completion_text(self) -> str:
        """The text that is to be generated, which is the completion or the content of its last turn."""
        if isinstance(self.completion, str):
            return self.completion
        return str(self.completion[-1].get("content") or "")

    @property
    def turns(self) -> tuple[tuple[Turn, ...], tuple[Turn, ...]]:
        """Prompt and completion as turns, where texts become one of the user and one of the assistant."""
        if isinstance(self.prompt, str) or isinstance(self.completion, str):
            prompt = {"role": "user", "content": self.prompt}
            return (prompt,), ({"role": ASSISTANT, "content": self.completion},)
        return self.prompt, self.completion

    def to_json(self) -> str:
        """All that is learned, as one line of JSON, from which digests are made."""
        values = [self.prompt, self.completion, self.every_turn]
        return json.dumps(values, sort_keys=True, ensure_ascii=False, default=str)


def completions(rows: Iterable[Row]) -> Iterator[Completion]:
    """The completions that rows hold, in order.

    Raises:
        DataError: A row has neither the columns ``prompt`` and ``completion`` nor ``messages``, one of them is empty,
            or a turn is none; the message names the row's place.
    """
    for row in rows:
        yield completion_of(row.values, row.where)


def completion_of(values: Mapping[str, Any], where: str) -> Completion:
    """The completion that a row holds.

    Args:
        values: The row by column.
        where: What messages call it.

    Raises:
        DataError: As in :func:`completions`.

    >>> completion_of({"prompt": "2 + 2 =", "completion": " 4"}, "row 1").completion_text
    ' 4'
    >>> row = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]
    >>> completion_of({"messages": row}, "row 1").prompt_text
    'user: 2 + 2?'
    """
    if not isinstance(values, Mapping):
        raise DataError(f"{where}: expected a row with {FORMS}; found {article(type(values).__name__)}")
    if values.get("messages") is not None:
        turns = _turns(values["messages"], f"{where}: messages")
        _check_learned(turns[-1], turns, where)
        return Completion(turns[:-1], turns[-1:], every_turn=True, where=where)
    for column in ("prompt", "completion"):
        if column not in values:
            raise DataError(f"{where}: {_lacks(column, values)}")
        if missing(values[column]):
            raise DataError(f"{where}: the {column} is missing; give it a text, or remove the row")
    prompt, completion = values["prompt"], values["completion"]
    if isinstance(prompt, str) != isinstance(completion, str):
        raise DataError(
            f"{where}: prompt and completion must both be texts, or both lists of turns; found {excerpt(prompt, 40)} "
            f"and {excerpt(completion, 40)}"
        )
    if not isinstance(prompt, str):
        given, learned = _turns(prompt, f"{where}: prompt"), _turns(completion, f"{where}: completion")
        _check_learned(learned[-1], learned, where)
        return Completion(given, learned, where=where)
    _check_text(prompt, f"{where}: the prompt", "; text without a prompt is for task: language_model")
    _check_text(completion, f"{where}: the completion", "; give it a text, or remove the row: nothing would be learned")
    return Completion(prompt, completion, where=where)


def _lacks(column: str, values: Mapping[str, Any]) -> str:
    columns = [str(name) for name in values]
    return f"expected the columns {FORMS}; {shortened(unknown_name('column', column, columns), 300)}"


def _check_text(text: object, what: str, remedy: str) -> None:
    problem = text_problem(text)
    if problem is None and not str(text).strip():
        problem = "is empty"
    if problem is not None:
        raise DataError(f"{what} {problem}{remedy if problem == 'is empty' else ''}")


def _turns(given: object, where: str) -> tuple[Turn, ...]:
    """Turns of a conversation, each with a role."""
    if isinstance(given, str) and given.lstrip().startswith("["):  # a cell of a table without lists
        try:
            given = json.loads(given)
        except ValueError as error:
            raise DataError(f"{where} look like a list in JSON, but cannot be read ({error}); correct them") from None
    try:
        turns = listed(given, "turns", "[{'role': 'user', 'content': ...}]")  # type: ignore[arg-type, var-annotated]
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    if not turns:
        raise DataError(f"{where} are empty; remove the row, or give it turns")
    return tuple(_turn(turn, f"{where}, turn {number} of {len(turns)}") for number, turn in enumerate(turns, 1))


def _turn(turn: Any, where: str) -> Turn:
    if not isinstance(turn, Mapping) or not isinstance(turn.get("role"), str):
        others = " (its key is 'from' here, and 'value' that of the content)" if _is_shared(turn) else ""
        raise DataError(
            f"{where}: expected a role and a content, {{'role': 'user', 'content': ...}}; found {excerpt(turn)}; name "
            f"them so{others}"
        )
    content = turn.get("content")
    if isinstance(content, list | tuple) and all(
        isinstance(one, Mapping) and one.get("type") == "text" for one in content
    ):
        content = "".join(str(one.get("text", "")) for one in content)
    elif content is not None and not isinstance(content, str):
        raise DataError(
            f"{where}: the content must be a text; found {excerpt(content)}; images and the like are not learned"
        )
    elif content is not None and (problem := text_problem(content)):
        raise DataError(f"{where}: the content {problem}")
    # What is not there is None in a table.
    return {**{str(key): value for key, value in turn.items() if value is not None}, "content": content}


def _is_shared(turn: Any) -> bool:
    return isinstance(turn, Mapping) and {"from", "value"} <= turn.keys()


def _check_learned(last: Turn, turns: Sequence[Turn], where: str) -> None:
    """Refuse a conversation that does not end with a turn to learn."""
    if last["role"] != ASSISTANT:
        roles = ", ".join(turn["role"] for turn in turns)
        raise DataError(
            f"{where}: the last turn must be the assistant's, which is learned; found the roles "
            f"{shortened(roles, 100)}; remove what follows it, or the row"
        )
    if not (last["content"] or "").strip() and not last.get("tool_calls"):
        raise DataError(
            f"{where}: the completion is empty, the assistant's last turn; give it a content, or remove the row: "
            "nothing would be learned from it"
        )


def _shown(turn: Turn) -> str:
    return f"{turn['role']}: {turn.get('content') or ''}"
