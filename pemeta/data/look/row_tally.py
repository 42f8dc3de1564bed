"""What rows of texts hold, counted row by row: lengths, labels, repetitions, and what is odd."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pemeta.data.look.oddities import odd_character
from pemeta.data.look.tally import LONG, MOJIBAKE, Counts
from pemeta.data.rows import Row
from pemeta.errors import counted, excerpt
from pemeta.utils.values import missing


@dataclass
class RowTally(Counts):
    """What some rows hold; lengths are those of texts and prompts.

    Attributes:
        columns: The column of each role.
        tasks: Column of the task; None without one.
        classes: How many rows there are of each label.
        numbers: Labels that are numbers, if a number is to be predicted.
        completions: How many completions there are of each number of words.
        by_task: Number of rows of each task.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    tasks: str | None = None
    numeric: bool = False
    classes: Counter[str] = field(default_factory=Counter)
    numbers: list[float] = field(default_factory=list)
    completions: Counter[int] = field(default_factory=Counter)
    by_task: Counter[str] = field(default_factory=Counter)
    _odd: dict[str, tuple[str, str] | None] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        """Count a row."""
        where = row.where.rpartition(", ")[2]
        values = {role: row.values.get(name) for role, name in self.columns.items()}
        for role, value in values.items():
            if not isinstance(value, list | tuple) and (
                missing(value) or (isinstance(value, str) and not value.strip())
            ):
                what = "no value" if role == "labels" else f"an empty {role}"
                self.oddities.add(f"a row with {what}", where, hint="it is refused: give it one, or remove the row")
        asked, answer = self._parts(values, where)
        words = sum(len(text.split()) for text in asked)
        if words > max(self.lengths, default=0):
            self.longest = where
        self.lengths[words] += 1
        if words > LONG and "label" in self.columns:
            hint = f"max_length is {LONG} tokens by default, and cuts what is longer"
            self.oddities.add(f"a text of more than {LONG} words", where, f"{words} words", hint)
        for text in (*asked, *([answer] if isinstance(answer, str) else ())):
            self._look_at_text(text, where)
        self._look_for_repetition(tuple(asked), answer, where)
        if self.tasks is not None and not missing(row.values.get(self.tasks)):
            self.by_task[str(row.values[self.tasks])] += 1

    def finish(self) -> None:
        """Name what only the whole shows: classes of one row, and classes that differ in capitals alone."""
        alike: dict[str, list[str]] = {}
        for name, number in self.classes.items():
            alike.setdefault(name.strip().lower(), []).append(name)
            if number == 1 and len(self.classes) > 1:
                hint = "it may be a mistake, and nothing is left of it for other splits"
                self.oddities.add("a class of a single row", None, excerpt(name, 40), hint)
        for names in alike.values():
            if len(names) > 1:
                hint = "they are classes of their own; rename one, if it is a mistake"
                self.oddities.add("classes that differ in capitals or blanks alone", None, " ".join(names), hint)

    def _parts(self, values: Mapping[str, Any], where: str) -> tuple[list[str], object]:
        """What is given to a model, and what it should say to that."""
        if "messages" in values:
            return self._of_turns(values["messages"], where)
        asked = [str(values[role]) for role in ("text", "text_pair", "prompt") if not missing(values.get(role))]
        if "completion" in values:
            answer = "" if missing(values["completion"]) else str(values["completion"])
            self.completions[len(answer.split())] += 1
            return asked, answer
        label = values.get("labels", values.get("label"))
        if isinstance(label, list | tuple):
            self.classes.update(str(one) for one in label)
            return asked, tuple(map(str, label))
        if self.numeric and isinstance(label, int | float):
            self.numbers.append(float(label))
        elif not missing(label):
            self.classes[_named(label)] += 1
        return asked, label

    def _of_turns(self, turns: object, where: str) -> tuple[list[str], object]:
        given = [turn for turn in turns if isinstance(turn, Mapping)] if isinstance(turns, list | tuple) else []
        said = [str(turn.get("content") or "") for turn in given]
        if not given or given[-1].get("role") != "assistant":
            hint = "there is nothing to learn in it: end it with one"
            self.oddities.add("a chat that does not end with a turn of the assistant", where, hint=hint)
            return said, ""
        self.completions[len(said[-1].split())] += 1
        return said[:-1], said[-1]

    def _look_at_text(self, text: str, where: str) -> None:
        for character in set(text):
            if character not in self._odd:
                self._odd[character] = odd_character(character)
            if (found := self._odd[character]) and not found[0].startswith("a blank"):
                self.oddities.add(found[0], where, excerpt(text, 40), found[1])
        if not text.isascii() and MOJIBAKE.search(text):
            hint = "its UTF-8 was once read as another encoding"
            self.oddities.add("two letters in place of one", where, excerpt(text, 40), hint)

    def _look_for_repetition(self, asked: Sequence[str], answer: object, where: str) -> None:
        key, own = hash(asked), hash(answer)
        if key not in self.seen:
            self.seen[key] = (where, own)
            return
        first, other = self.seen[key]
        self.repeated += 1
        self.first_repeated = self.first_repeated or (where, first)
        if own != other:
            what = "another label" if {"label", "labels"} & self.columns.keys() else "another completion"
            self.oddities.add(f"a text that occurs before with {what}", where, f"first at {first}")

    def described(self) -> Iterator[tuple[str, str]]:
        """What there is to predict, as names and texts."""
        if self.classes:
            most = self.classes.most_common()
            shown = ", ".join(f"{name} {number:,}" for name, number in most[:SHOWN])
            more = f", and {len(most) - SHOWN} more, down to {most[-1][1]:,}" if len(most) > SHOWN else ""
            yield "classes", f"{counted(len(most), 'class', 'classes')}: {shown}{more}"
        if self.numbers:
            low, high, mean = min(self.numbers), max(self.numbers), sum(self.numbers) / len(self.numbers)
            yield "labels", f"numbers from {low:g} to {high:g}, {mean:.3g} on average"
        if self.completions:
            lengths = Counts(self.oddities, self.completions)
            median, most_words = lengths.quantile(0.5), max(self.completions)
            yield "completions", f"{median} (median) to {most_words} words"


SHOWN = 8
"""Most classes that are named."""


def _named(label: object) -> str:
    """A label as the name of its class."""
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)
