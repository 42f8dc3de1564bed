"""Which kind of task a table is for, and which of its columns is what: by their names, and by what they hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pemeta.data.schemes import PREFIXED
from pemeta.data.token_files.kinds import MOST
from pemeta.errors import DataError, shortened, unknown_name

CLASSIFICATION, COMPLETION, LANGUAGE_MODEL = "sequence_classification", "completion", "language_model"
ROLES: Mapping[str, tuple[str, ...]] = {
    CLASSIFICATION: ("text", "text_pair", "label", "labels"),
    COMPLETION: ("prompt", "completion", "messages"),
    LANGUAGE_MODEL: ("text",),
    "masked_language_model": ("text",),
}
"""What columns can be for each kind of task that rows of texts are for."""
NAMES: Mapping[str, tuple[str, ...]] = {
    "prompt": ("prompt", "instruction", "question", "input", "query", "source"),
    "completion": ("completion", "response", "output", "answer", "reply"),
    "label": (
        "label", "labels", "class", "classes", "category", "categories", "intent", "sentiment", "emotion", "topic",
        "target", "score", "rating", "stars", "tags", "y",
    ),
    "text": (
        "text", "sentence", "content", "review", "utterance", "tweet", "comment", "message", "document", "body",
        "query", "question", "description", "title", "abstract",
    ),
}  # fmt: skip
"""Usual names of columns, those that say most first."""
PAIRS = (
    ("premise", "hypothesis"), ("sentence1", "sentence2"), ("question1", "question2"), ("text1", "text2"),
    ("text", "text_pair"), ("question", "sentence"), ("query", "passage"), ("query", "document"),
    ("question", "context"),
)  # fmt: skip
"""Usual names of the columns of pairs of texts."""
TASKS = ("task", "task_name", "domain", "dataset", "subset", "language", "lang", "customer", "tenant", "source")
"""Names of columns whose values are tasks."""
FEW_WORDS = 4
"""Most words, on average, of what may be the name of a class."""


@dataclass(frozen=True)
class Column:
    """What some values of a column are.

    Attributes:
        name: Its name.
        values: The values that are there.
        rows: Number of rows.
    """

    name: str
    values: Sequence[Any]
    rows: int

    @property
    def texts(self) -> bool:
        """Whether they are strings."""
        return bool(self.values) and all(isinstance(value, str) for value in self.values)

    @property
    def lists(self) -> bool:
        """Whether they are lists of strings or integers, as several labels are."""
        parts = [part for value in self.values if isinstance(value, list | tuple) for part in value]
        return (
            bool(parts)
            and all(isinstance(value, list | tuple) for value in self.values)
            and all(isinstance(part, str | int) for part in parts)
        )

    @property
    def turns(self) -> bool:
        """Whether they are lists of turns of a chat, with ``role`` and ``content``."""
        first = next((value for value in self.values if value), None)
        return (
            isinstance(first, list | tuple) and isinstance(first[0], Mapping) and {"role", "content"} <= first[0].keys()
        )

    @cached_property
    def words(self) -> float:
        """Words of a text, on average."""
        return sum(len(str(value).split()) for value in self.values) / max(1, len(self.values))

    @cached_property
    def different(self) -> list[Any]:
        """The different values, or the different parts of lists."""
        parts = [part for value in self.values for part in (value if isinstance(value, list | tuple) else [value])]
        return list(dict.fromkeys(part for part in parts if isinstance(part, str | int | float)))

    @property
    def repeats(self) -> bool:
        """Whether values stand in several rows each, as classes do."""
        return len(self.different) <= max(1, self.rows // 2) or (self.rows < 10 and len(self.different) < self.rows)

    @property
    def classes(self) -> bool:
        """Whether they may be classes, one in each row."""
        plain = all(isinstance(value, str | int) or (isinstance(value, float) and value.is_integer())
                    for value in self.values)  # fmt: skip
        return bool(self.values) and plain and self.repeats and self.words <= FEW_WORDS and len(self.different) > 1

    @property
    def numbers(self) -> bool:
        """Whether they are numbers that are no classes."""
        plain = all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)
        return bool(self.values) and plain and not self.classes

    @property
    def tags(self) -> bool:
        """Whether they are tags of entities, such as ``B-PER``, one or several in each row."""
        lists = [value.split() if isinstance(value, str) else value for value in self.values]
        parts = [part for one in lists if isinstance(one, list | tuple) for part in one]
        found = [part for part in parts if isinstance(part, str) and (part == "O" or PREFIXED.fullmatch(part))]
        return len(found) > MOST * len(parts) and any(part != "O" for part in found)


@dataclass(frozen=True)
class Guess:
    """What a table is for.

    Attributes:
        kind: The kind of task.
        columns: The column of each role, by its name.
        why: Why each is that, in a few words.
        problem: Of a classification, ``single_label``, ``multi_label`` or ``regression``.
        other: What else could be said about its columns, in a line each.
        tasks: The column whose values are tasks, if there is one of such a name.
    """

    kind: str
    columns: Mapping[str, str]
    why: Mapping[str, str] = field(default_factory=dict)
    problem: str = "single_label"
    other: tuple[str, ...] = ()
    tasks: str | None = None


def guess(
    where: str, rows: Sequence[Mapping[str, Any]], kind: str | None = None, given: Mapping[str, str] | None = None
) -> Guess | None:
    """What a table with these rows is for; None if its rows seem to be words and tags.

    Args:
        where: What messages call the table.
        rows: Its first rows.
        kind: The kind of task, if it is known.
        given: The columns of roles that are known.

    Raises:
        DataError: A column is not there, or what it is for may be more than one thing.
    """
    given = dict(given or {})
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: Column(name, [v for row in rows if (v := row.get(name)) is not None], len(rows)) for name in names}
    for role, name in given.items():
        if name not in columns:
            raise DataError(f"{where}: --column {role}={name}: {shortened(unknown_name('column', name, columns), 300)}")
    kind = kind or _kind_of(given)
    makers = {CLASSIFICATION: _classification, COMPLETION: _completion, LANGUAGE_MODEL: _text}
    if kind is None and any(column.tags for column in columns.values()):
        return None
    for one, make in makers.items():
        if kind in (None, one) or (one == LANGUAGE_MODEL and kind == "masked_language_model"):
            found = make(columns, given)
            if found is not None and (kind is not None or _plausible(found, columns)):
                return _finished(found, kind, given, columns)
    if kind is None:
        return None
    there = shortened(", ".join(map(repr, columns)), 200)
    say = " ".join(f"--column {role}=..." for role in ROLES[kind])
    raise DataError(f"{where}: cannot tell which columns are what for {kind}; it has {there}; say it: {say}")


def _kind_of(given: Mapping[str, str]) -> str | None:
    """The only kind that has the given roles; None if there are several, or none."""
    kinds = [kind for kind, roles in ROLES.items() if given and given.keys() <= set(roles)]
    return kinds[0] if len(kinds) == 1 or kinds == [LANGUAGE_MODEL, "masked_language_model"] else None


def _plausible(found: Guess, columns: Mapping[str, Column]) -> bool:
    """Whether what is taken for texts is more than a word in each row, as a token file has it."""
    texts = [columns[name] for role, name in found.columns.items() if role in ("text", "prompt")]
    return all(column.words > 1.2 for column in texts)


def _finished(found: Guess, kind: str | None, given: Mapping[str, str], columns: Mapping[str, Column]) -> Guess:
    used = set(found.columns.values())
    tasks = [
        name for name, column in columns.items()
        if name not in used and name.lower() in TASKS and column.texts and column.repeats and len(column.different) > 1
    ]  # fmt: skip
    why = {**found.why, **dict.fromkeys(given, "as you say")}
    return Guess(kind or found.kind, found.columns, why, found.problem, found.other, next(iter(tasks), None))


def _completion(columns: Mapping[str, Column], given: Mapping[str, str]) -> Guess | None:
    """Prompts and completions, or chats."""
    if "messages" in given:
        return Guess(COMPLETION, given)
    chats = [name for name, column in columns.items() if column.turns]
    if chats and not given:
        name = "messages" if "messages" in chats else chats[0]
        return Guess(COMPLETION, {"messages": name}, {"messages": "lists of turns with role and content"})
    texts = {name: column for name, column in columns.items() if column.texts and name not in given.values()}
    prompt, completion = given.get("prompt"), given.get("completion")
    why = {}
    if prompt is None and (prompt := _named(texts, "prompt")) is not None:
        why["prompt"] = "texts, and its name"
    rest = {name: column for name, column in texts.items() if name != prompt}
    if completion is None and (completion := _named(rest, "completion")) is not None:
        why["completion"] = "texts, and its name"
    if prompt is None and completion in texts and len(texts) == 2:
        prompt, why["prompt"] = next(name for name in texts if name != completion), "the other text"
    if prompt is None or completion is None:
        return None
    more = [name for name in texts if name not in (prompt, completion) and name.lower() in ("input", "context")]
    other = [f"{name} is text too, and not read: join it to {prompt}, if it belongs to the prompt" for name in more]
    return Guess(COMPLETION, {"prompt": prompt, "completion": completion}, why, other=tuple(other))


def _classification(columns: Mapping[str, Column], given: Mapping[str, str]) -> Guess | None:
    """Texts, or pairs of them, with labels."""
    if not given and (_named(columns, "completion") is not None or any(one.turns for one in columns.values())):
        return None  # which says more than a column that could be a label
    why: dict[str, str] = {}
    label = given.get("label") or given.get("labels")
    fit = {name: one for name, one in columns.items() if one.classes or one.lists or one.numbers}
    if label is None:
        label = _named(fit, "label")
        if label is not None:
            why["label"] = "its name"
        else:
            likely = [name for name, one in fit.items() if not one.numbers and name.lower() not in (*TASKS, "split")]
            label = likely[0] if len(likely) == 1 else None
            why["label"] = "the only column of few different values"
    if label is None:
        return None
    texts = {name: one for name, one in columns.items() if one.texts and name not in (label, *given.values())}
    pair = next(((a, b) for a, b in PAIRS if a in texts and b in texts), (None, None))
    text, second = given.get("text", pair[0]), given.get("text_pair", pair[1])
    if pair[0] is not None and not given:
        why |= {"text": "a pair, by its name", "text_pair": "a pair, by its name"}
    if text is None and (text := _named(texts, "text")) is not None:
        why["text"] = "texts, and its name"
    if text is None:
        long = sorted((one for one in texts.values() if not one.classes), key=lambda one: -one.words)
        text = long[0].name if long else None
        why["text"] = "the only text" if len(long) == 1 else "the longest texts"
    if text is None:
        return None
    return _with_problem(text, second, columns[label], why)


def _with_problem(text: str, second: str | None, column: Column, why: Mapping[str, str]) -> Guess:
    kinds = {"multi_label": column.lists, "regression": column.numbers}
    problem = next((name for name, there in kinds.items() if there), "single_label")
    role = "labels" if problem == "multi_label" else "label"
    holds = {
        "multi_label": f"lists of {len(column.different)} different labels",
        "regression": "numbers that differ in nearly all rows",
        "single_label": f"{len(column.different)} different values",
    }[problem]
    reasons = {role if key == "label" else key: why[key] for key in why}
    reasons[role] = "; ".join(filter(None, (reasons.get(role), holds)))
    pairs = {} if second is None else {"text_pair": second}
    return Guess(CLASSIFICATION, {"text": text, **pairs, role: column.name}, reasons, problem)


def _text(columns: Mapping[str, Column], given: Mapping[str, str]) -> Guess | None:
    """Texts alone."""
    if "text" in given:
        return Guess(LANGUAGE_MODEL, given)
    texts = {name: one for name, one in columns.items() if one.texts and not one.classes}
    name = _named(texts, "text") or (next(iter(texts)) if len(texts) == 1 else None)
    return None if name is None else Guess(LANGUAGE_MODEL, {"text": name}, {"text": "texts, and no labels"})


def _named(columns: Mapping[str, Column], role: str) -> str | None:
    """The column with the most telling of the usual names of a role."""
    by_name = {name.lower(): name for name in columns}
    return next(_all_of(by_name, NAMES[role]), None)


def _all_of(by_name: Mapping[str, str], names: Sequence[str]) -> Iterator[str]:
    return (by_name[name] for name in names if name in by_name)
